"""The backend of the engine holds what every one has to, and what only this one can get wrong."""

import asyncio
import json
from base64 import b64encode
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from my_service.realtime.errors import SettingsError
from my_service.realtime.fanout.engine.backend import EngineRefusedError
from my_service.realtime.fanout.engine.postgres import PostgresBackend
from my_service.realtime.settings import PACKAGE
from my_service.realtime.testing import TIMEOUT, Start
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

    async def forget(self, engine: conformance.Server, channel: str, member: str) -> None:
        async with await psycopg.AsyncConnection.connect(engine.url, autocommit=True) as client:
            for table, column in (("presence", "member"), ("member", "name")):
                delete = sql.SQL("DELETE FROM {} WHERE channel = %s AND {} = %s")
                there = sql.Identifier(PACKAGE, table), sql.Identifier(column)
                await client.execute(delete.format(*there), [channel.encode(), member.encode()])

    @pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
    def test_a_database_in_any_encoding_carries_all_characters(self, engine: conformance.Server, encoding: str) -> None:
        with psycopg.connect(engine.url, autocommit=True) as client:
            client.execute(f"CREATE DATABASE other TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")  # type: ignore[arg-type, unused-ignore]
        settings = Settings(fanout_url=engine.url.replace("/postgres", "/other"))

        async def publish(data: bytes) -> None:
            async with conformance.receiving(PostgresBackend, settings, "h\u00e4ll", secrets=["service"]) as (
                broker,
                received,
            ):
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
                await broker.set_presence_state("h\u00e4ll", "j\u00fcrgen", data)
                [(member, state)] = (await broker.members("h\u00e4ll")).states.items()
                assert (member, json_text(state)) == ("j\u00fcrgen", json_text(data))
                assert "fanout_engine_connections_lost=0.0" in conformance.counted(broker)

        for data in (
            b'{"text":"' + HI + b'"}',
            b'{"text":"' + HI * 1000 + b'"}',
        ):  # the second time it is a second start
            asyncio.run(asyncio.wait_for(publish(data), TIMEOUT))

    def test_a_pooler_is_refused_by_name_before_anything_is_set(
        self, engine: conformance.Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)  # a pooler gives one of its own
        with pytest.raises(EngineRefusedError, match="pgbouncer"):
            asyncio.run(PostgresBackend.connect(Settings(fanout_url=engine.url), "node"))
        with psycopg.connect(engine.url) as client:
            assert client.execute("SELECT to_regnamespace(%s)", [PACKAGE]).fetchone() == (None,)

    def test_the_rights_in_the_documentation_are_enough_and_no_more(
        self, engine: conformance.Server, start: Start
    ) -> None:
        statements = conformance.documented(PostgresBackend, r"CREATE ROLE [^`]*")
        database = urlsplit(engine.url).path
        of_the_server, _, of_the_database = statements.partition(f"\\connect {PACKAGE}")
        url = engine.url.replace(database, f"/{PACKAGE}").replace("service@", f"{PACKAGE}:{conformance.PASSWORD}@")
        for text, where in ((of_the_server, database), (of_the_database, f"/{PACKAGE}")):
            with psycopg.connect(engine.url.replace(database, where), autocommit=True) as client:
                for statement in filter(None, map(str.strip, text.split(";"))):
                    client.execute(statement)  # type: ignore[arg-type, unused-ignore]
        self.talk(engine, start, url)
        with psycopg.connect(url, autocommit=True) as client:
            for statement in ("CREATE SCHEMA other", "CREATE TABLE public.other ()", "CREATE ROLE other"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    client.execute(statement)  # type: ignore[arg-type, unused-ignore]

    def test_several_hosts_are_tried_as_libpq_does(self, engine: conformance.Server) -> None:
        there = engine.url.rpartition("@")[2].partition("/")[0]
        url = engine.url.replace(there, f"127.0.0.1:1,{there}") + "?target_session_attrs=read-write"

        async def publish() -> None:
            async with conformance.receiving(PostgresBackend, Settings.load(fanout_url=url), "hall") as (
                broker,
                received,
            ):
                await broker.publish("hall", b"{}")
                assert (await received.get()).data == b"{}"

        asyncio.run(asyncio.wait_for(publish(), TIMEOUT))

    def test_a_port_that_is_none_of_several_is_named(self) -> None:
        with pytest.raises(SettingsError, match="FANOUT_URL"):
            Settings.load(fanout_url="postgresql://one:5432,two:port/db")


def json_text(data: bytes) -> str:
    text: str = json.loads(data)["text"]
    return text
