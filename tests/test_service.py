"""A generated service, run as its user runs it, and real clients."""

import asyncio
import json
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from .rendering import replace, run
from .service import TIMEOUT, Service, add_listener, running


async def ask(socket: ClientConnection, message: str) -> dict[str, Any]:
    await socket.send(message)
    answer: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT))
    return answer


def test_fifty_connections_keep_fifty_states_apart(default_project: Path) -> None:
    chance = random.Random(7)  # noqa: S311 (the same interleavings each time)

    async def interleave(url: str) -> None:
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(connect(url)) for _ in range(50)]
            ids: dict[int, str] = {}
            said: Counter[int] = Counter()

            async def say(number: int) -> None:
                if chance.random() < 0.1:
                    assert (await ask(sockets[number], "rubbish"))["type"] == "error"
                answer = await ask(sockets[number], json.dumps({"type": "say", "text": f"{number}"}))
                said[number] += 1
                assert answer["text"] == f"{number}"
                assert answer["count"] == said[number]
                assert ids.setdefault(number, answer["connection"]) == answer["connection"]

            for _ in range(40):
                await asyncio.gather(*(say(number) for number in chance.sample(range(50), 25)))
            assert len(set(ids.values())) == len(ids) == 50

    with running(default_project, max_messages_per_second=0) as service:
        asyncio.run(interleave(service.url("/ws/echo")))


MISTAKES: dict[str, tuple[str, str]] = {
    "a lifespan without @asynccontextmanager": (
        "async def lifespan(socket: Socket) -> AsyncGenerator[None, None]:\n    yield\n",
        "is a lifespan without @asynccontextmanager",
    ),
    "a plain async function as a lifespan": (
        "async def lifespan(socket: Socket) -> None: ...\n",
        "is a plain async function, but a lifespan must be an async context manager",
    ),
    "a lifespan without yield": (
        "@asynccontextmanager\nasync def lifespan(socket: Socket) -> None: ...\n",
        "is a lifespan without `yield`",
    ),
    "a lifespan without an annotation": (
        "@asynccontextmanager\nasync def lifespan(socket) -> AsyncGenerator[None, None]:\n    yield\n",
        "has a parameter 'socket' without an annotation",
    ),
}
HEADER = """
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.handlers import websocket_listener

from ..realtime import Listener, Socket, listener


"""
HANDLERS: dict[str, tuple[str, str]] = {
    f"{name}, {form}": (
        f'{lifespan}\n\n@{form}("/bad", connection_lifespan=lifespan)\nasync def bad(data: str) -> None: ...\n',
        complaint,
    )
    for name, (lifespan, complaint) in MISTAKES.items()
    for form in ("listener", "websocket_listener")
} | {
    "the application's state": (
        '@websocket_listener("/bad")\nasync def bad(data: str, state: State) -> None: ...\n',
        "takes `state`, which is",
    ),
    "a cached dependency": (
        "async def make() -> list[int]:\n    return []\n\n\n"
        '@listener("/bad", dependencies={"mine": Provide(make, use_cache=True)})\n'
        "async def bad(data: str, mine: NamedDependency[list[int]]) -> None: ...\n",
        "depends on 'mine'",
    ),
    "an unknown keyword": (
        '@websocket_listener("/bad", connection_lifspan=None)\nasync def bad(data: str) -> None: ...\n',
        "write 'connection_lifespan'",
    ),
    "an unknown keyword of ours": (
        '@listener("/bad", connection_lifspan=None)\nasync def bad(data: str) -> None: ...\n',
        "write 'connection_lifespan'",
    ),
}


@pytest.mark.parametrize("mistake", HANDLERS)
def test_a_service_with_a_mistake_does_not_start(project: Path, mistake: str) -> None:
    code, complaint = HANDLERS[mistake]
    add_listener(project, "bad", HEADER + code)
    result = run(project, "my_service", "--port", "0", timeout=TIMEOUT)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "listeners/bad.py, line " in result.stderr
    assert "Fix: " in result.stderr
    assert "Traceback" not in result.stderr


def test_reload_serves_the_new_code_at_once_also_with_open_sockets(project: Path) -> None:
    async def watch(service: Service) -> None:
        async with connect(service.url("/ws/echo")) as socket:
            assert (await ask(socket, '{"type":"say","text":"hi"}'))["text"] == "hi"
            replace(project / "src/my_service/listeners/echo.py", "text=data.text", "text=data.text.upper()")
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        await asyncio.to_thread(service.wait_for, "serving on")
        async with connect(service.url("/ws/echo")) as socket:
            assert (await ask(socket, '{"type":"say","text":"hi"}'))["text"] == "HI"

    with running(project, "--reload") as service:
        asyncio.run(watch(service))
        assert service.ended(signal.SIGTERM) == 0


HOOKS = """
import sys

from .realtime import Cause, Socket
from .state import Connection


async def on_accept(socket: Socket, connection: Connection) -> None:
    sys.stderr.write(f"began {connection.id}\\n")


async def on_disconnect(socket: Socket, connection: Connection, cause: Cause) -> None:
    sys.stderr.write(f"ended {connection.id} {cause.reason.value} {cause.code}\\n")
"""


def test_the_hooks_of_the_user_are_called(project: Path) -> None:
    (project / "src/my_service/hooks.py").write_text(HOOKS)

    async def visit(url: str) -> None:
        async with connect(url) as socket:
            await ask(socket, '{"type":"say","text":"hi"}')
            await socket.close(4321)

    with running(project) as service:
        asyncio.run(visit(service.url("/ws/echo")))
        _, began = service.wait_for("began")["event"].split()
        assert service.wait_for("ended")["event"].split() == ["ended", began, "client_closed", "4321"]
