"""The backend of the engine holds what every one has to, and what only this one can get wrong."""

import asyncio
import json
from base64 import b64encode

import psycopg
import pytest

from my_service.realtime.fanout.engine.postgres import PostgresBackend
from my_service.realtime.settings import PACKAGE
from my_service.realtime.testing import TIMEOUT
from my_service.settings import Settings

from .. import conformance
from .server import Server

HI = "h\u00e9 \U0001f600 \u4f60".encode()


class TestPostgres(conformance.EngineTests):
    backend = PostgresBackend
    server = Server

    async def notify(self, engine: conformance.Server, channel: str, payload: str) -> None:
        text = payload.replace("{channel}", b64encode(channel.encode()).decode())
        async with await psycopg.AsyncConnection.connect(engine.url, autocommit=True) as client:
            await client.execute("SELECT pg_notify(%s, %s)", [PACKAGE, text])

    @pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
    def test_a_database_in_any_encoding_carries_all_characters(self, engine: conformance.Server, encoding: str) -> None:
        with psycopg.connect(engine.url, autocommit=True) as client:
            client.execute(f"CREATE DATABASE other TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")  # type: ignore[arg-type, unused-ignore]
        settings = Settings(fanout_url=engine.url.replace("/postgres", "/other"))

        async def publish(data: bytes) -> None:
            async with conformance.receiving(PostgresBackend, settings, "h\u00e4ll") as (broker, received):
                if encoding == "SQL_ASCII":
                    async with await psycopg.AsyncConnection.connect(
                        settings.fanout_url, autocommit=True, client_encoding="latin1"
                    ) as client:
                        await client.execute("SELECT pg_notify(%s, %s)", [PACKAGE, "no UTF-8: \xff"])
                await broker.publish("h\u00e4ll", data)
                assert json_text((await received.get()).data) == json_text(data)
                [kept] = (await broker.read_history("h\u00e4ll", 0)).messages[-1:]
                assert json_text(kept.data) == json_text(data)
                await broker.join_presence("h\u00e4ll", "j\u00fcrgen", data, data)
                assert await broker.members("h\u00e4ll") == ["j\u00fcrgen"]
                assert "fanout_engine_connections_lost=0.0" in conformance.counted(broker)

        for data in (
            b'{"text":"' + HI + b'"}',
            b'{"text":"' + HI * 1000 + b'"}',
        ):  # the second time it is a second start
            asyncio.run(asyncio.wait_for(publish(data), TIMEOUT))


def json_text(data: bytes) -> str:
    text: str = json.loads(data)["text"]
    return text
