"""The proof of the clean-up is worth something: it finds what hooks and listeners of a user forget, and names it."""

import re
from collections.abc import Callable
from pathlib import Path

from .rendering import replace, run_pytest

STATE = """\
"\""Yours.""\"

from dataclasses import dataclass
from typing import Any

from .realtime import ConnectionInfo


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    count: int = 0
    kept: Any = None
    held: Any = None
"""

LISTENERS = '''\
"""Yours: mistakes, each at the path of its name, and what is right."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from weakref import WeakSet

from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException
from litestar.handlers import websocket_listener
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from ..realtime import Fanout, Listener, MessageError, connection_lifespan, listener
from ..state import Connection

TASKS: set[Any] = set()
EVERYBODY: dict[str, Any] = {}
NAMES: list[str] = []
PRESENT: WeakSet[Connection] = WeakSet()


class Say(Struct, tag="say"):
    text: str


class Said(Struct, tag="said"):
    text: str


class Mistake(Listener):
    async def on_receive(self, data: Say) -> Said:
        return Said(text=data.text)


async def tick() -> None:
    while True:
        await asyncio.sleep(60)


async def ticks() -> AsyncGenerator[int, None]:
    while True:
        yield 1


class Task(Mistake):
    path = "/task"

    async def on_accept(self) -> None:
        TASKS.add(asyncio.create_task(tick()))


class TaskField(Mistake):
    path = "/task_field"

    async def on_accept(self, connection: Connection) -> None:
        connection.kept = asyncio.create_task(tick())


class Timer(Mistake):
    path = "/timer"

    async def on_accept(self, connection: Connection) -> None:
        connection.kept = asyncio.get_running_loop().call_later(3600, print)


class LeftSocket(Mistake):
    path = "/socket"

    async def on_accept(self, connection: Connection) -> None:
        connection.kept = [socket.socket()]


class Transport(Mistake):
    path = "/transport"

    async def on_accept(self, connection: Connection) -> None:
        here, connection.held = socket.socketpair()
        _, connection.kept = await asyncio.open_connection(sock=here)

    async def on_disconnect(self, connection: Connection) -> None:
        if connection.held:
            connection.held.close()


class File(Mistake):
    path = "/file"

    async def on_accept(self, connection: Connection) -> None:
        connection.kept = Path(__file__).open()


class ForgottenFile(Mistake):
    path = "/forgotten_file"

    async def on_accept(self) -> None:
        Path(__file__).open().read()


class Generator(Mistake):
    path = "/generator"

    async def on_accept(self, connection: Connection) -> None:
        connection.kept = ticks()
        await anext(connection.kept)


class Registry(Mistake):
    path = "/registry"

    async def on_accept(self, connection: Connection) -> None:
        EVERYBODY[connection.id] = connection


class Names(Mistake):
    path = "/names"

    async def on_accept(self, connection: Connection) -> None:
        NAMES.append(connection.id)


class Raises(Mistake):
    path = "/raises"

    async def on_disconnect(self) -> None:
        raise LookupError("nothing here")


class HalfMade(Mistake):
    path = "/half_made"

    async def on_accept(self, connection: Connection) -> None:
        await asyncio.sleep(0)
        connection.kept = []

    async def on_disconnect(self, connection: Connection) -> None:
        connection.kept.clear()


class OnlyCancelled(Mistake):
    path = "/only_cancelled"

    async def on_accept(self, connection: Connection) -> None:
        opened = socket.socket()
        TASKS.add(opened)
        await asyncio.sleep(0)
        connection.kept = opened

    async def on_disconnect(self, connection: Connection) -> None:
        if connection.kept:
            connection.kept.close()


class Subscribes(Mistake):
    path = "/subscribes"

    async def on_accept(self, fanout: NamedDependency[Fanout], connection: Connection) -> None:
        fanout.subscribe(connection.id, print)


@listener("/message")
async def message(data: Say) -> None:
    TASKS.add(asyncio.create_task(tick()))


async def transaction() -> AsyncGenerator[socket.socket, None]:
    opened = socket.socket()
    TASKS.add(opened)
    yield opened
    opened.close()


@listener("/scope", per_message={"session": transaction})
async def scope(data: Say, session: socket.socket) -> Said:
    return Said(text=data.text)


@listener("/stream")
async def stream(data: Say) -> AsyncGenerator[Said, None]:
    opened = socket.socket()
    TASKS.add(opened)
    yield Said(text=data.text)
    opened.close()


class Right(Mistake):
    path = "/right"

    async def on_accept(self, connection: Connection) -> None:
        PRESENT.add(connection)
        connection.start(tick())
        connection.held = Path(__file__).open()
        connection.kept = asyncio.create_task(tick())

    async def on_disconnect(self, connection: Connection) -> None:
        if connection.held:
            connection.held.close()
        if connection.kept:
            connection.kept.cancel()


@listener("/right/late")
async def late(data: Say, connection: NamedDependency[Connection]) -> None:
    """A task that outlives the connection for a moment."""
    TASKS.add(task := asyncio.create_task(asyncio.sleep(0.01)))
    task.add_done_callback(TASKS.discard)


@listener("/right/stream")
async def right_stream(data: Say) -> AsyncGenerator[Said, None]:
    async with aclosing(ticks()) as each:
        async for _ in each:
            yield Said(text=data.text)
            await asyncio.sleep(0)


async def session() -> AsyncGenerator[socket.socket, None]:
    opened = socket.socket()
    try:
        yield opened
    finally:
        opened.close()


@listener("/right/scope/{name:str}", per_message={"session": session}, concurrency=4)
async def right_scope(data: Say | Said, session: socket.socket, name: FromPath[str], number: FromQuery[int]) -> Said:
    return Said(text=data.text)


@listener("/right/refuses", cancel_on_disconnect=True)
async def refuses(data: Say) -> Said:
    raise MessageError("no")


@listener("/right/closes")
async def closes(data: bytes) -> bytes:
    raise WebSocketException(detail="enough", code=4001)


@listener("/right/waits", client_speaks_first=True)
async def waits(data: Say) -> Said:
    await asyncio.Event().wait()
    return Said(text="")


@websocket_listener("/right/plain", connection_lifespan=connection_lifespan)
async def plain(data: str) -> str:
    return data


MISTAKES = [
    *(Task, TaskField, Timer, LeftSocket, Transport, File, ForgottenFile, Generator, Registry, Names, Raises, HalfMade),
    *(OnlyCancelled, Subscribes, message, scope, stream),
    *(Right, late, right_stream, right_scope, refuses, closes, waits, plain),
]
'''

