"""The checks: with one of these mistakes the service does not start, and says where it is and how to fix it.

Litestar lets each of them through; most answer every client with a bare 403 then, and nothing is in the log.
"""

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from litestar import Controller, Litestar, Request, Router, get, websocket
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.handlers import WebsocketListener, websocket_listener
from litestar.testing import TestClient
from msgspec import Struct, field

from my_service.realtime import (
    Cause,
    ConfigurationError,
    ConnectionInfo,
    Listener,
    Realtime,
    Socket,
    connection_lifespan,
    listener,
)
from my_service.realtime.testing import credentials
from my_service.settings import Settings

if TYPE_CHECKING:
    from decimal import Decimal


async def on_accept(socket: Socket, connection: ConnectionInfo) -> None: ...


async def on_disconnect(socket: Socket, connection: ConnectionInfo, cause: Cause) -> None: ...


HOOKS = SimpleNamespace(on_accept=on_accept, on_disconnect=on_disconnect)


def start(*handlers: Any, **options: Any) -> Litestar:
    realtime = Realtime(Settings(), ConnectionInfo, HOOKS)
    return Litestar(list(handlers), plugins=[realtime], openapi_config=None, **options)


def refused(name: str, mistake: str, fix: str, *handlers: Any, **options: Any) -> None:
    with pytest.raises(ConfigurationError) as error:
        start(*handlers, **options)
    message = str(error.value)
    assert name in message, message
    assert "test_checks.py, line " in message, message
    assert mistake in message, message
    assert fix in message.partition("Fix: ")[2], message


async def plain_function(socket: Socket) -> None: ...


async def undecorated(socket: Socket) -> AsyncGenerator[None, None]:
    yield


@asynccontextmanager  # type: ignore[arg-type]
async def without_yield(socket: Socket) -> None:  # pyright: ignore
    await socket.accept()


@asynccontextmanager
async def without_parameter_annotation(socket) -> AsyncGenerator[None, None]:  # type: ignore[no-untyped-def]  # pyright: ignore
    yield


@asynccontextmanager
async def without_return_annotation(socket: Socket):  # type: ignore[no-untyped-def]
    yield


@asynccontextmanager  # type: ignore[arg-type]
async def with_wrong_return_annotation(socket: Socket) -> None:  # type: ignore[misc]  # pyright: ignore
    yield  # pyright: ignore


@asynccontextmanager
async def with_wrong_socket_annotation(socket: str) -> AsyncGenerator[None, None]:
    yield


@asynccontextmanager
async def with_unimportable_annotation(socket: Socket, price: "Decimal") -> AsyncGenerator[None, None]:
    yield


@asynccontextmanager
async def with_the_cause(socket: Socket, cause: Cause) -> AsyncGenerator[None, None]:
    yield


@contextmanager
def synchronous(socket: Socket) -> Generator[None]:
    yield


@contextmanager  # pyright: ignore
async def wrongly_decorated(socket: Socket) -> Iterator[None]:  # type: ignore[misc]  # pyright: ignore
    yield  # pyright: ignore


class Resource:
    def __init__(self, socket: Socket) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


LIFESPANS: list[tuple[Any, str, str]] = [
    (plain_function, "is a plain async function", "@asynccontextmanager"),
    (undecorated, "is a lifespan without @asynccontextmanager", "@asynccontextmanager"),
    (without_yield, "is a lifespan without `yield`", "yield"),
    (without_parameter_annotation, "has a parameter 'socket' without an annotation", "annotate socket"),
    (without_return_annotation, "is a lifespan without a return annotation", "AsyncGenerator[None, None]"),
    (with_wrong_return_annotation, "is a lifespan annotated to return None", "AsyncGenerator[None, None]"),
    (with_wrong_socket_annotation, "has a parameter 'socket' annotated as str", "socket: Socket"),
    (with_unimportable_annotation, "annotated with 'Decimal', which does not exist at run time", "TYPE_CHECKING"),
    (with_the_cause, "has a parameter 'cause', which is not available in the lifespan", "socket: Socket"),
    (synchronous, "is a synchronous context manager", "@asynccontextmanager"),
    (wrongly_decorated, "is a synchronous context manager", "@asynccontextmanager"),
    (Resource, "is a class", "@asynccontextmanager"),
]


