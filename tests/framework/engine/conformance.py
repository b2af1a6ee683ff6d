"""What holds for every engine: two nodes and a real one, which is killed while they serve."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from websockets.sync.client import ClientConnection

from my_service.realtime.errors import SettingsError
from my_service.realtime.fanout.engine.backend import Backend, Publish, ReadHistory
from my_service.realtime.settings import PREFIX
from my_service.realtime.testing import TIMEOUT, Start, credentials
from my_service.settings import Settings


class Server(Protocol):
    """An engine that keeps its data in a folder, to be killed and started again."""

    url: str

    def __init__(self, folder: Path) -> None: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


def hear(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
    return message


class EngineTests:
    """To be inherited by the tests of an engine."""

    backend: ClassVar[type[Backend]]
    server: ClassVar[type[Server]]

    @pytest.fixture
    def engine(self) -> Iterator[Server]:
        folder = Path(tempfile.mkdtemp(prefix="engine-"))
        server: Server | None = None
        try:
            server = self.server(folder)
            server.start()
            yield server
        finally:
            if server:
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def test_what_is_tried_again_is_done_once(self, engine: Server) -> None:
        async def publish_twice() -> None:
            backend = await self.backend.connect(Settings(fanout_url=engine.url), "node")
            try:
                message = Publish(channel="hall", data=b'{"type":"said"}')
                first = await backend.apply([message])
                message.retried = True
                assert await backend.apply([message]) == first
                [history] = await backend.apply([ReadHistory(channel="hall", after=0)])
                assert [kept.sequence for kept in history.messages] == first
            finally:
                await backend.close()

        asyncio.run(publish_twice())

    def test_a_room_is_one_on_two_nodes_and_outlives_its_engine(self, engine: Server, start: Start) -> None:
        nodes = [start(fanout_url=engine.url, publish_seconds=30) for _ in range(2)]
        with ExitStack() as stack:
            one = stack.enter_context(nodes[0].connect("/ws/rooms/hall?after=0"))
            assert hear(one)["type"] == "joined"
            other = stack.enter_context(nodes[1].connect("/ws/rooms/hall", additional_headers=credentials("eve")))
            assert hear(one)["connection"] == hear(other)["connection"], "both receive who joins"
            one.send('{"type":"say","text":"before"}')
            said = hear(one)
            assert (said["text"], hear(other)["text"]) == ("before", "before")
            engine.kill()
            for node in nodes:
                node.wait_for("engine unavailable")
                assert node.get("/ready") == (503, '{"status":"fan-out unavailable"}')
            one.send('{"type":"say","text":"meanwhile"}')
            engine.start()
            for node in nodes:
                node.wait_for("engine available again")
                assert node.get("/ready")[0] == 200
            meanwhile = hear(one)
            assert (meanwhile["text"], hear(other)["text"]) == ("meanwhile", "meanwhile")
            assert meanwhile["sequence"] == said["sequence"] + 1
            late = stack.enter_context(nodes[1].connect(f"/ws/rooms/hall?after={said['sequence']}"))
            assert hear(late) == meanwhile

    @pytest.mark.parametrize("url", ["carrier-pigeon://user:hunter2@host", "memory://user:hunter2@host:port"])
    def test_a_wrong_url_is_named_without_its_password(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{PREFIX}FANOUT_URL", url)
        with pytest.raises(SettingsError) as error:
            Settings.load()
        assert str(error.value).startswith(f"{PREFIX}FANOUT_URL: ")
        assert "hunter2" not in str(error.value)

    def test_the_settings_print_no_password(self) -> None:
        settings = Settings.load(fanout_url="memory://user:hunter2@host")
        assert "hunter2" not in f"{settings!r} {settings}"
