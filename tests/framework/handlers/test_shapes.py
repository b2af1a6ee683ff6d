"""Shapes of state, dependencies and parameters: each works on every path by which it is injected, or never starts."""

# The types are values here, which type checkers cannot follow.
# mypy: disable-error-code="misc,valid-type"
# pyright: reportInvalidTypeForm=false, reportUnknownParameterType=false, reportUnknownArgumentType=false

import asyncio
import re
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, NamedTuple, Protocol, TypedDict, TypeVar
from weakref import WeakSet

import pytest
from litestar import Controller, Litestar, Router
from litestar.di import NamedDependency, Provide
from litestar.handlers import WebsocketListener, websocket_listener
from litestar.params import FromPath, FromQuery, SkipValidation
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import (
    Cause,
    ConfigurationError,
    ConnectionInfo,
    Fanout,
    Listener,
    Realtime,
    Socket,
    connection_lifespan,
    listener,
)
from my_service.settings import Settings

if TYPE_CHECKING:
    from fractions import Fraction

T = TypeVar("T")


class Circle: ...


class Square: ...


class Point(Struct):
    x: int


class Line(Struct):
    x: int


class Box(Generic[T]): ...


class Notifier(Protocol):
    def notify(self) -> None: ...


class Kind(Enum):
    ONE = 1


class Pair(NamedTuple):
    shape: Circle | Square


class Named(TypedDict):
    shape: Circle | Square


@dataclass
class Nested:
    job: asyncio.Task[None] | asyncio.Queue[int] | None = None


SHAPES: dict[str, Any] = {
    "a task or a queue": asyncio.Task[None] | asyncio.Queue[int] | None,
    "one of two classes": Circle | Square | None,
    "one of two untagged Structs": Point | Line | None,
    "a function or text": Callable[[int], None] | str | None,
    "a generic class or a deque": Box[int] | deque[str] | None,
    "a name for type checkers": "Fraction | None",
    "its own class": "Connection | None",
    "a protocol": Notifier | None,
    "a class itself": type[Circle] | type[Square] | None,
    "a dict with keys that are no text": dict[tuple[int, int], Circle | Square] | None,
    "sets of tasks": set[asyncio.Task[Any]] | WeakSet[Circle] | None,
    "locks": asyncio.Lock | threading.Event | None,
    "an exit stack": AsyncExitStack | None,
    "a generator": AsyncGenerator[int, None] | Generator[int] | None,
    "a type variable": T | None,
    "a pattern": re.Pattern[str] | partial[int] | None,
    "a tuple with names": Pair | None,
    "a typed dict": Named | list[Named] | None,
    "a dataclass within": Nested | None,
    "an enum or a number": Kind | Literal["two"] | int | float | Decimal | None,
    "bytes": bytearray | memoryview | bytes | None,
    "anything": Any,
    "nothing": None,
    "an exception": BaseException | None,
}


def make_connection(shape: Any) -> type[ConnectionInfo]:
    fields = [("shape", shape, field(default=None))]
    return make_dataclass("Connection", fields, bases=(ConnectionInfo,), slots=True, kw_only=True, eq=False)


class Hooks:
    async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None:
        seen.append(connection)

    async def on_disconnect(self, socket: Socket, connection: ConnectionInfo, cause: Cause) -> None: ...


seen: list[Any] = []
"""What was injected, in order; the hook of the service is the first."""


