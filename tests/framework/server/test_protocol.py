"""The protocol of a WebSocket by itself, with a transport that records: what is read when, and how it ends."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import uvicorn
from litestar.types import Receive, ReceiveMessage, Send
from uvicorn.server import ServerState

from my_service.realtime.server.websocket_protocol import READ_AHEAD_BYTES, WebSocketProtocol
from my_service.realtime.testing import TIMEOUT
from my_service.settings import Settings

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


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
        assert self.paused
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


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

    async def settle(self) -> None:
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
            await connection.settle()
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
            await connection.settle()
        assert READ_AHEAD_BYTES < sent * 1300 < 2 * READ_AHEAD_BYTES
        free.set()
        await connection.settle()
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
            await connection.settle()
        await until(lambda: bool(connection.transport.written))  # the ping
        _, size, *payload = bytes(connection.transport.written)
        deadline = connection.protocol.pong_timer
        await until(lambda: connection.protocol.pong_timer is not deadline)  # it is due, and waits anew
        assert not connection.transport.closed
        free.set()
        await connection.settle()
        connection.receive(frame(PONG, bytes(payload[:size])))
        assert connection.protocol.pong_timer is None
        assert not connection.transport.closed
        await connection.lose()

    play(scene())