@pytest.mark.parametrize(("lifespan", "mistake", "fix"), LIFESPANS)
@pytest.mark.parametrize("inside", ["a list", "a router", "a controller"])
def test_a_plain_listener_with_a_wrong_lifespan(lifespan: Any, mistake: str, fix: str, inside: str) -> None:
    @websocket_listener("/", connection_lifespan=lifespan)
    async def handler(data: str) -> None: ...

    class Grouped(Controller):
        grouped = handler

    router = Router("/x", route_handlers=[handler])
    given: Any = {"a list": handler, "a router": router, "a controller": Grouped}[inside]
    refused(lifespan.__name__, mistake, fix, given)


@pytest.mark.parametrize(("lifespan", "mistake", "fix"), LIFESPANS)
def test_our_listener_with_a_wrong_lifespan(lifespan: Any, mistake: str, fix: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{lifespan.__name__} .*test_checks.py, line") as error:

        @listener("/", connection_lifespan=lifespan)
        async def _(data: str) -> None: ...

    assert mistake in str(error.value)
    assert fix in str(error.value)


@asynccontextmanager
async def right(socket: Socket) -> AsyncGenerator[None, None]:
    yield


def right_function(socket: Socket) -> Resource:
    return Resource(socket)


class Pool:
    @asynccontextmanager
    async def of_an_object(self, socket: Socket) -> AsyncGenerator[None, None]:
        yield


@pytest.mark.parametrize("lifespan", [right, right_function, connection_lifespan, Pool().of_an_object])
def test_what_is_right_starts(lifespan: Any) -> None:
    @websocket_listener("/plain", connection_lifespan=lifespan, opt={"allow": ["unmanaged"]})
    async def plain(data: str) -> None: ...

    start(plain)


class TestSharedState:
    MISTAKE = "which is the application's state and shared by all connections"
    FIX = "add a field to Connection"

    def test_in_a_listener(self) -> None:
        @listener("/")
        async def sharing(data: str, state: State) -> None: ...

        refused("sharing", self.MISTAKE, self.FIX, sharing)

    def test_in_a_plain_listener(self) -> None:
        @websocket_listener("/")
        async def sharing(data: str, state: State) -> None: ...

        refused("sharing", self.MISTAKE, self.FIX, sharing)

    def test_in_a_handler(self) -> None:
        @websocket("/")
        async def sharing(socket: Socket, state: State) -> None: ...

        refused("sharing", self.MISTAKE, self.FIX, sharing)

    def test_in_a_lifespan(self) -> None:
        @asynccontextmanager
        async def sharing(socket: Socket, state: State) -> AsyncGenerator[None, None]:
            yield

        @websocket_listener("/", connection_lifespan=sharing)
        async def handler(data: str) -> None: ...

        refused("sharing", self.MISTAKE, self.FIX, handler)

    def test_in_the_hook_of_a_listener(self) -> None:
        class Sharing(Listener):
            path = "/"

            async def on_accept(self, state: State) -> None: ...

            async def on_receive(self, data: str) -> None: ...

        refused("Sharing.on_accept", self.MISTAKE, self.FIX, Sharing)

    def test_in_a_plain_listener_class(self) -> None:
        class Sharing(WebsocketListener):
            path = "/"

            async def on_receive(self, data: str, state: State) -> None: ...

        refused("Sharing.on_receive", self.MISTAKE, self.FIX, Sharing)

    def test_unless_it_says_so(self) -> None:
        @listener("/", opt={"allow": ["state"]})
        async def sharing(data: str, state: State) -> None: ...

        start(sharing)

    def test_a_router_may_say_so_for_all(self) -> None:
        @listener("/")
        async def sharing(data: str, state: State) -> None: ...

        start(Router("/", route_handlers=[sharing], opt={"allow": ["state"]}))


async def make_counter() -> list[int]:
    return [0]


class TestCachedDependency:
    MISTAKE = "with use_cache=True, so all connections get the value of the first one"
    FIX = 'remove use_cache; each connection still gets only one value. To share the value, add opt={"allow": ["'

    def test_of_a_handler(self) -> None:
        @listener("/", dependencies={"counter": Provide(make_counter, use_cache=True)})
        async def counting(data: str, counter: NamedDependency[list[int]]) -> None: ...

        refused("counting", self.MISTAKE, self.FIX, counting)

    def test_of_the_application(self) -> None:
        @websocket_listener("/")
        async def counting(data: str, counter: NamedDependency[list[int]]) -> None: ...

        cached = {"counter": Provide(make_counter, use_cache=True)}
        refused("counting", self.MISTAKE, self.FIX, counting, dependencies=cached)

    def test_behind_another_dependency(self) -> None:
        async def make_total(counter: NamedDependency[list[int]]) -> int:
            return sum(counter)

        @listener("/")
        async def counting(data: str, total: NamedDependency[int]) -> None: ...

        both = {"counter": Provide(make_counter, use_cache=True), "total": Provide(make_total)}
        refused("make_counter", self.MISTAKE, self.FIX, counting, dependencies=both)

    def test_unless_it_says_so(self) -> None:
        cached = {"counter": Provide(make_counter, use_cache=True)}

        @listener("/", dependencies=cached, opt={"allow": ["counter"]})
        async def counting(data: str, counter: NamedDependency[list[int]]) -> None: ...

        start(counting)


class TestUnknownKeyword:
    def test_of_a_plain_listener(self) -> None:
        @websocket_listener("/", connection_lifspan=connection_lifespan)
        async def unknown(data: str) -> None: ...

        refused("unknown", "passes 'connection_lifspan'", "write 'connection_lifespan'", unknown)

    @pytest.mark.parametrize(("keyword", "meant"), [("guard", "guards"), ("lifespan", "connection_lifespan")])
    def test_that_is_near_enough(self, keyword: str, meant: str) -> None:
        keywords: dict[str, Any] = {keyword: []}

        @websocket_listener("/", **keywords)
        async def unknown(data: str) -> None: ...

        refused("unknown", f"passes {keyword!r}", f"write {meant!r}", unknown)

    def test_of_a_handler(self) -> None:
        @websocket("/", dependancies={})
        async def unknown(socket: Socket) -> None: ...

        refused("unknown", "passes 'dependancies'", "write 'dependencies'", unknown)

    def test_of_our_listener(self) -> None:
        with pytest.raises(ConfigurationError, match=r"(?s)unknown.*line \d+.*write 'connection_lifespan'") as error:

            @listener("/", connection_lifspan=right)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
            async def unknown(data: str) -> None: ...

        assert "which has no such keyword" in str(error.value)

    def test_of_a_method(self) -> None:
        class Misnamed(Listener):
            path = "/"

            async def on_receive(self, data: str) -> None: ...

            async def on_disconect(self) -> None: ...

        refused(
            "Misnamed.on_disconect",
            "is never called",
            'rename it to on_disconnect, or keep the name with opt={"allow": ["on_disconect"]}',
            Misnamed,
        )

    def test_of_the_first_hook(self) -> None:
        class Misnamed(Listener):
            path = "/"

            async def on_receive(self, data: str) -> None: ...

            async def on_connect(self) -> None: ...

        refused("Misnamed.on_connect", "is never called", "rename it to on_accept", Misnamed)

    def test_of_an_attribute(self) -> None:
        class Misnamed(Listener):
            path = "/"
            client_speak_first = True

            async def on_receive(self, data: str) -> None: ...

        mistake = "has 'client_speak_first', which is never read"
        refused("Misnamed", mistake, "rename it to client_speaks_first", Misnamed)
        refused("Misnamed", mistake, "rename it to client_speaks_first", Router("/x", route_handlers=[Misnamed]))

    def test_unless_it_says_so(self) -> None:
        @websocket_listener("/", guard="a key of its own", opt={"allow": ["guard", "unmanaged"]})
        async def meant(data: str) -> None: ...

        @websocket_listener("/other", opt={"role": "admin", "allow": ["unmanaged"]}, exclude_from_auth=True)
        async def known(data: str) -> None: ...

        start(meant, known)


class TestConnectionWhereThereIsNone:
    def test_in_a_plain_listener_without_the_lifespan(self) -> None:
        @websocket_listener("/")
        async def homeless(data: str, connection: NamedDependency[ConnectionInfo]) -> None: ...

        refused("homeless", "asks for `connection` but runs without connection_lifespan", "use @listener", homeless)

    def test_in_an_http_handler(self) -> None:
        @get("/homeless")
        async def homeless(connection: NamedDependency[ConnectionInfo]) -> None: ...

        refused(
            "homeless",
            "asks for `connection` in an HTTP handler",
            "only WebSocket handlers have a Connection",
            homeless,
        )


class TestListener:
    def test_must_be_async(self) -> None:
        with pytest.raises(ConfigurationError, match=r"blocking .*line \d+.* not an async function"):

            @listener("/")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            def blocking(data: str) -> str:
                return data

    def test_must_take_data(self) -> None:
        with pytest.raises(ConfigurationError, match="without a parameter 'data'"):

            @listener("/")
            async def deaf() -> None: ...

    def test_is_no_partial(self) -> None:
        async def greet(greeting: str, data: str) -> str:
            return greeting + data

        with pytest.raises(ConfigurationError, match=r"greet .*line \d+.* as a functools.partial"):
            listener("/")(partial(greet, greeting="hi"))

    @pytest.mark.parametrize("concurrency", ["4", 1.5, 0, True])
    def test_has_an_integer_as_concurrency(self, concurrency: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"greet .*line \d+.* has concurrency"):

            @listener("/", concurrency=concurrency)
            async def greet(data: str) -> None: ...

    def test_has_names_for_its_scopes(self) -> None:
        scopes: Any = [undecorated]
        with pytest.raises(ConfigurationError, match=r"greet .*line \d+.* has a list as per_message"):

            @listener("/", per_message=scopes)
            async def greet(data: str) -> None: ...

    def test_has_a_lifespan_that_is_not_called_yet(self) -> None:
        called: Any = right(cast("Any", None))
        with pytest.raises(ConfigurationError, match=r"right .*line \d+.* is called where it is passed as a lifespan"):

            @listener("/", connection_lifespan=called)
            async def greet(data: str) -> None: ...

    @pytest.mark.parametrize("lifespan", ["right", 7])
    def test_has_a_function_as_lifespan(self, lifespan: Any) -> None:
        with pytest.raises(ConfigurationError, match="is passed as connection_lifespan but is not an async context"):

            @listener("/", connection_lifespan=lifespan)
            async def greet(data: str) -> None: ...

    def test_takes_all_by_name(self) -> None:
        async def positional(data: str, /) -> None: ...

        async def several(data: str, *words: str) -> None: ...

        for function, name in ((positional, "data"), (several, "words")):
            with pytest.raises(ConfigurationError, match=f"parameter '{name}' that cannot be passed by keyword"):
                listener("/")(function)

    def test_takes_nothing_of_an_http_request(self) -> None:
        with pytest.raises(ConfigurationError, match="'request', which is not available in the listener of a Web"):

            @listener("/")
            async def asking(data: str, request: Request[Any, Any, Any]) -> None: ...

    def test_has_hooks_without_a_message(self) -> None:
        class Early(Listener):
            path = "/"

            async def on_accept(self, data: str) -> None: ...

            async def on_receive(self, data: str) -> None: ...

        with pytest.raises(ConfigurationError, match="'data', which is not available in the on_accept of a WebSocket"):
            start(Early)

    def test_has_a_cause_only_when_the_connection_has_ended(self) -> None:
        class Early(Listener):
            path = "/"

            async def on_accept(self, cause: Cause) -> None: ...

            async def on_receive(self, data: str) -> None: ...

        class Renaming(Listener):
            path = "/"

            async def on_disconnect(self, why: Cause) -> None: ...

            async def on_receive(self, data: str) -> None: ...

        @listener("/")
        async def asking(data: str, cause: Cause | None) -> None: ...

        with pytest.raises(ConfigurationError, match="'cause', which is not available in the on_accept of a WebSocket"):
            start(Early)
        fix = "take it as `cause` in on_disconnect, and read connection.cause elsewhere"
        refused(
            "Renaming.on_disconnect",
            "has a parameter 'why', but no value of its type is injected under this name",
            fix,
            Renaming,
        )
        refused("asking", "has a parameter 'cause', but no value of its type is injected under this name", fix, asking)

    def test_has_no_mutable_attribute(self) -> None:
        class Sharing(Listener):
            path = "/"
            history: list[str] = []  # noqa: RUF012 (the mistake)

            async def on_receive(self, data: str) -> None: ...

        refused("Sharing", "has 'history', a list that every connection would share", "field of Connection", Sharing)

    def test_the_connection_must_be_made_without_arguments(self) -> None:
        @dataclass(slots=True, kw_only=True, eq=False)
        class Demanding(ConnectionInfo):
            name: str

        with pytest.raises(ConfigurationError, match=r"(?s)Demanding .*line \d+.*'name'.*give every field a default"):
            Realtime(Settings(), Demanding, HOOKS)  # type: ignore[arg-type]  # pyright: ignore

    def test_the_connection_must_have_an_id(self) -> None:
        with pytest.raises(ConfigurationError, match=r"(?s)is the state of a connection but has no id"):
            Realtime(Settings(), dict, HOOKS)  # type: ignore[arg-type]  # pyright: ignore

    def test_what_the_framework_passes_to_a_hook_needs_no_annotation(self) -> None:
        class Plain(Listener):
            path = "/"

            async def on_accept(self, socket, connection) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore

            async def on_receive(self, data: str) -> None: ...

        async def plain(socket, connection, cause) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore

        plain_hooks = SimpleNamespace(on_accept=on_accept, on_disconnect=plain)
        Litestar([Plain], plugins=[Realtime(Settings(), ConnectionInfo, plain_hooks)])

    def test_hooks_must_fit(self) -> None:
        async def short(socket: Socket) -> None: ...

        with pytest.raises(
            ConfigurationError, match=r"short .*line \d+.*cannot be called as short\(socket, connection\)"
        ):
            Realtime(Settings(), ConnectionInfo, SimpleNamespace(on_accept=short, on_disconnect=on_disconnect))


@asynccontextmanager
async def of_a_pool(socket: Socket, pool: str = "none") -> AsyncGenerator[None, None]:
    await socket.send_text(pool)
    yield


def test_what_a_partial_binds_is_no_query_parameter() -> None:
    @listener("/", connection_lifespan=partial(of_a_pool, pool="mine"))
    async def echo(data: str) -> None: ...

    with (
        TestClient(start(echo)) as client,
        client.websocket_connect("/?pool=theirs", headers=credentials()) as socket,
    ):
        assert socket.receive_text(timeout=20) == "mine"


class Colour:
    """A type that msgspec does not know."""


class Painted(Struct, tag="painted"):
    colour: Colour = Colour()


class Framed(Struct, tag="framed"):
    picture: Painted | None = None


class Made(Struct, tag="made"):
    colour: Colour = field(default_factory=Colour)


@pytest.mark.parametrize("message", [Painted, Framed])
def test_a_default_that_no_schema_can_show_is_refused_instead_of_breaking_the_commands(message: type[Struct]) -> None:
    async def function(data: Made) -> Any: ...

    function.__annotations__["return"] = message
    fix = "write a default of a class of your own as field(default_factory=...)"
    mistake = "is a message of function and has no JSON schema, which its documentation needs: Encoding objects of"
    refused(message.__name__, mistake, fix, listener("/")(function))


def test_a_message_that_nothing_documents_needs_no_schema() -> None:
    @listener("/", opt={"include_in_schema": False})
    async def handler(data: Made) -> Painted:
        return Painted()

    start(handler, type_encoders={Colour: str})


def test_a_default_factory_starts() -> None:
    @listener("/")
    async def handler(data: Made) -> Made:
        return data

    start(handler)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/a", "/a"),
        ("/a", "/a/"),
        ("/a/{x:int}", "/a/{y:int}"),
        ("/a/{x:int}", "/a/{y:str}"),
        ("/{p:path}", "/{q:path}"),
    ],
)
def test_of_two_listeners_on_one_path_litestar_calls_the_later_only(one: str, two: str) -> None:
    @listener(one)
    async def first(data: str) -> None: ...

    @listener(two)
    async def second(data: str) -> None: ...

    router = Router("/", route_handlers=[second])
    refused("second", "which would never be called", "give one of them another path", first, router)
    refused("second", f"handles {two.removesuffix('/')}, and so does test_of", "another path", first, second)


def test_listeners_on_paths_that_differ_and_handlers_of_http_share_nothing() -> None:
    @listener(["/a", "/a/{x:int}"])
    async def both(data: str) -> None: ...

    @listener("/b/{x:int}")
    async def other(data: str) -> None: ...

    @get("/a", sync_to_thread=False)
    def page() -> None: ...

    start(both, other, page)