FOUND = {
    "/task": r"closes before its first message: the task tick \(mistakes.py, line \d+\), in my_service.*mistakes.TASKS",
    "/task_field": "the task tick .*, in Connection.kept",
    "/timer": "the timer .*, in Connection.kept",
    "/socket": "socket.* is open, in Connection.kept",
    "/transport": "Transport.* is open, in Connection.kept",
    "/file": r"mistakes.py.* is open, in Connection.kept",
    "/forgotten_file": "unclosed file .*mistakes.py",
    "/generator": r"the open async generator ticks \(mistakes.py, line \d+\), in Connection.kept",
    "/registry": "its Connection, in my_service.listeners.mistakes.EVERYBODY",
    "/names": "my_service.listeners.mistakes.NAMES grows with each connection",
    "/raises": r"on_disconnect of the listener raised LookupError\('nothing here'\) in .*mistakes.py, line \d+",
    "/half_made": "the hook .* in on_accept of the listener: on_disconnect of the listener raised AttributeError",
    "/only_cancelled": "the hook is cancelled in on_accept: .*socket.* is open, in my_service.*TASKS",
    "/subscribes": "it is still in the channel",
    "/message": "the task tick .*, in my_service.listeners.mistakes.TASKS",
    "/scope": "inside its per_message scope: .*socket.* is open",
    "/stream": "while it streams: .*socket.* is open",
}
"""What is found at each path."""


def test_what_is_forgotten_is_found_and_named(rendered: Callable[..., Path]) -> None:
    project = rendered()
    package = project / "src" / "my_service"
    (package / "state.py").write_text(STATE)
    (package / "listeners" / "mistakes.py").write_text(LISTENERS)
    replace(package / "app.py", "from .realtime", "from .listeners.mistakes import MISTAKES\nfrom .realtime")
    replace(package / "app.py", "route_handlers=[\n", "route_handlers=[\n            *MISTAKES,\n")
    status, written = run_pytest(project, "-q", "-n0", "-p", "no:cacheprovider", "tests/test_cleanup.py")
    assert status == 1, written
    sections = re.split(r"^_+ test_\w+ \[(.*)\] _+$", written, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    for path, pattern in FOUND.items():
        assert re.search(pattern, found[path]), f"{path}: {found[path]}"
        assert re.search(r"\w+ \(src/my_service/listeners/mistakes.py, line \d+\)$", found[path], re.MULTILINE)
    assert found.keys() == FOUND.keys(), "a false alarm"
