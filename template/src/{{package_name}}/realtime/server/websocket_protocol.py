"""uvicorn's WebSocket protocol, with bounds on a slow consumer, close codes that arrive, and a fast path for messages.

By itself uvicorn waits without end for a client to read what was sent before it closes. For uvicorn 0.54 and
websockets 17.
"""

import asyncio
from typing import Any, Final

import structlog
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode

from ..sessions.frames import EXTENSION, TEXT, text_frame
from ..sessions.session import SESSION_KEY, Session
from ..settings import CoreSettings

try:
    from websockets.speedups import apply_mask
except ImportError:  # where there is no compiled one for the platform
    from websockets.utils import apply_mask

log = structlog.get_logger(__name__)

MESSAGES: Final = frozenset((TEXT, 0x80 | Opcode.BINARY))
"""The first bytes of a frame that is a whole message (RFC 6455, 5.2)."""

OPCODES: Final = frozenset(map(int, Opcode))
"""The opcodes that there are, in the lower half of the first byte."""

MASKED: Final = 0x80
"""The bit of a masked payload in the second byte; every frame of a client has it."""

MAX_WRITE_BYTES: Final = 65536
"""Bytes of answers that are written together."""

TOO_SLOW: Final = "too slow"


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, with bounds on a slow consumer and on its end, and a fast path for whole messages.

    uvicorn lets a send wait while unread data fills the buffer: for ever, if the client never reads. And it closes no
    connection before the buffer is empty. So a timer runs while the buffer is full, after which the client is closed
    with 1013, and what is left after the end is dropped after a while. A client that keeps up costs nothing.

    Most frames are whole messages. They are read and written here. All others go to the parser of `websockets`, one
    whole frame after the other, so that it never waits in the middle of one: fragments, control frames, compressed
    messages, and whatever is wrong, which it answers. The tests of the template compare it with uvicorn's own.

    It is the `FrameWriter` of the ASGI extension in `sessions/frames.py`.

    Args:
        settings: The limits.
        options: Those of uvicorn's protocol.
    """

    def __init__(self, *, settings: CoreSettings, **options: Any) -> None:
        super().__init__(**options)
        self.queue: Any = EventQueue(self.loop)
        self._settings = settings
        self._overdue: asyncio.TimerHandle | None = None
        """Runs while a send waits for the client."""
        self._reads_frames = False
        """Frames are read here first; not before the accept, and not after the end."""
        self._rest: bytearray | None = None
        """The beginning of a frame that is not complete, or what came before the accept."""
        self._unsent: bytearray | None = None
        """Frames that are written together, while the handler works through messages that came together."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=self._settings.max_pending_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unsent = None
        self._cancel_overdue()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._settings.send_seconds:
            self._overdue = self.loop.call_later(self._settings.send_seconds, self._close_slow_consumer)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_overdue()

    def data_received(self, data: bytes) -> None:
        if self._reads_frames:
            busy = not self.queue.empty()
            self._read_frames(data)
            if busy and not self.read_paused and not self.close_sent:
                self.read_paused = True  # until the handler has taken what came before this
                self.transport.pause_reading()
        elif self.handshake_initiated and not self.handshake_complete:
            self._rest = (self._rest or bytearray()) + data  # the parser would answer it before the handshake
            self.transport.pause_reading()
        elif self.conn.parser_exc is None:  # else it has failed, and what follows is ignored (RFC 6455, 7.1.7)
            super().data_received(data)
            if not self.handshake_initiated:  # headers too long or too many, which uvicorn would leave unanswered
                answer = b"".join(self.conn.data_to_send())
                status = int(answer[9:12]) if answer else 0
                client, detail = self.client[0] if self.client else "", "a header is too long, or cannot be read"
                log.warning("handshake refused", client=client, reason="head", status=status, detail=detail)
                self.transport.write(answer)
                self.transport.close()

    def _read_frames(self, data: bytes | bytearray) -> None:
        """Queue each message in one frame, give each other frame to the parser, and keep what is not complete."""
        if self._rest:
            self._rest += data
            data, self._rest = self._rest, None
        limit = self.conn.max_message_size
        at, end = 0, len(data)
        while end - at >= 2:
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
                break
            if first in MESSAGES and begun is None:
                payload = apply_mask(data[begin : begin + size], data[begin - 4 : begin])
                if not self._receive(first, payload):
                    self._end_reading(data[at : begin + size])
                    return
            else:
                super().data_received(bytes(data[at : begin + size]))
                if self.conn.eof_sent:  # it was a close, or wrong
                    self._end_reading(data[begin + size :])
                    return
            at = begin + size
        if at < end:
            self._rest = bytearray(data[at:])

    def _receive(self, first: int, payload: bytes) -> bool:
        """Queue a message; return False where it is not UTF-8."""
        event: ASGIReceiveEvent
        if first == TEXT:
            try:
                event = {"type": "websocket.receive", "text": payload.decode()}
            except UnicodeDecodeError:
                return False
        else:
            event = {"type": "websocket.receive", "bytes": payload}
        if not self.close_sent:
            self.queue.put_nowait(event)
        return True

    def _end_reading(self, data: bytes | bytearray) -> None:
        self._reads_frames = False
        if data and self.conn.parser_exc is None:
            super().data_received(bytes(data))

    def handle_parser_exception(self) -> None:
        """Fail the connection: too big (1009), not UTF-8 (1007), no frame (1002).

        Closing while bytes wait to be read resets the connection, and the client never sees the code. So only this side
        is closed at first, and what still arrives is dropped, until the client closes or is aborted.
        """
        self._write_unsent()
        close: Any = self.conn.close_sent  # never None when this is called
        self.conn.fail(close.code)  # else it would go on to parse after text that is not UTF-8
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def handle_close(self, event: Frame) -> None:
        self._write_unsent()
        super().handle_close(event)

    def handle_ping(self) -> None:
        if self.close_sent or not self.writable.is_set():
            self.conn.data_to_send()  # dropped: pongs for a client that pings and does not read would have no bound
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

    def write_frames(self, frames: bytes) -> None:
        if self._unsent:
            self._unsent += frames
            if self.queue.empty() or len(self._unsent) > MAX_WRITE_BYTES:
                self._write_unsent()
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
            await asyncio.sleep(0)  # else a handler that only sends would never let `connection_lost` run
        await super().send(message)
        if message["type"] == "websocket.accept":
            del self.request, self.response  # not needed any more, and kept for as long as the connection lasts
            self._reads_frames = self.takes_frames
            if self._rest:
                self.transport.resume_reading()
                self.data_received(b"")

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
        self._write_unsent()
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # a peer that answers no ping does not read the rest

    def shutdown(self) -> None:
        self._write_unsent()
        super().shutdown()
        self._abort_in((self.config.timeout_graceful_shutdown or 0) / 2)

    @property
    def _linger_seconds(self) -> float:
        """Seconds in which the client may read the rest after the end."""
        return self._settings.send_seconds or self.close_timeout

    def _abort_in(self, seconds: float) -> None:
        self.ping_timer = self.loop.call_later(seconds, self.transport.abort)  # `connection_lost` cancels it

    def _cancel_overdue(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _close_slow_consumer(self) -> None:
        """Close with 1013, behind all that is unread; each send that waits ends as if the client were gone."""
        self._overdue = None
        session: Session | None = self.scope.get("state", {}).get(SESSION_KEY)
        code = session.close_slow_consumer().code if session else CloseCode.TRY_AGAIN_LATER
        self.disconnected = True
        self.writable.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": TOO_SLOW})
        if self.close_sent or self.transport.is_closing():
            return
        self.stop_keepalive()
        self._write_unsent()
        self.conn.send_close(CloseCode.TRY_AGAIN_LATER, TOO_SLOW)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self._linger_seconds, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()  # for the close frame with which the client answers


class EventQueue:
    """The ASGI events of one connection that wait for its task.

    It is a queue for one reader, in the place of uvicorn's `asyncio.Queue`, at a third of its cost. It has two lists,
    because an empty deque takes a kibibyte. New events are appended to one; the reader pops from the other, which is in
    reverse order.
    """

    __slots__ = ("_arrived", "_loop", "_reversed", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: list[ASGIReceiveEvent] = []
        self._reversed: list[ASGIReceiveEvent] = []
        self._waiter: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        """Return whether no event waits."""
        return not (self._arrived or self._reversed)

    def put_nowait(self, event: ASGIReceiveEvent) -> None:
        """Append an event."""
        self._arrived.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> ASGIReceiveEvent:
        """Take the next event.

        Raises:
            RuntimeError: Another task waits for it already; each event would reach only one of the two.
        """
        if self._reversed:
            return self._reversed.pop()
        if not self._arrived:
            if self._waiter is not None:
                raise RuntimeError("two tasks receive from one socket: let one receive, and hand on what it gets")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._arrived, self._reversed = self._reversed, self._arrived
        self._reversed.reverse()
        return self._reversed.pop()
