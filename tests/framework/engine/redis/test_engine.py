"""The backend of the engine holds what every one has to, and what only this one can get wrong."""

import asyncio
import socket
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

import pytest
import redis.asyncio
import redis.exceptions

from my_service.realtime.fanout.broker import FanoutUnavailableError
from my_service.realtime.fanout.engine.redis import RedisBackend
from my_service.realtime.settings import PACKAGE
from my_service.realtime.testing import TIMEOUT, Start
from my_service.settings import Settings

from .. import conformance
from .server import Server


def client_of(engine: conformance.Server) -> Any:
    return cast("Any", redis.asyncio.Redis).from_url(engine.url)  # its types are partly unknown


class TestRedis(conformance.EngineTests):
    backend = RedisBackend
    server = Server

    async def notify(self, engine: conformance.Server, channel: str, payload: str) -> None:
        async with client_of(engine) as client:
            await client.publish(f"{PACKAGE}:0:channel:{channel}", payload.replace("{channel} ", ""))

    async def forget(self, engine: conformance.Server, channel: str, member: str) -> None:
        async with client_of(engine) as client:
            for kind in ("present", "farewell", "state", "published"):
                await client.hdel(f"{PACKAGE}:0:{kind}:{channel}", member)
            for node in await client.keys(f"{PACKAGE}:0:node:*"):
                await client.hdel(node, f"{len(channel)}:{channel}{member}")

    @pytest.mark.parametrize("cluster", [False, True], ids=["server", "cluster"])
    def test_the_rights_in_the_documentation_are_enough_and_no_more(
        self, tmp_path: Path, start: Start, *, cluster: bool
    ) -> None:
        rights = conformance.documented(RedisBackend, r"ACL SETUSER (.*)").split()
        options: list[str] = []
        if cluster:
            rights += conformance.documented(RedisBackend, r"In a cluster, add `(.*)`").split()
            with socket.create_server(("127.0.0.1", 0)) as listening:
                options = ["--cluster-enabled", "yes", "--cluster-port", str(listening.getsockname()[1])]
        server = Server(tmp_path, *options, "--user", *rights)
        server.start()
        if cluster:
            with cast("Any", redis.Redis).from_url(server.url) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                deadline = monotonic() + TIMEOUT
                while client.cluster("INFO")["cluster_state"] != "ok":
                    assert monotonic() < deadline, "the cluster is not in order"
                    sleep(0.02)
        url = server.url.replace("://", f"://{PACKAGE}:{conformance.PASSWORD}@")

        async def overstep() -> None:
            async with cast("Any", redis.asyncio.Redis).from_url(url) as client:
                for command in (["GET", "other"], ["PUBLISH", "other", "x"], ["CONFIG", "GET", "*"], ["FLUSHALL"]):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        await client.execute_command(*command)

        try:
            self.talk(server, start, url)
            asyncio.run(overstep())
        finally:
            server.kill()

    @pytest.mark.parametrize("kind", ["sequence", "messages", "present", "farewell", "state", "published"])
    def test_a_key_of_a_wrong_type_harms_its_channel_alone(self, engine: conformance.Server, kind: str) -> None:
        async def harm() -> None:
            async with client_of(engine) as client:
                await client.lpush(f"{PACKAGE}:0:{kind}:bad", "x")
            settings = Settings(fanout_url=engine.url, publish_seconds=2)
            async with conformance.receiving(RedisBackend, settings, "hall") as (engine_broker, received):
                asked: list[asyncio.Future[Any]] = [
                    engine_broker.publish("bad", b"1"),
                    engine_broker.join_presence("bad", "ada", b"2", b"3"),
                    engine_broker.publish("hall", b"4"),
                    engine_broker.set_presence_state("bad", "ada", b"6"),
                ]
                engine_broker.subscribe("bad")
                if kind == "sequence":
                    with pytest.raises(FanoutUnavailableError):
                        await engine_broker.wait_subscribed("bad")
                results = await asyncio.gather(*asked, return_exceptions=True)
                assert any(isinstance(result, FanoutUnavailableError) for result in results)
                assert isinstance(results[2], int)
                engine_broker.subscribe("other")
                await engine_broker.wait_subscribed("other")
                await engine_broker.publish("other", b"5")
                messages = [(await received.get()).data]
                while messages[-1] != b"5":
                    messages.append((await received.get()).data)
                assert b"4" in messages
                assert "fanout_engine_connections_lost=0.0" in conformance.counted(engine_broker)

        asyncio.run(asyncio.wait_for(harm(), TIMEOUT))