def handlers(connection: type[ConnectionInfo]) -> list[Any]:
    """Every path by which a connection is injected."""
    Connection = connection  # noqa: N806 (a class)

    async def provide_first(connection: NamedDependency[Connection], fanout: NamedDependency[Fanout]) -> Any:
        return seen.append(connection)

    async def provide_second(first: NamedDependency[Any], connection: NamedDependency[Connection]) -> Any:
        return seen.append(connection)

    @asynccontextmanager
    async def lifespan(
        socket: Socket,
        connection: NamedDependency[Connection],
        second: NamedDependency[Any],
        fanout: NamedDependency[Fanout],
    ) -> AsyncGenerator[None, None]:
        seen.append(connection)
        yield

    dependencies: Any = {"first": Provide(provide_first), "second": Provide(provide_second)}

    @listener("/function", dependencies=dependencies, connection_lifespan=lifespan)
    async def function(
        data: str,
        connection: NamedDependency[Connection],
        second: NamedDependency[Any],
    ) -> str:
        seen.append(connection)
        return data

    class Class(Listener):
        path = "/class"
        dependencies = {"first": Provide(provide_first), "second": Provide(provide_second)}  # noqa: RUF012

        async def on_accept(self, connection: Connection, second: NamedDependency[Any]) -> None:
            seen.append(connection)

        async def on_disconnect(self, connection: NamedDependency[Connection], fanout: NamedDependency[Fanout]) -> None:
            seen.append(connection)

        async def on_receive(self, data: str, connection: NamedDependency[Connection]) -> str:
            seen.append(connection)
            return data

    @websocket_listener("/plain", connection_lifespan=connection_lifespan, dependencies=dependencies)
    async def plain(data: str, connection: NamedDependency[Connection], second: NamedDependency[Any]) -> str:
        seen.append(connection)
        return data

    @asynccontextmanager
    async def own(socket: Socket, connection: NamedDependency[Connection]) -> AsyncGenerator[None, None]:
        async with connection_lifespan(socket):
            seen.append(connection)
            yield

    async def unit(connection: NamedDependency[Connection]) -> AsyncGenerator[int, None]:
        seen.append(connection)
        yield 1

    class Grouped(Controller):
        path = "/controller"

        @websocket_listener("/", connection_lifespan=own, opt={"allow": ["connection"]})
        async def grouped(self, data: str, connection: NamedDependency[Connection]) -> str:
            seen.append(connection)
            return data

        @listener("/method", per_message={"unit": unit})
        async def method(self, data: str, connection: NamedDependency[Connection], unit: int) -> str:
            seen.append(connection)
            return data

        @listener("/stream")
        async def stream(self, data: str, connection: NamedDependency[Connection]) -> AsyncGenerator[str, None]:
            seen.append(connection)
            yield data

    return [function, Class, plain, Grouped]


def start(connection: Any, *handlers: Any) -> Litestar:
    realtime = Realtime(Settings(), connection, Hooks())
    public = {"public": True}  # where there is authentication, everybody may connect
    return Litestar([*handlers], plugins=[realtime], logging_config=None, openapi_config=None, opt=public)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_same_connection_is_everywhere_whatever_its_fields_are(shape: Any) -> None:
    connection = make_connection(shape)
    function, listener_class, *_ = handlers(connection)  # Litestar's own do not work in a router (2.25)
    app = start(connection, *handlers(connection), Router("/router", route_handlers=[function, listener_class]))
    counts = {"/function": 5, "/class": 6, "/plain": 4, "/router/function": 5, "/router/class": 6}
    counts |= {"/controller": 3, "/controller/method": 3, "/controller/stream": 2}
    seen.clear()
    with TestClient(app) as client:
        for path in counts:
            with client.websocket_connect(path) as socket:
                socket.send_text("hi")
                assert socket.receive_text(timeout=20) == "hi"
    assert {type(each) for each in seen} == {connection}
    assert sorted(Counter(map(id, seen)).values()) == sorted(counts.values())


DEFAULTS: dict[str, Any] = {
    "a queue": asyncio.Queue(),
    "an exit stack": AsyncExitStack(),
    "an object of a class": Circle(),
    "a Struct": Point(1),
}


@pytest.mark.parametrize("default", DEFAULTS.values(), ids=DEFAULTS)
def test_a_default_that_all_connections_would_share_never_starts(default: Any) -> None:
    fields = [("shape", Any, field(default=default))]
    connection = make_dataclass("Connection", fields, bases=(ConnectionInfo,), slots=True, kw_only=True, eq=False)
    with pytest.raises(ConfigurationError, match=r"has 'shape', a .* that every connection would share"):
        start(connection)


def test_fields_in_a_class_that_is_no_dataclass_never_start() -> None:
    class Connection(ConnectionInfo):
        topics: set[str] = field(default_factory=set[str])

    with pytest.raises(ConfigurationError, match="has 'topics', a Field that every connection would share"):
        start(Connection)


class WithoutSuper(ConnectionInfo):
    def __init__(self) -> None:
        self.topics = set[str]()


def test_a_connection_that_is_not_initialized_never_starts() -> None:
    with pytest.raises(ConfigurationError, match=r"WithoutSuper .*has no id(?s:.*)super\(\).__init__\(\)"):
        start(WithoutSuper)


UNSET: Final = object()


def test_what_connections_may_share_starts() -> None:
    @dataclass(slots=True, kw_only=True, eq=False)
    class Connection(ConnectionInfo):
        known: ClassVar[set[str]] = set()
        kind: Kind = Kind.ONE
        unset: Any = UNSET
        call: Callable[..., Any] = print
        late: int = field(init=False)

        @classmethod
        def make(cls) -> "Connection":
            return cls()

    start(Connection)


