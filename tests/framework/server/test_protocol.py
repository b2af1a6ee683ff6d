"""The protocol of a WebSocket by itself, with a transport that records: what is read when, and how it ends."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
import uvicorn
from litestar.types import Receive, ReceiveMessage, Send
from uvicorn.server import ServerState

from my_service.realtime.server.http_protocol import HttpProtocol, TcpLimits
from my_service.realtime.server.websocket_protocol import (
    MAX_FRAGMENTS,
    MAX_FRAMES_AT_ONCE,
    MAX_WRITE_BYTES,
    OFFENDER_CLOSE_SECONDS,
    READ_AHEAD_BYTES,
    WebSocketProtocol,
)
from my_service.realtime.testing import TIMEOUT
from my_service.settings import Settings

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A frame of a client, masked with zeros (RFC 6455, 5.2)."""
    head, size = bytes([last << 7 | opcode]), len(payload)
    if size < 126:
        return head + struct.pack("!BI", 0x80 | size, 0) + payload
    if size < 65536:
        return head + struct.pack("!BHI", 0x80 | 126, size, 0) + payload
    return head + struct.pack("!BQI", 0x80 | 127, size, 0) + payload


class Transport(asyncio.Transport):
    """A transport that keeps what is written, and knows whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.paused = self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def echo(receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send(cast("Any", event) | {"type": "websocket.send"})


Application = Callable[[Receive, Send], Awaitable[None]]


class Connection:
    """A protocol between a transport that records and an application."""

    def __init__(self, application: Application, **settings: Any) -> None:
        async def app(_: object, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await application(receive, send)

        self.settings = Settings(**settings)
        config = uvicorn.Config(
            cast("Any", app),
            lifespan="off",
            log_config=None,
            ws_max_size=self.settings.max_message_size,
            ws_ping_interval=self.settings.ping_interval,
            ws_ping_timeout=self.settings.ping_timeout,
            ws_per_message_deflate=False,
        )
        config.load()
        self.transport = Transport()
        self.protocol = WebSocketProtocol(
            settings=self.settings, config=config, server_state=ServerState(), app_state={}
        )

    async def open(self) -> None:
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(HANDSHAKE)
        await until(lambda: self.protocol.handshake_complete)
        self.transport.written.clear()

    def receive(self, data: bytes) -> None:
        assert not self.transport.paused
        self.protocol.data_received(data)

    async def run_callbacks(self) -> None:
        """Let the application do all that it can."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def lose(self) -> None:
        if self.protocol in self.protocol.connections:
            self.protocol.connection_lost(None)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*self.protocol.tasks)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110  # the protocol has callbacks, not events
            await asyncio.sleep(0)


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, TIMEOUT))


def test_a_disconnect_is_told_while_the_handler_is_busy_with_earlier_messages() -> None:
    async def scene() -> None:
        free = asyncio.Event()
        told: list[ReceiveMessage] = []

        async def busy(receive: Receive, _: Send) -> None:
            await receive()
            await free.wait()

        connection = Connection(busy)
        await connection.open()
        connection.protocol.notify_disconnect(told.append)
        for _ in range(10):
            connection.receive(frame(TEXT, b"hi"))
            await connection.run_callbacks()
        assert told == []
        connection.receive(frame(CLOSE, b"\x0f\xa1bye"))
        assert told == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]
        late: list[ReceiveMessage] = []
        connection.protocol.notify_disconnect(late.append)
        assert late == told
        free.set()
        await connection.lose()
        assert len(told) == 1

    play(scene())


def test_frames_that_are_held_are_written_together_in_the_next_turn() -> None:
    async def scene() -> None:
        async def busy(receive: Receive, _: Send) -> None:
            await receive()

        connection = Connection(busy)
        await connection.open()
        protocol, written = connection.protocol, connection.transport.written
        protocol.write_frames(b"1")
        protocol.hold_frames()
        protocol.write_frames(b"2")
        protocol.write_frames(b"3")
        assert written == b"1"
        await asyncio.sleep(0)
        assert written == b"123"
        protocol.write_frames(b"4")
        assert written == b"1234"
        protocol.hold_frames()
        protocol.write_frames(b"5")
        protocol.write_frames(bytes(MAX_WRITE_BYTES))
        assert len(written) > MAX_WRITE_BYTES, "no more wait"
        await connection.lose()

    play(scene())


