"""The proof of state independence complains of none of these listeners, and compares what they send."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from time import time
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
from litestar.di import NamedDependency, Provide
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import websocket_listener
from litestar.params import FromPath, FromQuery
from msgspec import Meta, Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, MessageError, Socket, connection_lifespan, listener

from .proving import prove


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct):
    at: datetime
    day: date
    items: Annotated[list[str], Meta(min_length=1, max_length=2)] = []


class Say(Struct, tag="say"):
    text: str


class Everything(Struct, tag="everything", forbid_unknown_fields=True):
    code: Annotated[str, Meta(pattern="^[A-Z]{2}-[0-9]{3}$")]
    size: Annotated[int, Meta(ge=10, lt=20)]
    ratio: Annotated[float, Meta(gt=0, le=1)]
    colour: Colour
    unit: Literal["cm", "m"]
    inner: Inner
    id: UUID
    numbers: dict[str, int]
    short: Annotated[str, Meta(max_length=3)] = "x"
    other: "Everything | None" = None


class Answer(Struct, tag="answer"):
    value: Any


class Heard(Struct, tag="heard"):
    value: Any


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    count: int = 0
    texts: list[str] = field(default_factory=list[str])


@listener("/function")
async def function(data: Say | Everything, connection: NamedDependency[Connection]) -> Answer:
    connection.count += 1
    return Answer([connection.count, data])


class Class(Listener):
    path = "/class/{name:str}/{number:int}"

    async def on_accept(self, connection: Connection, name: FromPath[str]) -> None:
        connection.texts.append(name)

    async def on_receive(
        self,
        data: Say,
        connection: NamedDependency[Connection],
        number: FromPath[int],
        limit: FromQuery[int | None] = None,
    ) -> Answer:
        connection.texts.append(data.text)
        return Answer([*connection.texts, number, limit])


@listener("/stream")
async def stream(data: Say, connection: NamedDependency[Connection]) -> AsyncGenerator[Answer, None]:
    for _ in range(3):
        connection.count += 1
        yield Answer(connection.count)
        await asyncio.sleep(10)


@listener("/endless")
async def endless(data: Say) -> AsyncGenerator[Answer, None]:
    number = 0
    while True:
        number += 1
        yield Answer(number)
        await asyncio.sleep(1)


class Chat(Listener):
    path = "/chat"
    sends = Heard

    async def on_accept(self, socket: Socket, connection: Connection, fanout: NamedDependency[Fanout]) -> None:
        await fanout.join(socket, "chat")
        await fanout.track(socket, "chat", joined=Heard(connection.id), left=Heard(connection.id))

    async def on_receive(self, data: Say, socket: Socket, fanout: NamedDependency[Fanout]) -> Answer:
        await fanout.publish(Heard(data.text), "chat", exclude=socket)
        return Answer(data.text)


class Present(Listener):
    path = "/present/{room:str}"
    sends = Heard

    async def on_accept(
        self, socket: Socket, connection: Connection, room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        await fanout.join(socket, room)
        await fanout.track(socket, room, joined=Heard(connection.id), left=Heard(connection.id))

    async def on_receive(self, data: Say, room: FromPath[str], fanout: NamedDependency[Fanout]) -> Answer:
        return Answer(len(await fanout.present(room)))


@listener("/random")
async def at_random(data: Say) -> Answer:
    return Answer([uuid4().hex, random.random(), random.choice("ab"), time(), datetime.now(UTC), "said", int(time())])  # noqa: S311


@listener("/bytes", receive_mode="binary")
async def binary(data: bytes) -> bytes:
    return data * 2


@listener("/text")
async def text(data: str, connection: NamedDependency[Connection]) -> str:
    connection.count += 1
    return f"{connection.id} says {data} {connection.count}"


@websocket_listener("/plain", connection_lifespan=connection_lifespan)
async def plain(data: Say, connection: NamedDependency[Connection]) -> dict[str, int]:
    connection.count += 1
    return {"count": connection.count}


@listener("/refuses")
async def refuses(data: Say) -> Answer:
    raise MessageError("no", data.text)


@asynccontextmanager
async def own_lifespan(connection: Connection) -> AsyncGenerator[None, None]:
    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            await connection.send(Heard("tick"))

    connection.start(tick())
    yield


@listener("/ticks", connection_lifespan=own_lifespan, sends=Heard)
async def ticks(data: Say) -> Answer:
    await asyncio.sleep(2.5)
    return Answer(data.text)


async def scope(data: Say) -> AsyncGenerator[list[str], None]:
    yield [data.text]


@listener("/scope", per_message={"texts": scope}, concurrency=3)
async def scoped(data: Say, texts: list[str]) -> Answer:
    await asyncio.sleep(0.1)
    return Answer(texts)


def in_a_thread(connection: NamedDependency[Connection]) -> str:
    return connection.id[:0]


@listener("/thread", dependencies={"prefix": Provide(in_a_thread, sync_to_thread=True)})
async def thread(data: Say, prefix: NamedDependency[str]) -> Answer:
    return Answer(await asyncio.to_thread(lambda: prefix + data.text))


CORRECT: list[Any] = [
    function,
    Class,
    stream,
    endless,
    Chat,
    Present,
    at_random,
    binary,
    text,
    plain,
    refuses,
    ticks,
    scoped,
    thread,
]


@pytest.mark.parametrize("handler", CORRECT)
def test_a_correct_listener_passes(handler: Any) -> None:
    (proof,) = prove(handler, connection=Connection)
    assert proof.messages
    assert proof.compared
    assert not proof.skipped


def visitors(opt: dict[str, Any]) -> Any:
    counts = {"count": 0}

    @listener("/visitors", opt=opt)
    async def visitors(data: Say | Everything) -> Answer | Heard:
        counts["count"] += 1
        return Answer(counts["count"]) if isinstance(data, Say) else Heard(data.size)

    return visitors


@pytest.mark.parametrize("kind", [Say, Answer])
def test_what_is_shared_on_purpose_is_said_at_the_listener(kind: Any) -> None:
    (proof,) = prove(visitors({"shared": {kind: "a counter of all visitors"}}))
    assert proof.compared


def test_all_that_is_shared_is_skipped_with_its_reason() -> None:
    (proof,) = prove(visitors({"shared": "a counter of all visitors"}))
    assert proof.skipped == "a counter of all visitors"


def test_a_listener_of_which_nothing_can_be_compared_is_skipped() -> None:
    @listener("/ids")
    async def ids(data: Say) -> Answer:
        return Answer(uuid4().hex)

    (proof,) = prove(ids)
    assert "differs each time" in proof.skipped


def refuse(*_: Any) -> None:
    raise PermissionDeniedException


def test_a_listener_whose_guard_refuses_the_client_is_skipped() -> None:
    @listener("/guarded", guards=[refuse])
    async def guarded(data: Say) -> Answer:
        return Answer(data.text)

    (proof,) = prove(guarded)
    assert "is refused with HTTP 403" in proof.skipped