async def provide() -> Any:
    return SimpleNamespace(notify=print)


PROVIDED: dict[str, Any] = {"shape": Provide(provide)}

CONVERTIBLE: dict[str, Any] = {
    "anything": NamedDependency[Any],
    "a class": NamedDependency[SimpleNamespace],
    "a class or None": NamedDependency[SimpleNamespace | None],
    "one of two classes": SkipValidation[NamedDependency[Circle | Square]],
    "a protocol": SkipValidation[NamedDependency[Notifier]],
}

INCONVERTIBLE: dict[str, Any] = {
    "one of two classes": NamedDependency[Circle | Square],
    "one of two untagged Structs": NamedDependency[Point | Line],
    "a protocol": NamedDependency[Notifier],
    "a dataclass with such a field": NamedDependency[Nested],
}


@pytest.mark.parametrize("shape", CONVERTIBLE.values(), ids=CONVERTIBLE)
def test_a_dependency_that_litestar_can_validate_is_injected(shape: Any) -> None:
    @listener("/", dependencies=PROVIDED)
    async def echo(data: str, shape: shape) -> str:
        return f"{data} {type(shape).__name__}"

    with TestClient(start(ConnectionInfo, echo)) as client, client.websocket_connect("/") as socket:
        socket.send_text("hi")
        assert socket.receive_text(timeout=20) == "hi SimpleNamespace"


@pytest.mark.parametrize("shape", INCONVERTIBLE.values(), ids=INCONVERTIBLE)
def test_a_dependency_that_litestar_cannot_validate_never_starts(shape: Any) -> None:
    @listener("/", dependencies=PROVIDED)
    async def in_a_function(data: str, shape: shape) -> None: ...

    class InAHook(Listener):
        path = "/"
        dependencies = PROVIDED

        async def on_accept(self, shape: shape) -> None: ...

        async def on_receive(self, data: str) -> None: ...

    @asynccontextmanager
    async def lifespan(socket: Socket, shape: shape) -> AsyncGenerator[None, None]:
        yield

    @listener("/", dependencies=PROVIDED, connection_lifespan=lifespan)
    async def in_a_lifespan(data: str) -> None: ...

    async def provide_other(shape: shape) -> None: ...

    @listener("/", dependencies={**PROVIDED, "other": Provide(provide_other)})
    async def in_a_dependency(data: str, other: NamedDependency[None]) -> None: ...

    names = {"in_a_function": in_a_function, "on_accept": InAHook, "lifespan": in_a_lifespan}
    for name, handler in {**names, "provide_other": in_a_dependency}.items():
        with pytest.raises(
            ConfigurationError, match=rf"{name} .*line \d+\) has a parameter 'shape' that Litestar canno"
        ):
            start(ConnectionInfo, handler)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("annotation", "fix"),
    [
        (Socket, "Fix: rename it to 'socket'"),
        (Socket | None, "Fix: rename it to 'socket'"),
        (ConnectionInfo, "Fix: rename it to 'connection'"),
        (NamedDependency[ConnectionInfo], "Fix: rename it to 'connection'"),
        (Fanout, "Fix: provide it with dependencies={'misnamed': Provide(...)}"),
        (Circle, "Fix: provide it with dependencies={'misnamed': Provide(...)}"),
    ],
)
def test_what_is_injected_by_another_name_never_starts(annotation: Any, fix: str) -> None:
    @listener("/")
    async def wrong(data: str, misnamed: annotation) -> None: ...

    with pytest.raises(ConfigurationError, match=rf"wrong .*line \d+\)(?s:.*){re.escape(fix)}"):
        start(ConnectionInfo, wrong)


def test_what_a_query_or_a_path_can_hold_starts() -> None:
    @listener("/{day:date}/{number:int}")
    async def right(
        data: str,
        socket: Socket,
        day: FromPath[Any],
        number: FromPath[int],
        kind: FromQuery[Kind],
        of: FromQuery[str] = "",
    ) -> None: ...

    class Plain(WebsocketListener):
        path = "/plain"
        opt = {"allow": ["unmanaged"]}  # noqa: RUF012

        async def on_receive(self, data: str, kind: FromQuery[list[Kind] | None] = None) -> None: ...

    start(ConnectionInfo, right, Plain)


class Priced(Struct, tag="priced"):
    price: "Fraction"


def test_a_message_with_a_name_for_type_checkers_never_starts() -> None:
    @listener("/")
    async def wrong(data: Priced) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"wrong .*a parameter `data` to which no message can be decoded: name 'Fraction'"
    ):
        start(ConnectionInfo, wrong)
