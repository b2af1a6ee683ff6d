"""uvicorn's WebSocket protocol, with limits on sent and unread data, and a fast path for messages.

uvicorn itself waits without limit for a client to read all data before it closes a connection. For uvicorn 0.54 and
websockets 17.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import structlog
from litestar.types import ReceiveMessage
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHeader
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol

from ..sessions.fast_path import EXTENSION, TEXT, text_frame
from ..sessions.runtime import TokenBucket
from ..sessions.session import SESSION_KEY, Session
from ..settings import CoreSettings
from .http_protocol import plain

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled version for the platform
    from websockets.utils import apply_mask

log = structlog.get_logger(__name__)

MESSAGES: Final = frozenset((TEXT, 0x80 | Opcode.BINARY))
"""The first bytes of a frame that is a whole message (RFC 6455, 5.2)."""

OPCODES: Final = frozenset(map(int, Opcode))
"""The valid opcodes, in the lower half of the first byte."""

MASKED: Final = 0x80
"""The bit of a masked payload in the second byte; every frame of a client has it."""

MAX_WRITE_BYTES: Final = 65536
"""Maximum bytes of answers that are written together."""

READ_AHEAD_BYTES: Final = 65536
"""Bytes of messages that are read ahead of the handler. Further data stays in the kernel, which slows the client."""

EVENT_BYTES: Final = 256
"""Bytes that a queued message takes in addition to its payload."""

MAX_FRAMES_AT_ONCE: Final = 64
"""Frames of one connection that are read in one turn of the event loop, so that other connections are not delayed."""

MAX_FRAGMENTS: Final = 1024
"""Fragments of one message; more if the largest message, in fragments of MIN_FRAGMENT_BYTES each, has more."""

MIN_FRAGMENT_BYTES: Final = 64

BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
"""The answer to requests that `websockets` can neither read nor answer, such as a handshake with a body."""

CLOSE_SECONDS: Final = 5.0
"""Seconds to wait for the client's close frame after ours. Its other frames are ignored."""

OFFENDER_CLOSE_SECONDS: Final = 1.0
"""As CLOSE_SECONDS, for a client that broke the protocol or exceeded a limit."""

WRITABLE: Final = asyncio.Event()
"""A set event, shared by all connections that never had to wait: an event for each would take a kibibyte."""
WRITABLE.set()


