"""The examples of the reference about conversations run as they stand there."""

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from litestar.di import NamedDependency, Provide
from msgspec import Struct

from my_service import realtime
from my_service.realtime import ConnectionInfo, MessageError, Socket, listener
from my_service.realtime.sessions.session import Session

from ..recording import Hooks, Serve

REFERENCE = Path(realtime.__file__).with_name("README.md").read_text()
CHAPTER = REFERENCE.partition("\n## A conversation\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL)


class Ask(Struct, tag="ask"):
    prompt: str


class Token(Struct, tag="token"):
    text: str


class Rename(Struct, tag="rename"):
    name: str


class Renamed(Struct, tag="renamed"):
    name: str


class Tick(Struct, tag="tick"):
    at: datetime


class Model:
    async def stream(self, prompt: str) -> AsyncGenerator[str, None]:
        for word in prompt.split():
            yield word
            await asyncio.sleep(0)


class AsyncSession:
    """Stands for that of SQLAlchemy."""


async def transaction() -> AsyncGenerator[AsyncSession, None]:
    yield AsyncSession()


async def taken(_: AsyncSession, name: str) -> bool:
    return name == "ada"


def example(index: int) -> dict[str, Any]:
    names = {
        **{each.__name__: each for each in (Ask, Token, Rename, Renamed, Tick, Model, AsyncSession)},
        "AsyncGenerator": AsyncGenerator,
        "NamedDependency": NamedDependency,
        "MessageError": MessageError,
        "listener": listener,
        "transaction": transaction,
        "taken": taken,
        "Connection": ConnectionInfo,
        "Socket": Socket,
        "asyncio": asyncio,
        "now": lambda: datetime.now(UTC),
        "__name__": __name__,
    }
    exec(EXAMPLES[index], names)  # noqa: S102 (the example of the reference)
    return names


def test_the_stream(serve: Serve) -> None:
    ask = example(0)["ask"]
    ask.dependencies = {**ask.dependencies, "model": Provide(Model, sync_to_thread=False)}
    with serve(ask) as client, client.websocket_connect("/ws/ask") as socket:
        socket.send_json({"type": "ask", "prompt": "to be", "ref": "a"})
        assert [socket.receive_json(timeout=20) for _ in range(3)] == [
            {"type": "token", "text": "to", "ref": "a"},
            {"type": "token", "text": "be", "ref": "a"},
            {"type": "end", "ref": "a"},
        ]


def test_the_scope_and_the_error(serve: Serve) -> None:
    with serve(example(1)["rename"]) as client, client.websocket_connect("/ws/profile") as socket:
        socket.send_json({"type": "rename", "name": "ada", "ref": 1})
        assert socket.receive_json(timeout=20) == {
            "type": "error",
            "code": "name_taken",
            "detail": "somebody has this name already",
            "extra": {"field": "name"},
            "ref": 1,
        }
        socket.send_json({"type": "rename", "name": "bob", "ref": 2})
        assert socket.receive_json(timeout=20) == {"type": "renamed", "name": "bob", "ref": 2}


def test_the_task(serve: Serve, hooks: Hooks) -> None:
    names = example(2)

    def start(socket: Socket) -> None:
        coroutine = names["on_accept"](socket, Session.of(socket).ensure_connection())
        with pytest.raises(StopIteration):
            coroutine.send(None)

    hooks.during_accept = start
    with serve(example(1)["rename"]) as client, client.websocket_connect("/ws/profile") as socket:
        for _ in range(2):
            assert socket.receive_json(timeout=20)["type"] == "tick"
