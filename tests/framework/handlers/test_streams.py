"""Streams: what a listener yields is sent in order, while the connection reads on; whatever ends one, it is closed."""

import asyncio
import typing
from collections.abc import AsyncGenerator
from contextlib import suppress
from queue import Queue
from typing import Any

import pytest
from litestar.di import NamedDependency
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from msgspec import Struct

from my_service.realtime import Cause, ConfigurationError, ConnectionInfo, Listener, MessageError, Reason, listener

from ..recording import Hooks, Serve


class Count(Struct, tag="count"):
    to: int
    then: str = ""


class Number(Struct, tag="number"):
    number: int


closed: Queue[str] = Queue()
"""What each stream saw of its own end."""


@listener("/")
async def count(data: Count, connection: NamedDependency[ConnectionInfo]) -> AsyncGenerator[Number, None]:
    try:
        for number in range(data.to):
            yield Number(number)
        match data.then:
            case "wait":
                await asyncio.Event().wait()
            case "finish":
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            case "ignore":
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        yield Number(-1)
            case "refuse":
                raise MessageError("enough", extra={"after": data.to})
            case "forbid":
                raise PermissionDeniedException("not you")
            case "fail":
                raise ValueError("a bug")
            case "for ever":
                while True:
                    yield Number(0)
            case _:
                pass
    finally:
        closed.put(connection.cause.reason if connection.cause else "open")


def receive(socket: Any, messages: int) -> list[dict[str, Any]]:
    return [socket.receive_json(timeout=20) for _ in range(messages)]


@pytest.fixture(autouse=True)
def _forget() -> None:
    while not closed.empty():
        closed.get()


def test_items_come_in_order_and_then_the_end(serve: Serve) -> None:
    with serve(count) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 100, "ref": 0})
        assert receive(socket, 100) == [{"type": "number", "number": number, "ref": 0} for number in range(100)]
        assert receive(socket, 1) == [{"type": "end", "ref": 0}]
        assert closed.get(timeout=20) == "open"


def test_without_a_ref_there_is_no_end(serve: Serve) -> None:
    with serve(count) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 1})
        socket.send_json({"type": "ping", "ref": 1})
        assert {"type": "number", "number": 0} in receive(socket, 2)
        socket.send_json({"type": "ping"})
        assert receive(socket, 1) == [{"type": "pong"}]


def test_the_connection_reads_on_while_it_streams(serve: Serve) -> None:
    with serve(count) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 1, "then": "wait", "ref": "a"})
        receive(socket, 1)
        socket.send_json({"type": "count", "to": 1, "ref": "b"})
        assert receive(socket, 2) == [{"type": "number", "number": 0, "ref": "b"}, {"type": "end", "ref": "b"}]


@pytest.mark.parametrize("then", ["wait", "finish", "ignore", "for ever"])
def test_a_cancel_stops_the_stream_with_that_ref(serve: Serve, then: str) -> None:
    with serve(count) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 1, "then": then, "ref": "a"})
        receive(socket, 1)
        socket.send_json({"type": "cancel", "ref": "b"})
        socket.send_json({"type": "cancel", "ref": "a"})
        while (last := socket.receive_json(timeout=20))["type"] == "number":
            assert last["number"] == 0
        assert last == {"type": "end", "ref": "a", "cancelled": True}
        assert closed.get(timeout=20) == "open"
        socket.send_json({"type": "cancel", "ref": "a"})
        socket.send_json({"type": "count", "to": 0, "ref": "a"})
        assert receive(socket, 1) == [{"type": "end", "ref": "a"}]


def test_a_cancel_right_behind_its_message_is_received(serve: Serve) -> None:
    with serve(count, max_streams=20) as client, client.websocket_connect("/") as socket:
        for ref in range(20):
            socket.send_json({"type": "count", "to": 0, "then": "wait", "ref": ref})
            socket.send_json({"type": "cancel", "ref": ref})
        ended = receive(socket, 20)
        assert sorted(each["ref"] for each in ended) == list(range(20))
        assert all(each["cancelled"] for each in ended)


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("refuse", {"code": "enough", "detail": "", "extra": {"after": 1}}),
        ("forbid", {"code": "permission_denied", "detail": "not you"}),
    ],
)
def test_an_error_is_the_last_message(serve: Serve, then: str, expected: dict[str, Any]) -> None:
    with serve(count) as client, client.websocket_connect("/") as socket:
        for ref in ({"ref": "a"}, {}):
            socket.send_json({"type": "count", "to": 1, "then": then, **ref})
            assert receive(socket, 2)[1] == {"type": "error", **expected, **ref}
        socket.send_json({"type": "ping", "ref": "b"})
        assert receive(socket, 1) == [{"type": "pong", "ref": "b"}]


