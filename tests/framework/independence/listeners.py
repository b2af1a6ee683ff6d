"""Fifty correct listeners of many shapes. Each keeps something of its connection in `connection.kept`, and sends it."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from functools import cache
from time import time
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException, PermissionDeniedException, WebSocketException
from litestar.handlers import BaseRouteHandler, websocket, websocket_listener
from litestar.params import FromPath, FromQuery, PathParameter, QueryParameter
from msgspec import Meta, Struct

from my_service.realtime import (
    Cause,
    ConnectionInfo,
    Fanout,
    Gap,
    Listener,
    MessageError,
    Socket,
    connection_lifespan,
    listener,
)


class Kept:
    """What a connection has said: the last three texts."""

    def __init__(self) -> None:
        self.store: dict[Any, Any] = {}

    def add(self, text: Any) -> Any:
        """Keep a text, and return what is sent of it."""
        texts: list[Any] = self.store.setdefault("texts", [])
        texts.append(text)
        return texts[-3:]


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    kept: Any = field(default_factory=Kept)
    held: Any = None


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct):
    at: datetime
    day: date
    items: Annotated[list[str], Meta(min_length=1, max_length=2)] = []


class Say(Struct, tag="say"):
    text: str


class Ask(Struct, tag="ask"):
    number: int
    again: bool = False


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


class Camel(Struct, tag="camelCase", rename="camel"):
    long_name: str
    other_name: str | None = None


class Point(Struct, array_like=True):
    x: int
    y: int


class Typed(TypedDict):
    name: str
    size: int


class Pair(NamedTuple):
    one: str
    two: int


class Answer(Struct, tag="answer"):
    value: Any


class Pushed(Struct, tag="pushed"):
    value: Any


class Heard(Struct, tag="heard"):
    value: Any


class Joined(Struct, tag="joined"):
    who: str


class Left(Struct, tag="left"):
    who: str


Own = NamedDependency[Connection]
Rooms = NamedDependency[Fanout]


# What is taken, and what is answered.


@listener("/function")
async def function(data: Say, connection: Own) -> Answer:
    return Answer(connection.kept.add(data.text))


@listener("/union")
async def union(data: Say | Ask | Camel, connection: Own) -> Answer | Heard:
    match data:
        case Say():
            return Answer(connection.kept.add(data.text))
        case Ask():
            return Heard([connection.kept.add(data.number), data.again])
        case Camel():
            return Answer([data.other_name, connection.kept.add(data.long_name)])


@listener("/everything")
async def everything(data: Everything, connection: Own) -> Answer:
    return Answer([connection.kept.add(data.code), data])


@listener("/numbers")
async def numbers(data: dict[str, int], connection: Own) -> dict[str, Any]:
    return {"sum": sum(data.values()), "kept": connection.kept.add("".join(data))}


@listener("/points")
async def points(data: list[Point], connection: Own) -> Answer:
    return Answer([connection.kept.add(point.x) for point in data])


@listener("/typed")
async def typed(data: Typed, connection: Own) -> Answer:
    return Answer([data["size"], connection.kept.add(data["name"])])


@listener("/pairs")
async def pairs(data: tuple[Pair, ...], connection: Own) -> Answer:
    return Answer([connection.kept.add(pair.one) for pair in data])


@listener("/number")
async def number(data: int, connection: Own) -> Answer:
    return Answer(connection.kept.add(data))


@listener("/text")
async def text(data: str, connection: Own) -> str:
    return f"{connection.id} says {data}, {connection.kept.add(data)}"


@listener("/bytes", receive_mode="binary")
async def binary(data: bytes, connection: Own) -> bytes:
    return repr(connection.kept.add(data.decode())).encode()


@listener("/frames", receive_mode="binary", send_mode="binary")
async def frames(data: Say, connection: Own) -> Answer:
    return Answer(connection.kept.add(data.text))


@listener("/sometimes")
async def sometimes(data: Say | Ask, connection: Own) -> Answer | None:
    kept = connection.kept.add(data.text if isinstance(data, Say) else data.number)
    return Answer(kept) if isinstance(data, Say) else None


@listener("/pushes", sends=Pushed)
async def pushes(data: Say, connection: Own) -> None:
    await connection.send(Pushed(connection.kept.add(data.text)))


@listener("/both", sends=Pushed)
async def both(data: Say, connection: Own) -> Answer:
    await connection.send(Pushed(connection.kept.add(data.text)))
    return Answer(data.text)


@listener("/refuses")
async def refuses(data: Say | Ask, connection: Own) -> Answer:
    if isinstance(data, Ask):
        return Answer(connection.kept.add(data.number))
    raise MessageError("no", f"not {connection.kept.add(data.text)}")


@listener("/extra")
async def extra(data: Say, connection: Own) -> Answer:
    raise MessageError("no", extra={"kept": connection.kept.add(data.text)})


@listener("/missing")
async def missing(data: Say, connection: Own) -> Answer:
    raise NotFoundException(f"nothing of {connection.kept.add(data.text)}")


@listener("/closes")
async def closes(data: Say | Ask, connection: Own) -> Answer:
    kept = connection.kept.add(data.text if isinstance(data, Say) else data.number)
    if isinstance(data, Ask):
        raise WebSocketException(detail=f"enough of {kept}"[:100], code=4001)
    return Answer(data.text)


@listener("/random")
async def at_random(data: Say, connection: Own) -> Answer:
    kept = connection.kept.add(data.text)
    return Answer([kept, uuid4().hex, random.random(), random.choice("ab"), time(), datetime.now(UTC), int(time())])  # noqa: S311


@listener("/rarely")
async def rarely(data: Say, connection: Own) -> Answer:
    return Answer([connection.kept.add(data.text), random.random() < 0.02])  # noqa: S311


# How it runs.


@listener("/side_by_side", concurrency=4)
async def side_by_side(data: Say, connection: Own) -> Answer:
    await asyncio.sleep(0.1)
    return Answer(connection.kept.add(data.text))


@listener("/cancelled", cancel_on_disconnect=True)
async def cancelled(data: Say, connection: Own) -> Answer:
    await asyncio.sleep(1)
    return Answer(connection.kept.add(data.text))


@listener("/in_a_thread")
async def in_a_thread(data: Say, connection: Own) -> Answer:
    return Answer(await asyncio.to_thread(connection.kept.add, data.text))


LOCKS: dict[str, asyncio.Lock] = {}


@listener("/locked")
async def locked(data: Say, connection: Own) -> Answer:
    """One after the other, whoever asks."""
    async with LOCKS.setdefault("all", asyncio.Lock()):
        await asyncio.sleep(0.01)
        return Answer(connection.kept.add(data.text))


@listener("/limited")
async def limited(data: Say, connection: Own) -> Answer:
    try:
        async with asyncio.timeout(0.5):
            await asyncio.sleep(1)
    except TimeoutError:
        return Answer(connection.kept.add(data.text))
    return Answer("too soon")


@cache
def upper(text: str) -> str:
    return text.upper()


PRICES = {"apple": 3}


@listener("/cached")
async def cached(data: Say, connection: Own) -> Answer:
    """A pure function that is cached, and a table that nobody changes, are no state of a connection."""
    return Answer([upper(data.text), PRICES.get("apple"), connection.kept.add(data.text)])


@listener("/task", sends=Pushed)
async def task(data: Say, connection: Own) -> Answer:
    async def work() -> None:
        await asyncio.sleep(1)
        await connection.send(Pushed(connection.kept.add(data.text)))

    connection.start(work())
    return Answer(data.text)


# Streams.


@listener("/stream")
async def stream(data: Say, connection: Own) -> AsyncGenerator[Answer, None]:
    for _ in range(3):
        yield Answer(connection.kept.add(data.text))
        await asyncio.sleep(10)


@listener("/endless")
async def endless(data: Say, connection: Own) -> AsyncGenerator[Answer, None]:
    kept, number = connection.kept.add(data.text), 0
    while True:
        number += 1
        yield Answer([number, kept])
        await asyncio.sleep(1)


@listener("/broken_stream")
async def broken_stream(data: Say, connection: Own) -> AsyncGenerator[Answer, None]:
    yield Answer(data.text)
    raise MessageError("no", f"no more of {connection.kept.add(data.text)}")


# Injected.


Add = Callable[[str], Any]


async def provide_kept(connection: Own) -> Add:
    return lambda text: connection.kept.add(text)


@listener("/dependency", dependencies={"add": Provide(provide_kept)})
async def dependency(data: Say, add: NamedDependency[Add]) -> Answer:
    return Answer(add(data.text))


async def provide_database() -> AsyncGenerator[sqlite3.Connection, None]:
    database = sqlite3.connect(":memory:")
    database.execute("create table said (text)")
    yield database
    database.close()


@listener("/database", dependencies={"database": Provide(provide_database)})
async def database(data: Say, database: NamedDependency[sqlite3.Connection], connection: Own) -> Answer:
    database.execute("insert into said values (?)", (data.text,))
    return Answer([database.execute("select count(*) from said").fetchone(), connection.kept.add(data.text)])


def provide_prefix(connection: Own) -> str:
    return connection.client[:0]


@listener("/thread_dependency", dependencies={"prefix": Provide(provide_prefix, sync_to_thread=True)})
async def thread_dependency(data: Say, prefix: NamedDependency[str], connection: Own) -> Answer:
    return Answer([prefix, connection.kept.add(data.text)])


async def scope(data: Say, connection: Own) -> AsyncGenerator[Any, None]:
    yield connection.kept.add(data.text)


@listener("/scope", per_message={"mine": scope}, concurrency=3)
async def scoped(data: Say, mine: Any) -> Answer:
    await asyncio.sleep(0.1)
    return Answer(mine)


@listener("/scoped_stream", per_message={"mine": scope})
async def scoped_stream(data: Say, mine: Any, connection: Own) -> AsyncGenerator[Answer, None]:
    yield Answer(mine)
    yield Answer(connection.kept.add(data.text))


# Where it is: paths, queries, subprotocols, guards, users.


@listener("/rooms/{room:str}/{number:int}")
async def placed(data: Say, room: FromPath[str], number: FromPath[int], connection: Own) -> Answer:
    return Answer([room, number, connection.kept.add(data.text)])


@listener("/days/{day:date}/{item:uuid}")
async def dated(data: Say, day: FromPath[date], item: FromPath[UUID], connection: Own) -> Answer:
    return Answer([day, item, connection.kept.add(data.text)])


Code = Annotated[str, PathParameter(pattern="^[a-z]{4}$")]
Limit = Annotated[int, QueryParameter(ge=1, le=5)]


@listener("/codes/{code:str}")
async def queried(
    data: Say,
    code: Code,
    limit: Limit,
    connection: Own,
    colour: FromQuery[Colour | None] = None,
    names: FromQuery[list[str] | None] = None,
) -> Answer:
    return Answer([code, limit, colour, names, connection.kept.add(data.text)])


@asynccontextmanager
async def lifespan(connection: Connection, name: FromPath[str]) -> AsyncGenerator[None, None]:
    connection.held = connection.kept.add(name)
    yield


@listener("/lifespan/{name:str}", connection_lifespan=lifespan)
async def with_lifespan(data: Say, connection: Own) -> Answer:
    return Answer([connection.held, connection.kept.add(data.text)])


@asynccontextmanager
async def ticking(connection: Connection) -> AsyncGenerator[None, None]:
    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            await connection.send(Pushed(connection.kept.add("tick")))

    connection.start(tick())
    yield


@listener("/ticks", connection_lifespan=ticking, sends=Pushed)
async def ticks(data: Say) -> Answer:
    await asyncio.sleep(2.5)
    return Answer(data.text)


MINE: ContextVar[list[str]] = ContextVar("mine")


@asynccontextmanager
async def remembering() -> AsyncGenerator[None, None]:
    MINE.set([])
    yield


@listener("/context", connection_lifespan=remembering)
async def in_context(data: Say, connection: Own) -> Answer:
    MINE.get().append(data.text)
    return Answer([len(MINE.get()), connection.kept.add(data.text)])


def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    if "admin" not in getattr(connection.auth, "extras", {}).get("roles", []):
        raise PermissionDeniedException


@listener("/guarded", guards=[require_admin])
async def guarded(data: Say, connection: Own) -> Answer:
    return Answer([connection.user, connection.kept.add(data.text)])


@listener("/user", sends=Pushed)
async def user(data: Say, connection: Own, fanout: Rooms) -> Answer:
    """What is sent to a user is meant for that user, whoever sends it."""
    await fanout.publish_to_user(Pushed([connection.user, data.text]), random.choice(["alpha", "bravo"]))  # noqa: S311
    return Answer(connection.kept.add(data.text))


# Classes, and Litestar's own handlers.


class Class(Listener):
    path = "/class/{name:str}"

    async def on_accept(self, connection: Connection, name: FromPath[str]) -> None:
        connection.held = connection.kept.add(name)

    async def on_receive(self, data: Say, connection: Own) -> Answer:
        return Answer([connection.held, connection.kept.add(data.text)])

    async def on_disconnect(self, connection: Connection, cause: Cause) -> None:
        connection.held = None


class Greets(Listener):
    path = "/greets"
    sends = Pushed

    async def on_accept(self, connection: Connection) -> None:
        await connection.send(Pushed(connection.kept.add("welcome")))

    async def on_receive(self, data: Say, connection: Own) -> Answer:
        return Answer(connection.kept.add(data.text))


EVERYBODY: dict[str, Connection] = {}
NOTES: WeakKeyDictionary[Connection, list[str]] = WeakKeyDictionary()


class Registered(Listener):
    """What all know of each other is no leak, as long as nobody tells."""

    path = "/registered"

    async def on_accept(self, connection: Connection) -> None:
        EVERYBODY[connection.id] = connection
        NOTES[connection] = []

    async def on_receive(self, data: Say, connection: Own) -> Answer:
        NOTES[connection].append(data.text)
        return Answer([len(NOTES[connection]), EVERYBODY[connection.id].kept.add(data.text)])

    async def on_disconnect(self, connection: Connection) -> None:
        EVERYBODY.pop(connection.id, None)


@websocket_listener("/plain", connection_lifespan=connection_lifespan)
async def plain(data: Say, connection: Own) -> dict[str, Any]:
    return {"kept": connection.kept.add(data["text"])}  # type: ignore[index]  # Litestar's own does not decode it


@websocket("/socket", opt={"allow": ["connection"]})
async def raw(socket: Socket, connection: Own) -> None:
    async with connection_lifespan(socket):
        async for said in socket.iter_data("text"):
            await socket.send_text(f"{connection.kept.add(said)}")


# Rooms.


class Chat(Listener):
    path = "/chat/{room:str}"
    sends = Heard | Joined | Left | Gap

    async def on_accept(
        self, socket: Socket, connection: Connection, room: FromPath[str], fanout: Rooms, after: FromQuery[int | None]
    ) -> None:
        await fanout.join(socket, room, after=after)
        await fanout.track(socket, room, joined=Joined(connection.id), left=Left(connection.id))

    async def on_receive(self, data: Say, room: FromPath[str], connection: Own, fanout: Rooms) -> None:
        await fanout.publish(Heard([connection.id, connection.kept.add(data.text)]), room)


class Others(Listener):
    path = "/others"
    sends = Heard

    async def on_accept(self, socket: Socket, fanout: Rooms) -> None:
        await fanout.join(socket, "others")

    async def on_receive(self, data: Say, socket: Socket, connection: Own, fanout: Rooms) -> Answer:
        await fanout.publish(Heard(data.text), "others", exclude=socket)
        return Answer(connection.kept.add(data.text))


class Typing(Struct, tag="typing"):
    who: str
    text: str


class Present(Listener):
    path = "/present/{room:str}"
    sends = Joined | Left | Typing

    async def on_accept(self, socket: Socket, connection: Connection, room: FromPath[str], fanout: Rooms) -> None:
        await fanout.join(socket, room, states=True)
        await fanout.track(socket, room, joined=Joined(connection.id), left=Left(connection.id))

    async def on_receive(
        self, data: Say | Ask, socket: Socket, connection: Own, room: FromPath[str], fanout: Rooms
    ) -> Answer:
        if isinstance(data, Say):
            await fanout.track(socket, room, state=Typing(connection.user or connection.id, data.text))
            return Answer(connection.kept.add(data.text))
        return Answer([await fanout.present(room), await fanout.present(room, Typing)])


class Private(Listener):
    path = "/private"
    sends = Heard

    async def on_accept(self, socket: Socket, connection: Connection, fanout: Rooms) -> None:
        if connection.user:
            await fanout.join_user(socket)

    async def on_receive(self, data: Say, connection: Own, fanout: Rooms) -> Answer:
        for name in ("alpha", "bravo"):
            fanout.publish_to_user(Heard([connection.user, data.text]), name)
        return Answer(connection.kept.add(data.text))


class Many(Listener):
    path = "/many"
    sends = Heard

    async def on_receive(self, data: Say | Ask, socket: Socket, connection: Own, fanout: Rooms) -> Answer:
        if isinstance(data, Ask):
            await (fanout.leave if data.again else fanout.join)(socket, f"room {data.number % 3}")
        else:
            for room in sorted(fanout.joined(socket)):
                fanout.publish(Heard([room, data.text]), room)
        return Answer([sorted(fanout.joined(socket)), connection.kept.add("many")])


async def publishing(connection: Own, fanout: Rooms) -> AsyncGenerator[None, None]:
    fanout.publish(Heard(connection.kept.add("begins")), "news")
    yield


@asynccontextmanager
async def reading(socket: Socket, fanout: Rooms) -> AsyncGenerator[None, None]:
    await fanout.join(socket, "news")
    yield


@listener("/news", connection_lifespan=reading, per_message={"_told": publishing}, sends=Heard)
async def news(data: Say, _told: None, fanout: Rooms) -> Answer:
    fanout.publish(Heard(data.text), "news")
    return Answer(data.text)


FIFTY: list[Any] = [
    *(function, union, everything, numbers, points, typed, pairs, number, text, binary, frames, sometimes),
    *(pushes, both, refuses, extra, missing, closes, at_random, rarely),
    *(side_by_side, cancelled, in_a_thread, locked, limited, cached, task, stream, endless, broken_stream),
    *(dependency, database, thread_dependency, scoped, scoped_stream),
    *(placed, dated, queried, with_lifespan, ticks, in_context, guarded, user),
    *(Class, Greets, Registered, plain, raw, Chat, Others, Present, Private, Many, news),
]