class FrameProtocol(ServerProtocol):
    """The parser of `websockets`, whose refusal of a handshake names what is wrong and quotes nothing of it."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        if isinstance(self.handshake_exc, InvalidHeader):
            text = f"the header {self.handshake_exc.name} is missing or wrong"
        response = super().reject(status, text)
        response.headers["Sec-WebSocket-Version"] = "13"  # what would be right (RFC 6455, 4.4)
        return response


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, with limits on sent and unread data and on the time to close, and a fast path for whole messages.

    Few frames are read in one turn of the event loop, and the rate of frames that are not messages is limited. After
    the service has sent a close frame, only the client's close frame is read.

    In uvicorn, a send waits while unread data fills the buffer, without limit if the client never reads, and a
    connection is closed only when the buffer is empty. Here a timer runs while the buffer is full and then closes the
    connection with 1013; unread data is dropped some time after the end. Clients that keep up need no timer.

    Most frames are whole messages and are read and written here. Fragments, control frames, compressed messages and
    invalid frames go to the parser of `websockets`, one whole frame at a time, so the parser never waits within a
    frame. The parser answers invalid frames. The tests of the template compare the result with uvicorn's protocol.

    It is the `FrameWriter` of the ASGI extension in `sessions/fast_path.py`.

    Args:
        settings: The limits.
        options: The options of uvicorn's protocol.
    """

    def __init__(self, *, settings: CoreSettings, **options: Any) -> None:
        super().__init__(**options)
        self.conn.__class__ = FrameProtocol  # uvicorn makes it
        self.queue: Any = EventQueue(self.loop)
        self.writable = WRITABLE
        self.close_timeout = CLOSE_SECONDS
        self._settings = settings
        self._on_closed: Callable[[], None] | None = None
        self._overdue: asyncio.TimerHandle | None = None
        """The timer that runs while a send waits for the client."""
        self._reads_frames = False
        """Whether frames are read here first: after the accept and before the end."""
        self._rest: bytearray | None = None
        """Unread data: from before the accept, for a later turn of the loop, or of an incomplete frame."""
        self._needed = 0
        """Minimum bytes that `_rest` needs for a complete frame."""
        self._reads_on = False
        """Whether reading continues in the next turn of the loop."""
        self._frame_limit: TokenBucket | None = None
        """The limit on frames that are not messages; None before the first one."""
        self._message_timer: asyncio.TimerHandle | None = None
        """The timer that runs while a message is incomplete."""
        self._holds = False
        """Whether writes wait for the next turn of the loop."""
        self._unsent: bytearray | None = None
        """Frames to write together, while the handler works through messages that arrived together."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.client, self.server = plain(self.client), plain(self.server)
        self.transport.set_write_buffer_limits(high=self._settings.max_pending_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unsent = self._rest = None
        if self._overdue is not None:
            self._overdue.cancel()
        self._end_message()
        super().connection_lost(exc)
        if self._on_closed is not None:
            self._on_closed()

    def pause_writing(self) -> None:
        self.writable = asyncio.Event()
        if self._settings.send_seconds:
            limit = "send_seconds", CloseCode.TRY_AGAIN_LATER, "too slow"
            self._overdue = self.loop.call_later(self._settings.send_seconds, self._close_for_limit, *limit)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._overdue is not None:
            self._overdue.cancel()

    def data_received(self, data: bytes | bytearray) -> None:
        if self._reads_frames:
            if self._rest is not None:
                self._rest += data
                if len(self._rest) < self._needed:
                    return
                data, self._rest = self._rest, None
            self._read_frames(data)
            if self.queue.unread > READ_AHEAD_BYTES and self._reads_frames and not self.close_sent:
                self._pause_reading()
        elif self.handshake_initiated and not self.handshake_complete:
            self._rest = (self._rest or bytearray()) + data  # the parser would answer it before the handshake
            self.transport.pause_reading()
        elif not self.handshake_initiated:  # otherwise it has ended, and further data is ignored (RFC 6455, 7.1.7)
            super().data_received(bytes(data))
            if self.handshake_initiated:
                status = self.response.status_code
            else:  # too long, too many, or with a body: uvicorn would leave it unanswered
                answer = b"".join(self.conn.data_to_send()) or BAD_REQUEST
                status = int(answer[9:12])
                self.transport.write(answer)
                self.transport.close()
            if status != HTTPStatus.SWITCHING_PROTOCOLS:
                client, detail = self.client[0] if self.client else "", "the head is too long, or is wrong"
                log.warning("handshake rejected", client=client, reason="head", status=status, detail=detail)

    def _read_frames(self, data: bytes | bytearray) -> None:
        """Queue each whole message, pass each other frame to the parser, and keep an incomplete frame."""
        limit = self.conn.max_message_size
        at, end, needed, left = 0, len(data), 0, MAX_FRAMES_AT_ONCE
        while end - at >= 2:
            if not left:
                self._pause_reading()
                self._read_on_soon()
                break
            left -= 1
            first, size = data[at], data[at + 1] - MASKED
            begin = at + 6  # of the payload: there are two bytes before the mask, and four in it
            if size > 125:
                begin += 2 if size == 126 else 8
                if end < begin - 4:
                    break
                size = int.from_bytes(data[at + 2 : begin - 4], "big")
            begun = self.conn.current_size  # bytes so far of a message in fragments
            if size < 0 or (limit is not None and size > limit - (begun or 0)) or first & 0x0F not in OPCODES:
                self._end_reading(data[at:])  # the parser answers what is wrong, without the rest of the frame
                return
            if end < begin + size:
                needed = begin + size - at
                break
            if self.close_sent:
                if first & 0x0F == Opcode.CLOSE:
                    self.transport.close()
                    return
            elif first in MESSAGES and begun is None:
                payload = apply_mask(data[begin : begin + size], data[begin - 4 : begin])
                if not self._receive(first, payload):
                    self._end_reading(data[at : begin + size])
                    return
            else:
                if not self._allows(first):
                    self._end_reading(b"")
                    return
                super().data_received(bytes(data[at : begin + size]))
                if self.conn.eof_sent:  # it was a close, or wrong
                    self._end_reading(data[begin + size :])
                    return
            at = begin + size
        between = self.conn.current_size is None  # no message in fragments has begun
        if at and between:
            self._end_message()
        if at < end:
            self._needed = needed
            if isinstance(data, bytearray):
                del data[:at]  # without a copy
                self._rest = data
            else:
                self._rest = bytearray(data[at:])
        elif between:
            return
        if self._message_timer is None and self._settings.message_seconds:
            self._message_timer = self.loop.call_later(self._settings.message_seconds, self._check_time)

    def _pause_reading(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _read_on_soon(self) -> None:
        if not self._reads_on:
            self._reads_on = True
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Read the data that was left for this turn of the loop, and resume reading from the transport."""
        self._reads_on = False
        if self.transport.is_closing() or (self.queue.unread > READ_AHEAD_BYTES and not self.close_sent):
            return
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self._rest is not None and self._reads_frames:
            self.data_received(b"")

    def _allows(self, first: int) -> bool:
        """Count a frame that is not a whole message; close the connection if there are too many."""
        if first & 0x8F in MESSAGES:  # it is compressed
            return True
        if self._frame_limit is None:
            self._frame_limit = TokenBucket(self._settings.max_frames_per_second)
        if not self._frame_limit.allows(monotonic()):
            self._close_for_limit("max_frames_per_second", CloseCode.POLICY_VIOLATION, "too many frames")
            return False
        if len(self.frames) > max(MAX_FRAGMENTS, self._settings.max_message_size // MIN_FRAGMENT_BYTES):
            self._close_for_limit("max_message_size", CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return False
        return True

    def _end_message(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _check_time(self) -> None:
        self._message_timer = None
        if self.read_paused:  # the rest may be here, unread
            self._message_timer = self.loop.call_later(self._settings.message_seconds, self._check_time)
        elif not self.close_sent:
            self._close_for_limit("message_seconds", CloseCode.POLICY_VIOLATION, "a message took too long")

    def _receive(self, first: int, payload: bytes) -> bool:
        """Queue a message; return False if it is not UTF-8."""
        event: ASGIReceiveEvent
        if first == TEXT:
            try:
                event = {"type": "websocket.receive", "text": payload.decode()}
            except UnicodeDecodeError:
                return False
        else:
            event = {"type": "websocket.receive", "bytes": payload}
        self.queue.put_nowait(event, len(payload) + EVENT_BYTES)
        return True

    def send_receive_event_to_app(self) -> None:
        """Queue a message in fragments, or a compressed one."""
        frames, self.frames = self.frames, []
        self._end_message()
        if not self._receive(TEXT if self.curr_msg_data_type == "text" else 0, b"".join(frames)):
            self.conn.send_close(int(CloseCode.INVALID_DATA))
            self.handle_parser_exception()

    async def receive(self) -> ASGIReceiveEvent:
        event: ASGIReceiveEvent = await self.queue.get()
        if self.read_paused and not self.queue.unread:
            self._read_on_soon()
            if self.pong_timer is not None:  # the pong may wait behind what was not read
                self.pong_timer.cancel()
                self._wait_for_pong()
        return event

    def notify_disconnect(self, callback: Callable[[ReceiveMessage], None]) -> None:
        self.queue.notify_disconnect(callback)

    def notify_closed(self, callback: Callable[[], None]) -> None:
        if self in self.connections:
            self._on_closed = callback
        else:
            callback()

    def _end_reading(self, data: bytes | bytearray) -> None:
        self._reads_frames = False
        if data and self.conn.parser_exc is None and not self.close_sent:
            super().data_received(bytes(data))

    def handle_parser_exception(self) -> None:
        """Fail the connection: too big (1009), not UTF-8 (1007), no frame (1002).

        Closing while bytes wait to be read resets the connection, and the client never sees the code. So only this side
        is closed at first, and what still arrives is dropped, until the client closes or is aborted.
        """
        self._write_unsent()
        close: Any = self.conn.close_sent  # never None when this is called
        self.conn.fail(close.code)  # else it would go on to parse after text that is not UTF-8
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code})
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.read_paused = False
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(OFFENDER_CLOSE_SECONDS, self.transport.abort)

    def handle_close(self, event: Frame) -> None:
        self._write_unsent()
        super().handle_close(event)

    def handle_ping(self) -> None:
        if self.close_sent or not self.writable.is_set():
            self.conn.data_to_send()  # dropped: pongs for a client that pings and does not read would be unbounded
        else:
            super().handle_ping()

    @property
    def compresses(self) -> bool:
        return bool(self.conn.extensions)

    @property
    def takes_frames(self) -> bool:
        return (
            self.handshake_complete
            and self.writable.is_set()
            and not (self.close_sent or self.disconnected or self.transport.is_closing())
        )

    def hold_frames(self) -> None:
        self._holds = True
        self.loop.call_soon(self._release)

    def _release(self) -> None:
        self._holds = False
        self._write_unsent()

    def write_frames(self, frames: bytes) -> None:
        if self._unsent:
            self._unsent += frames
            if (self.queue.empty() and not self._holds) or len(self._unsent) > MAX_WRITE_BYTES:
                self._write_unsent()
        elif self._holds:
            self._unsent = bytearray(frames)
        elif self.queue.empty():
            self.transport.write(frames)
        else:
            self._unsent = bytearray(frames)
            self.loop.call_soon(self._write_unsent)  # the handler may wait for something else

    def _write_unsent(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, None
            self.transport.write(unsent)

    async def send(self, message: ASGISendEvent) -> None:
        self._write_unsent()
        if message["type"] == "websocket.send" and self.takes_frames and not self.compresses:
            text = message.get("text")
            if text is not None and message.get("bytes") is None:
                self.transport.write(text_frame(text.encode()))
                return
        if self.transport.is_closing():
            await asyncio.sleep(0)  # otherwise a handler that only sends would never let `connection_lost` run
        if message.get("code") == CloseCode.POLICY_VIOLATION:
            self.close_timeout = OFFENDER_CLOSE_SECONDS
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.request.headers.clear()  # the parser keeps them for as long as the connection lasts
            del self.request, self.response
            self._reads_frames = self.handshake_complete and not (self.close_sent or self.disconnected)
            if self._rest:
                self.transport.resume_reading()
                self.data_received(b"")
        elif message["type"] == "websocket.close":
            self._read_on_soon()  # for the close frame of the client

    async def run_asgi(self) -> None:
        self.scope.setdefault("extensions", {})[EXTENSION] = {"writer": self}
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._linger_seconds, self.transport.abort)

    def send_keepalive_ping(self) -> None:
        if self.close_sent or self.transport.is_closing():
            self._abort_in(self.ping_timeout or 0)
        else:
            super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        if self.read_paused and self.writable.is_set():
            self._wait_for_pong()  # it cannot be read while the handler is busy; the client may be alive
            return
        self._write_unsent()
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # a peer that does not answer pings does not read the rest either

    def _wait_for_pong(self) -> None:
        self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)

    def shutdown(self) -> None:
        self._write_unsent()
        super().shutdown()
        self._abort_in((self.config.timeout_graceful_shutdown or 0) / 2)

    @property
    def _linger_seconds(self) -> float:
        """Seconds in which the client may read the remaining data after the end."""
        return self._settings.send_seconds or self.close_timeout

    def _abort_in(self, seconds: float) -> None:
        self.ping_timer = self.loop.call_later(seconds, self.transport.abort)  # `connection_lost` cancels it

    def _close_for_limit(self, setting: str, code: int, detail: str) -> None:
        """Close after all unread data is sent; each waiting send ends as if the client had disconnected."""
        session: Session | None = self.scope.get("state", {}).get(SESSION_KEY)
        cause = session.exceed_limit(setting, code) if session else None
        self.disconnected = True
        self.writable.set()
        event: Any = {"type": "websocket.disconnect", "code": cause.code if cause else int(code)}
        self.queue.put_nowait(event)
        if self.close_sent or self.transport.is_closing():
            return
        self.stop_keepalive()
        self._write_unsent()
        self.conn.send_close(code, detail)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        seconds = self._linger_seconds if code == CloseCode.TRY_AGAIN_LATER else OFFENDER_CLOSE_SECONDS
        self.close_timer = self.loop.call_later(seconds, self.transport.abort)
        self._read_on_soon()  # for the close frame of the client