def test_reading_pauses_beyond_the_window_and_goes_on_when_it_is_taken_over() -> None:
    async def scene() -> None:
        free = asyncio.Event()
        received: list[Any] = []

        async def slow(receive: Receive, _: Send) -> None:
            received.append(await receive())
            await free.wait()
            while received[-1]["type"] == "websocket.receive":
                received.append(await receive())

        connection = Connection(slow)
        await connection.open()
        sent = 0
        while not connection.transport.paused:
            connection.receive(frame(TEXT, b"x" * 1000))
            sent += 1
            await connection.run_callbacks()
        assert READ_AHEAD_BYTES < sent * 1300 < 2 * READ_AHEAD_BYTES
        free.set()
        await connection.run_callbacks()
        assert not connection.transport.paused
        connection.receive(frame(CLOSE))
        await connection.lose()
        assert len(received) == sent + 1

    play(scene())


def test_a_busy_handler_with_a_full_window_does_not_get_a_living_client_killed() -> None:
    async def scene() -> None:
        free = asyncio.Event()

        async def busy(receive: Receive, _: Send) -> None:
            await receive()
            await free.wait()
            while (await receive())["type"] == "websocket.receive":
                pass

        connection = Connection(busy, ping_interval=0.02, ping_timeout=0.02)
        await connection.open()
        while not connection.transport.paused:
            connection.receive(frame(TEXT, b"x" * 60_000))
            await connection.run_callbacks()
        await until(lambda: bool(connection.transport.written))  # the ping
        _, size, *payload = bytes(connection.transport.written)
        deadline = connection.protocol.pong_timer
        await until(lambda: connection.protocol.pong_timer is not deadline)  # it is due, and waits anew
        assert not connection.transport.closed
        free.set()
        await connection.run_callbacks()
        connection.receive(frame(PONG, bytes(payload[:size])))
        assert connection.protocol.pong_timer is None
        assert not connection.transport.closed
        await connection.lose()

    play(scene())


BEGUN = frame(TEXT, last=False)
NO_MESSAGES = {
    "pings": (b"", frame(PING)),
    "pongs": (b"", frame(PONG)),
    "empty fragments": (BEGUN, frame(CONTINUATION, last=False)),
    "fragments": (BEGUN, frame(CONTINUATION, b"x", last=False)),
}


@pytest.mark.parametrize(("before", "after", "answer"), [(PING, TEXT, 0x8A), (TEXT, TEXT, 0x81), (PING, CLOSE, 0x8A)])
def test_so_many_frames_are_read_in_one_turn_of_the_loop_and_the_others_later(
    before: int, after: int, answer: int
) -> None:
    async def scene() -> None:
        connection = Connection(echo, max_frames_per_second=0)
        await connection.open()
        connection.receive(frame(before) * (3 * MAX_FRAMES_AT_ONCE) + frame(after))
        assert connection.transport.paused
        for turns in range(1, 4):
            assert connection.transport.written.count(answer) <= turns * MAX_FRAMES_AT_ONCE
            await asyncio.sleep(0)
        await until(lambda: connection.transport.closed or not connection.transport.paused)
        await connection.run_callbacks()
        assert connection.transport.written.count(answer) == 3 * MAX_FRAMES_AT_ONCE + (after == before)
        await connection.lose()

    play(scene())