def test_a_bug_closes_with_1011(serve: Serve, hooks: Hooks) -> None:
    with serve(count) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "count", "to": 0, "then": "fail", "ref": "a"})
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_json(timeout=20)
            assert ended.value.code == 1011
        _, cause = hooks.ended.get(timeout=20)
        assert (cause.reason, str(cause.error)) == (Reason.HANDLER_FAILED, "a bug")


def test_more_than_max_streams_and_a_ref_twice_are_refused(serve: Serve) -> None:
    with serve(count, max_streams=2) as client, client.websocket_connect("/") as socket:
        waiting = {"type": "count", "to": 1, "then": "wait"}
        socket.send_json(waiting)
        socket.send_json({**waiting, "ref": 1})
        receive(socket, 2)
        socket.send_json({**waiting, "ref": 1})
        socket.send_json({**waiting, "ref": 2})
        assert [(each["code"], each["ref"]) for each in receive(socket, 2)] == [
            ("duplicate_ref", 1),
            ("too_many_streams", 2),
        ]
        socket.send_json({"type": "cancel", "ref": 1})
        receive(socket, 1)
        socket.send_json({"type": "count", "to": 0, "ref": 2})
        assert receive(socket, 1) == [{"type": "end", "ref": 2}]


@pytest.mark.parametrize("then", ["wait", "for ever"])
def test_a_stream_is_closed_before_on_disconnect(serve: Serve, hooks: Hooks, then: str) -> None:
    order: list[str] = []
    hooks.during_disconnect = lambda _: order.append(closed.get(block=False))
    with serve(count) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "count", "to": 1, "then": then, "ref": 1})
            receive(socket, 1)
        hooks.ended.get(timeout=20)
    assert order == [Reason.CLIENT_CLOSED]


def test_a_stream_is_no_silence(serve: Serve) -> None:
    @listener("/")
    async def slow(data: Count) -> AsyncGenerator[Number, None]:
        for number in range(data.to):
            await asyncio.sleep(0.1)
            yield Number(number)

    with serve(slow, idle_seconds=0.3) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 10, "ref": 1})
        assert receive(socket, 11)[-1]["type"] == "end"


def test_a_listener_class_streams(serve: Serve) -> None:
    class Counter(Listener):
        path = "/"

        async def on_receive(self, data: Count) -> AsyncGenerator[Number, None]:
            for number in range(data.to):
                yield Number(number)

    with serve(Counter) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "count", "to": 1, "ref": "a"})
        assert [each["type"] for each in receive(socket, 2)] == ["number", "end"]


def test_a_hook_that_takes_too_long_is_left(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def stubborn(data: Count) -> AsyncGenerator[Number, None]:
        try:
            yield Number(0)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(30)

    with serve(stubborn, hook_seconds=0.2) as client:
        with client.websocket_connect("/") as socket:
            socket.send_json({"type": "count", "to": 1, "ref": "a"})
            receive(socket, 1)
        _, cause = hooks.ended.get(timeout=20)
        assert isinstance(cause, Cause)


def test_what_cannot_stream_is_refused_at_start() -> None:
    with pytest.raises(ConfigurationError, match="without an annotation of their type"):

        @listener("/")
        async def unannotated(data: Count):  # type: ignore[no-untyped-def]
            yield Number(0)

    with pytest.raises(ConfigurationError, match="without an annotation of their type"):

        @listener("/")
        async def of_anything(data: Count) -> typing.AsyncGenerator:  # type: ignore[type-arg]
            yield Number(0)

    with pytest.raises(ConfigurationError, match="concurrency=2"):

        @listener("/", concurrency=2)
        async def concurrent(data: Count) -> AsyncGenerator[Number, None]:
            yield Number(0)
