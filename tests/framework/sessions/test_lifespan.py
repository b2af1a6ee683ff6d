"""The lifecycle of a connection: it is counted, accepted, initialized, and whatever happens, cleaned up once."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, cast

import pytest
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ServiceUnavailableException, WebSocketDisconnect, WebSocketException
from litestar.handlers import BaseRouteHandler, websocket, websocket_listener
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession

from my_service.realtime import ConnectionInfo, Listener, Reason, Socket, connection_lifespan, listener
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.sessions.registry import Registry

from ..recording import Hooks, Serve, build, capture_logs

BUG = "a bug in the handler"


@listener("/")
async def handler(data: str, socket: Socket) -> str:
    match data.split():
        case ["raise"]:
            raise RuntimeError(BUG)
        case ["file"]:
            raise FileNotFoundError(BUG)  # an OSError of its own, which is no lost connection
        case ["close", code]:
            await socket.close(int(code), "as told")
        case ["refuse"]:
            raise WebSocketException(detail="not you", code=4401)
        case ["unavailable"]:
            raise ServiceUnavailableException(detail="not now")
        case _:
            pass
    return data


def test_the_connection_is_the_same_object_in_hook_handler_and_state(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def tell(data: str, socket: Socket, connection: NamedDependency[ConnectionInfo]) -> str:
        told.append(socket.state.connection)
        told.append(connection)
        return connection.client

    told: list[ConnectionInfo] = []
    with serve(tell) as client, client.websocket_connect("/") as socket:
        socket.send_text("who?")
        assert socket.receive_text(timeout=20) == "testclient"
    in_state, in_handler = told
    assert in_state is in_handler is hooks.accepted[0] is hooks.ended.get(timeout=20)[0]


latest: ContextVar[str] = ContextVar("latest", default="nothing")


def say(text: str) -> str:
    before = latest.get()
    latest.set(text)
    return before


@listener("/")
async def function(data: str) -> str:
    return say(data)


class Class(Listener):
    path = "/"

    async def on_receive(self, data: str) -> str:
        return say(data)


@websocket_listener("/", connection_lifespan=connection_lifespan)
async def plain(data: str) -> str:
    return say(data)


@pytest.mark.parametrize("form", [function, Class, plain])
def test_a_context_variable_belongs_to_its_connection(serve: Serve, form: Any) -> None:
    def ask(socket: WebSocketTestSession, text: str) -> str:
        socket.send_text(text)
        return socket.receive_text(timeout=20)

    with serve(form) as client, client.websocket_connect("/") as one, client.websocket_connect("/") as other:
        assert [ask(one, "a"), ask(other, "b"), ask(one, "c"), ask(other, "d")] == ["nothing", "nothing", "a", "b"]


def test_a_client_that_closes_is_cleaned_up_once_with_its_code(serve: Serve, hooks: Hooks) -> None:
    with serve(handler) as client:
        with client.websocket_connect("/") as socket:
            socket.close(4000)
        connection, cause = hooks.ended.get(timeout=20)
    assert (connection, cause.reason, cause.code) == (hooks.accepted[0], Reason.CLIENT_CLOSED, 4000)
    assert hooks.ended.empty()


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("raise", 1011, Reason.HANDLER_FAILED),
        ("file", 1011, Reason.HANDLER_FAILED),
        ("close 4002", 4002, Reason.SERVICE_CLOSED),
        ("close 99", 1011, Reason.HANDLER_FAILED),
        ("refuse", 4401, Reason.SERVICE_CLOSED),
        ("unavailable", 1013, Reason.SERVICE_CLOSED),
    ],
)
def test_a_handler_that_ends_it_is_cleaned_up_once(
    serve: Serve, hooks: Hooks, message: str, code: int, reason: Reason
) -> None:
    with serve(handler) as client:
        with client.websocket_connect("/") as socket:
            socket.send_text(message)
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_text(timeout=20)
        assert ended.value.code == code
        _, cause = hooks.ended.get(timeout=20)
    assert (cause.reason, cause.code) == (reason, code)
    assert hooks.ended.empty()


def test_a_bug_is_logged_once_and_harms_no_other(serve: Serve) -> None:
    with serve(handler) as client, client.websocket_connect("/") as healthy:
        with capture_logs() as logs, client.websocket_connect("/") as socket:
            socket.send_text("raise")
            with pytest.raises(WebSocketDisconnect):
                socket.receive_text(timeout=20)
        healthy.send_text("still here")
        assert healthy.receive_text(timeout=20) == "still here"
    assert [line["exc_info"].args for line in logs if line["log_level"] == "error"] == [(BUG,)]


class Bug(BaseException): ...


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("on_accept", Bug),
        ("handler", Bug),
        ("on_disconnect", Bug),
        ("on_disconnect", ValueError),
        ("dependency", ValueError),
    ],
)
def test_a_bug_is_logged_once_wherever_it_is(serve: Serve, where: str, kind: type[BaseException]) -> None:
    def fail(here: str) -> None:
        if here == where:
            raise kind(BUG)

    async def provide() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            fail("dependency")

    class Failing(Listener):
        path = "/"
        dependencies = {"provided": Provide(provide)}  # noqa: RUF012

        async def on_accept(self, provided: NamedDependency[None]) -> None:
            fail("on_accept")

        async def on_receive(self, data: str) -> str:
            fail("handler")
            return data

        async def on_disconnect(self) -> None:
            fail("on_disconnect")

    ended = suppress(WebSocketDisconnect, CancelledError)
    with capture_logs() as logs, serve(Failing) as client, ended, client.websocket_connect("/") as socket:
        socket.send_text("hi")
        socket.receive_text(timeout=20)
    assert [line["log_level"] for line in logs].count("error") == 1


def test_a_plain_listener_takes_the_same_lifespan(serve: Serve, hooks: Hooks) -> None:
    @websocket_listener("/", connection_lifespan=connection_lifespan)
    async def plain(data: str, connection: NamedDependency[ConnectionInfo]) -> str:
        return connection.id

    with serve(plain) as client:
        with client.websocket_connect("/") as socket:
            socket.send_text("who?")
            assert socket.receive_text(timeout=20) == hooks.accepted[0].id
        assert hooks.ended.get(timeout=20)[1].reason is Reason.CLIENT_CLOSED


def test_a_handler_may_enter_the_lifespan_by_hand(serve: Serve, hooks: Hooks) -> None:
    @websocket("/")
    async def by_hand(socket: Socket) -> None:
        async with connection_lifespan(socket):
            await socket.send_text(socket.state.connection.id)

    with serve(by_hand) as client:
        with client.websocket_connect("/") as socket:
            assert socket.receive_text(timeout=20) == hooks.accepted[0].id
        _, cause = hooks.ended.get(timeout=20)
    assert (cause.reason, cause.code) == (Reason.SERVICE_CLOSED, 1000)


def test_a_bug_outside_of_any_lifespan_closes_with_1011(serve: Serve) -> None:
    @websocket("/")
    async def careless(socket: Socket) -> None:
        await socket.accept()
        raise RuntimeError(BUG)

    with (
        serve(careless) as client,
        capture_logs() as logs,
        client.websocket_connect("/") as socket,
        pytest.raises(WebSocketDisconnect) as ended,
    ):
        socket.receive_text(timeout=20)
    assert ended.value.code == 1011
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["handler failed"]


@asynccontextmanager
async def no_lifespan(_: Socket) -> AsyncGenerator[None, None]:
    yield


@pytest.mark.parametrize("enter", [connection_lifespan, no_lifespan])
def test_a_task_group_that_the_client_leaves_ends_as_any_connection(
    serve: Serve, hooks: Hooks, enter: Callable[[Socket], AbstractAsyncContextManager[None]]
) -> None:
    @websocket("/")
    async def reading(socket: Socket) -> None:
        async with enter(socket), asyncio.TaskGroup() as outer:
            outer.create_task(read(socket))

    async def read(socket: Socket) -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(asyncio.sleep(3600))
            await socket.accept()
            await socket.receive_text()

    with serve(reading) as client, capture_logs() as logs, client.websocket_connect("/"):
        pass
    if enter is connection_lifespan:
        assert hooks.ended.get(timeout=20)[1].reason is Reason.CLIENT_CLOSED
    assert [line for line in logs if line["log_level"] == "error"] == []


@pytest.mark.parametrize("is_class", [False, True])
def test_a_listener_has_a_lifespan_of_its_own_inside(serve: Serve, hooks: Hooks, is_class: bool) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def own(connection: ConnectionInfo) -> AsyncGenerator[None, None]:
        steps.append(f"begin {connection is hooks.accepted[0]}")
        try:
            yield
        finally:
            steps.append(f"end {hooks.ended.empty()}")

    @listener("/", connection_lifespan=own)
    async def owning(data: str) -> str:
        return data

    class Owning(Listener):
        path = "/"
        connection_lifespan = own

        async def on_receive(self, data: str) -> str:
            return data

    with serve(Owning if is_class else owning) as client:
        with client.websocket_connect("/") as socket:
            socket.send_text("hi")
            socket.receive_text(timeout=20)
        hooks.ended.get(timeout=20)
    assert steps == ["begin True", "end True"]


def test_a_lifespan_of_a_listener_that_is_not_left_in_time_is_cancelled(serve: Serve, hooks: Hooks) -> None:
    @asynccontextmanager
    async def hanging() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await asyncio.Event().wait()

    @listener("/", connection_lifespan=hanging)
    async def handler(data: str) -> str:
        return data

    with serve(handler, hook_seconds=0.05) as client, capture_logs() as logs:
        with client.websocket_connect("/") as socket:
            socket.send_text("x")
            assert socket.receive_text(timeout=20) == "x"
        assert hooks.ended.get(timeout=20)[1].reason is Reason.CLIENT_CLOSED
    [failed] = [line for line in logs if line["event"] == "handler failed"]
    assert isinstance(failed["exc_info"], TimeoutError)


@pytest.mark.parametrize(("when", "reason"), [("begin", "initialization_failed"), ("end", "client_closed")])
def test_a_lifespan_of_a_listener_that_fails_is_logged_once_and_cleaned_up(
    serve: Serve, hooks: Hooks, when: str, reason: str
) -> None:
    @asynccontextmanager
    async def failing(socket: Socket) -> AsyncGenerator[None, None]:
        if when == "begin":
            raise RuntimeError(BUG)
        try:
            yield
        finally:
            raise RuntimeError(BUG)

    @listener("/", connection_lifespan=failing)
    async def owning(data: str) -> None: ...

    with serve(owning) as client, capture_logs() as logs:
        with client.websocket_connect("/"):
            pass
        assert hooks.ended.get(timeout=20)[1].reason == reason
    assert [line["exc_info"].args for line in logs if line["log_level"] == "error"] == [(BUG,)]


def test_sockets_are_counted_from_the_handshake_to_the_clean_up(serve: Serve, hooks: Hooks) -> None:
    registries: list[Registry] = []
    counts: list[int] = []

    def count(socket: Socket) -> None:
        registries.append(socket.app.plugins.get(Sessions).registry)
        counts.append(len(registries[0]))

    hooks.during_accept = hooks.during_disconnect = count
    with serve(handler) as client, client.websocket_connect("/"), client.websocket_connect("/"):
        assert len(registries[0]) == 2
    assert counts[:3] == [1, 2, 2]
    assert len(registries[0]) == 0
    assert not registries[0].clients


def test_setting_an_attribute_on_a_listener_is_an_error_that_says_where_state_belongs(serve: Serve) -> None:
    class Careless(Listener):
        path = "/"

        async def on_receive(self, data: str) -> None:
            self.latest = data

    with serve(Careless) as client, capture_logs() as logs, client.websocket_connect("/") as socket:
        socket.send_text("mine")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text(timeout=20)
    message = str(next(line["exc_info"] for line in logs if line["log_level"] == "error"))
    assert "Careless" in message
    assert "make latest a field of Connection in state.py" in message


def test_asking_for_the_connection_in_a_guard_is_an_error_that_says_when_it_exists(serve: Serve) -> None:
    def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        assert connection.state.connection

    @listener("/", guards=[guard])
    async def guarded(data: str) -> None: ...

    with serve(guarded) as client, capture_logs() as logs, pytest.raises(WebSocketDisconnect):
        client.websocket_connect("/").__enter__()
    assert "It is made after the guards" in str(next(line["exc_info"] for line in logs if "exc_info" in line))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["ocpp1.6"], "ocpp1.6"), (["x", "ocpp1.6", "ocpp2.0"], "ocpp2.0"), (["x"], None), ([], None)],
)
def test_a_listener_names_the_subprotocols_that_it_speaks(
    offered: list[str], chosen: str | None, serve: Serve, hooks: Hooks
) -> None:
    @listener("/", opt={"subprotocols": ["ocpp2.0", "ocpp1.6"]})
    async def handler(data: str) -> None: ...

    with serve(handler) as client, client.websocket_connect("/", subprotocols=offered) as socket:
        assert socket.accepted_subprotocol == chosen


def test_a_cancellation_while_it_closes_does_not_hinder_the_clean_up(hooks: Hooks) -> None:
    app = build(hooks, handler)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def send_or_be_cancelled(event: Any) -> None:
            task = asyncio.current_task()
            if event["type"] == "websocket.close" and task:
                task.cancel()
                await asyncio.Event().wait()
            await send(event)

        await app(scope, receive, send_or_be_cancelled)

    client = TestClient(cast("Any", server))
    # The cancellation comes back from the test client: as its task's, or as that of the future it waits for.
    cancelled = suppress(asyncio.CancelledError, CancelledError)
    with cancelled, client, client.websocket_connect("/") as socket:
        socket.send_text("raise")
        _, cause = hooks.ended.get(timeout=20)
        assert cause.reason is Reason.HANDLER_FAILED