@pytest.mark.parametrize(("first", "again"), NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_frames_that_are_no_message_have_a_rate(first: bytes, again: bytes) -> None:
    async def scene() -> None:
        connection = Connection(echo, max_frames_per_second=1, max_messages_per_second=0)
        await connection.open()
        connection.receive(first + again * 9 + frame(TEXT, b"hi") * (not first))
        await connection.run_callbacks()
        assert not connection.protocol.close_sent
        connection.receive(again * 10)
        assert connection.transport.written.endswith(b"\x03\xf0too many frames")  # 1008
        timer = connection.protocol.close_timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() <= OFFENDER_CLOSE_SECONDS
        await connection.lose()

    play(scene())


def test_a_message_has_so_many_fragments_and_no_more() -> None:
    async def scene() -> None:
        connection = Connection(echo, max_frames_per_second=0)
        await connection.open()
        connection.receive(BEGUN)
        for _ in range(MAX_FRAGMENTS + 1):
            connection.receive(frame(CONTINUATION, last=False))
        assert connection.transport.written.endswith(b"\x03\xf1too many fragments")  # 1009
        await connection.lose()

    play(scene())


@pytest.mark.parametrize("begun", [frame(TEXT, b"hello")[:-1], BEGUN, frame(TEXT, b"hi") + b"\x81"])
def test_a_message_that_takes_too_long_is_1008(begun: bytes) -> None:
    async def scene() -> None:
        connection = Connection(echo, message_seconds=0.05)
        await connection.open()
        connection.receive(begun)
        await until(lambda: connection.protocol.close_sent)
        assert connection.transport.written.endswith(b"\x03\xf0a message took too long")
        await connection.lose()

    play(scene())


def test_the_time_of_a_message_begins_with_it() -> None:
    async def scene() -> None:
        connection = Connection(echo, message_seconds=1, max_messages_per_second=0)
        await connection.open()
        loop = asyncio.get_running_loop()
        end, whole = loop.time() + 1.5, frame(TEXT, b"hello")
        connection.receive(whole[:3])
        while loop.time() < end:  # there is always one that is not complete, and never the same
            connection.receive(whole[3:] + whole[:3])
            await connection.run_callbacks()
        assert not connection.protocol.close_sent
        await connection.lose()

    play(scene())


def test_after_our_close_nothing_is_looked_at_but_a_close() -> None:
    async def scene() -> None:
        received: list[str] = []

        async def close(receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "enough"})
            while received[-1:] != ["websocket.disconnect"]:
                received.append((await receive())["type"])

        connection = Connection(close)
        await connection.open()
        connection.receive(frame(TEXT, b"hi"))
        await connection.run_callbacks()
        closed = b"\x88\x08\x03\xf0enough"
        assert connection.transport.written == closed
        timer = connection.protocol.close_timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() <= OFFENDER_CLOSE_SECONDS
        connection.receive(frame(TEXT, b"hi") + frame(PING) + BEGUN + frame(PONG) + frame(TEXT, b"\xff"))
        connection.receive(frame(CLOSE, b"\x03\xf0")[:5])
        await connection.run_callbacks()
        assert connection.transport.written == closed
        assert not connection.transport.closed
        connection.receive(frame(CLOSE, b"\x03\xf0")[5:])
        assert connection.transport.closed
        assert received == ["websocket.disconnect"]
        freed: list[bool] = []
        connection.protocol.notify_closed(lambda: freed.append(True))
        assert not freed
        await connection.lose()
        connection.protocol.notify_closed(lambda: freed.append(True))
        assert len(freed) == 2

    play(scene())


def test_a_large_message_is_gathered_in_one_buffer() -> None:
    async def scene() -> None:
        size = 8 << 20
        lengths: list[int] = []

        async def measure(receive: Receive, _: Send) -> None:
            lengths.append(len(cast("Any", await receive())["text"]))

        connection = Connection(measure, max_message_size=size)
        await connection.open()
        wire = frame(TEXT, b"x" * size)
        buffers: set[int] = set()
        for at in range(0, len(wire), 65536):
            connection.receive(wire[at : at + 65536])
            buffers.add(id(connection.protocol._rest))  # pyright: ignore[reportPrivateUsage]
        await connection.run_callbacks()
        assert lengths == [size]
        assert len(buffers) <= 3  # no copy for each segment
        await connection.lose()

    play(scene())


@pytest.mark.parametrize("closes", [False, True])
def test_an_http_answer_that_is_not_read_ends_the_connection(closes: bool) -> None:
    class Stuck(Transport):
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def answer(_: object, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi", "more_body": False})

    async def scene() -> None:
        config = uvicorn.Config(cast("Any", answer), lifespan="off", log_config=None)
        config.load()
        settings = Settings(send_seconds=0.02)
        protocol = HttpProtocol(
            settings=settings,
            tcp_limits=TcpLimits(0, 1024, lambda _: False),
            config=config,
            server_state=ServerState(),
            app_state={},
        )
        transport = Stuck()
        protocol.connection_made(transport)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"Connection: close\r\n" * closes + b"\r\n")
        if not closes:
            protocol.pause_writing()
        await until(lambda: transport.aborted)
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)

    play(scene())
