"""What a connection starts and sends by itself, and messages that are handled side by side."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from queue import Queue
from typing import Any

import pytest
from litestar.di import NamedDependency
from litestar.exceptions import (
    NotFoundException,
    ServiceUnavailableException,
    ValidationException,
    WebSocketDisconnect,
    WebSocketException,
)
from msgspec import Struct

from my_service.realtime import ConfigurationError, ConnectionInfo, Reason, Socket, listener
from my_service.realtime.checks.definitions import check_connection_class
from my_service.realtime.sessions.session import Session

from ..recording import Hooks, Serve, capture_logs


class Do(Struct, tag="do"):
    what: str = ""


class Done(Struct, tag="done"):
    what: str


variable: ContextVar[str] = ContextVar("variable", default="nothing")
seen: Queue[Any] = Queue()


async def wait_for_ever(connection: ConnectionInfo) -> None:
    try:
        await connection.send(Done("started"))
        await asyncio.Event().wait()
    finally:
        seen.put((connection.cause, variable.get()))


async def fail(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


async def nothing() -> None: ...


@listener("/")
async def run(data: Do, connection: NamedDependency[ConnectionInfo]) -> Done | None:
    assert connection.cause is None
    match data.what:
        case "wait":
            connection.start(wait_for_ever(connection), name="waits")
        case "fail":
            connection.start(fail(ValueError("a bug")))
        case "close":
            connection.start(fail(WebSocketException(detail="enough", code=4001)))
        case "not found":
            connection.start(fail(ExceptionGroup("", [NotFoundException()])))
        case "invalid":
            connection.start(fail(ValidationException("not what a client sent")))
        case "unavailable":
            connection.start(fail(ServiceUnavailableException()))
        case "result":
            return Done(str(await connection.start(asyncio.sleep(0, "result"))))
        case _:
            await connection.send(Done("sent"))
    return None


@pytest.fixture(autouse=True)
def _forget() -> None:
    while not seen.empty():
        seen.get()


def test_a_task_ends_with_the_connection_before_on_disconnect(serve: Serve, hooks: Hooks) -> None:
    order: list[Any] = []
    hooks.during_accept = lambda _: variable.set("of the connection") and None
    hooks.during_disconnect = lambda _: order.append(seen.get(block=False))
    with serve(run) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "do", "what": "wait"})
            assert socket.receive_json(timeout=20) == {"type": "done", "what": "started"}
        connection, cause = hooks.ended.get(timeout=20)
    assert order == [(cause, "of the connection")]
    assert connection.cause is cause


def test_a_result_can_be_awaited_and_a_message_sent(serve: Serve) -> None:
    with serve(run) as client, client.websocket_connect("/") as socket:
        for what in ("result", "sent"):
            socket.send_json({"type": "do", "what": what, "ref": 1})
            assert socket.receive_json(timeout=20)["what"] == what


@pytest.mark.parametrize(
    ("what", "code", "reason", "logs"),
    [
        ("fail", 1011, Reason.HANDLER_FAILED, 1),
        ("not found", 1011, Reason.HANDLER_FAILED, 1),
        ("invalid", 1011, Reason.HANDLER_FAILED, 1),
        ("close", 4001, Reason.SERVICE_CLOSED, 0),
        ("unavailable", 1013, Reason.SERVICE_CLOSED, 0),
    ],
)
def test_a_task_that_fails_closes_the_connection(
    serve: Serve, hooks: Hooks, capsys: pytest.CaptureFixture[str], what: str, code: int, reason: Reason, logs: int
) -> None:
    with serve(run) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "do", "what": what})
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_json(timeout=20)
            assert ended.value.code == code
        connection, cause = hooks.ended.get(timeout=20)
    assert cause.reason == reason
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "handler failed" in line]
    assert len(lines) == logs
    assert all(connection.id in line for line in lines)


def test_a_task_may_begin_in_on_accept_and_not_afterwards(serve: Serve, hooks: Hooks) -> None:
    def start(socket: Socket) -> None:
        connection = Session.of(socket).ensure_connection()
        try:
            connection.start(wait_for_ever(connection))
        except RuntimeError as error:
            seen.put(str(error))

    hooks.during_accept = hooks.during_disconnect = start
    with serve(run) as client:
        with client.websocket_connect("/") as socket:
            assert socket.receive_json(timeout=20)["what"] == "started"
        hooks.ended.get(timeout=20)
    seen.get(timeout=20)
    assert "after its end" in seen.get(timeout=20)


def test_a_connection_of_no_socket_has_no_tasks() -> None:
    connection = ConnectionInfo()
    assert connection.cause is None
    with pytest.raises(RuntimeError):
        connection.start(nothing())
    with pytest.raises(RuntimeError):
        asyncio.run(connection.send(Done("")))


def test_a_connection_can_be_weakly_referenced_and_is_a_plain_dataclass(serve: Serve, hooks: Hooks) -> None:
    with serve(run) as client:
        with client.websocket_connect("/"):
            pass
        connection, _ = hooks.ended.get(timeout=20)
        assert asdict(connection).keys() == {"id", "accepted_at", "client", "user"}
        reference = weakref.ref(connection)
    hooks.accepted.clear()
    del connection
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("name", ["cause", "start", "send", "id", "user", "_session"])
def test_a_field_that_hides_one_of_the_names_is_refused(name: str) -> None:
    hiding: Any = dataclass(slots=True, kw_only=True, eq=False)(
        type("Connection", (ConnectionInfo,), {"__annotations__": {name: str}, name: ""})
    )
    with pytest.raises(ConfigurationError, match=name):
        check_connection_class(hiding)


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_at_most_so_many_messages_are_handled_at_once(serve: Serve, concurrency: int) -> None:
    now = 0
    most = 0

    @listener("/", concurrency=concurrency)
    async def handle(data: Do) -> Done:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return Done(data.what)

    with serve(handle) as client, client.websocket_connect("/") as socket:
        for ref in range(12):
            socket.send_json({"type": "do", "ref": ref})
        assert sorted(socket.receive_json(timeout=20)["ref"] for _ in range(12)) == list(range(12))
    assert most == concurrency


@pytest.mark.parametrize(("cancels", "expected"), [(True, "cancelled"), (False, "finished")])
def test_a_handler_runs_to_its_end_unless_it_is_to_be_cancelled(
    serve: Serve, hooks: Hooks, cancels: bool, expected: str
) -> None:
    begun: Queue[None] = Queue()

    @listener("/", concurrency=2, cancel_on_disconnect=cancels)
    async def handle(data: Do) -> None:
        begun.put(None)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            seen.put("cancelled")
            raise
        seen.put("finished")

    with serve(handle) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "do"})
            begun.get(timeout=20)
        hooks.ended.get(timeout=20)
    assert seen.get(timeout=20) == expected


@pytest.mark.parametrize("what", ["refuse", "fail"])
def test_handlers_side_by_side_fail_as_those_in_order(serve: Serve, hooks: Hooks, what: str) -> None:
    @listener("/", concurrency=2)
    async def handle(data: Do) -> None:
        raise WebSocketException(detail="no", code=4001) if data.what == "refuse" else ValueError("a bug")

    with serve(handle) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "do", "what": what})
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_json(timeout=20)
            assert ended.value.code == (4001 if what == "refuse" else 1011)
        assert hooks.ended.get(timeout=20)[1].code == ended.value.code


async def await_what_is_cancelled(_: ConnectionInfo) -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def send_to_another(_: ConnectionInfo) -> None:
    raise WebSocketDisconnect(detail="that other connection is closed", code=1000)


async def start_what_sends_to_another(connection: ConnectionInfo) -> None:
    await asyncio.wait([connection.start(send_to_another(connection))])


@listener("/")
async def in_order(data: Do, connection: NamedDependency[ConnectionInfo]) -> None:
    await MISTAKES[data.what](connection)


@listener("/", concurrency=2)
async def side_by_side(data: Do, connection: NamedDependency[ConnectionInfo]) -> None:
    await MISTAKES[data.what](connection)


@listener("/")
async def streaming(data: Do, connection: NamedDependency[ConnectionInfo]) -> AsyncGenerator[Done, None]:
    yield Done("begun")
    await MISTAKES[data.what](connection)


MISTAKES = {each.__name__: each for each in (await_what_is_cancelled, send_to_another, start_what_sends_to_another)}


@pytest.mark.parametrize("what", MISTAKES)
@pytest.mark.parametrize("handler", [in_order, side_by_side, streaming], ids=["in order", "side by side", "stream"])
def test_the_end_of_something_else_is_no_silence(serve: Serve, hooks: Hooks, handler: Any, what: str) -> None:
    """Neither a cancellation from inside nor the disconnect of another connection leaves a client waiting."""
    ended: Any = None
    # The cancellation comes back from the test client: as its task's, or as that of the future it waits for.
    cancelled = suppress(asyncio.CancelledError, CancelledError)
    with capture_logs() as lines, cancelled, serve(handler) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "do", "what": what, "ref": 1})
        with pytest.raises(WebSocketDisconnect) as ended:
            [socket.receive_json(timeout=20) for _ in range(2)]  # a stream sends something first
    code, reason = (1011, Reason.CANCELLED) if what == "await_what_is_cancelled" else (1000, Reason.SERVICE_CLOSED)
    assert ended.value.code == code
    cause = hooks.ended.get(timeout=20)[1]
    assert cause.reason == reason
    assert isinstance(cause.error, asyncio.CancelledError) == (code == 1011)
    logged = [line["event"] for line in lines if line["log_level"] == "error"]
    assert logged == ["handler cancelled"] * (code == 1011 and handler is not in_order)  # there, the server logs it