class EventQueue:
    """The queued ASGI events of one connection.

    A queue for one reader, which replaces uvicorn's `asyncio.Queue` at a third of the cost. It is a list, because an
    empty deque takes a kibibyte. It stays short, because reading pauses while READ_AHEAD_BYTES are queued.
    """

    __slots__ = ("_disconnect", "_events", "_loop", "_notify", "_waiter", "unread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: list[ASGIReceiveEvent] = []
        self._waiter: asyncio.Future[None] | None = None
        self._disconnect: Any = None
        self._notify: Callable[[ReceiveMessage], None] | None = None
        self.unread = 0
        """Bytes of the messages that arrived since the queue was last empty."""

    def empty(self) -> bool:
        """Return whether the queue is empty."""
        return not self._events

    def notify_disconnect(self, callback: Callable[[ReceiveMessage], None]) -> None:
        """Call a function once with the disconnect event, as soon as there is one."""
        self._notify = callback
        if self._disconnect is not None:
            callback(self._disconnect)

    def put_nowait(self, event: ASGIReceiveEvent, size: int = 0) -> None:
        """Append an event; a message with its size in bytes."""
        self._events.append(event)
        self.unread += size
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if not size and event["type"] == "websocket.disconnect" and self._disconnect is None:
            self._disconnect = event
            if self._notify:
                self._notify(self._disconnect)

    async def get(self) -> ASGIReceiveEvent:
        """Take the next event.

        Raises:
            RuntimeError: Another task is waiting already; each event would reach only one of the two.
        """
        if not self._events:
            if self._waiter is not None:
                raise RuntimeError("two tasks receive from one socket: let one receive, and hand on what it gets")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.pop(0)
        if not self._events:
            self.unread = 0
        return event
