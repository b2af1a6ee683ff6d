"""uvicorn's protocols, with bounds on a peer that only waits, each close code delivered, and a short way for messages.

By itself uvicorn waits without end for a request to be complete, and for a peer to read what was sent before it closes.
For uvicorn 0.54 and websockets 17.
"""

import asyncio
from asyncio import Future, TimerHandle, Transport
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from ..sessions.frames import KNOWN, MASKED, MESSAGES, TEXT, apply_mask, text_frame
from ..sessions.session import SESSION_KEY, FrameWriter, Session
from ..settings import CoreSettings

MAX_HEAD_BYTES = 65536
"""Bytes that the first line and the headers of a request may have."""

MAX_WRITE_BYTES = 65536
"""Bytes of answers that are written together."""


class HttpProtocol(HttpToolsProtocol):
    """One TCP connection before its handshake, with a bound on the head of a request, in time and in size."""

    def __init__(self, *, handshake_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._handshake_seconds = handshake_seconds
        self._deadline: TimerHandle | None = None
        self._head = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._head += len(data)
            if self._head > MAX_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        if self._deadline is None:
            self._head = 0
            self._deadline = self.loop.call_later(self._handshake_seconds, self.transport.abort)

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Events:
    """The events of one connection that wait for its task; in the place of an `asyncio.Queue`, which costs thrice.

    Two lists, for an empty deque has a whole kibibyte with its room: what comes goes into one, and what is taken comes
    from the other, which is in the reverse order.
    """

    __slots__ = ("_come", "_loop", "_next", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._come: list[ASGIReceiveEvent] = []
        self._next: list[ASGIReceiveEvent] = []
        self._waiter: Future[None] | None = None

    def empty(self) -> bool:
        return not (self._come or self._next)

    def put_nowait(self, event: ASGIReceiveEvent) -> None:
        self._come.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> ASGIReceiveEvent:
        """Take the next event.

        Raises:
            RuntimeError: Another task waits for it already; each event would reach only one of the two.
        """
        if self._next:
            return self._next.pop()
        if not self._come:
            if self._waiter is not None:
                raise RuntimeError("two tasks receive from one socket: let one receive, and hand on what it gets")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._come, self._next = self._next, self._come
        self._next.reverse()
        return self._next.pop()


class WebSocketProtocol(WebSocketsSansIOProtocol, FrameWriter):
    """One WebSocket, with bounds on a reader that is slow and on its end, and a short way for whole messages.

    uvicorn lets a send wait while what the client has not read fills the buffer: for ever, if it never reads. And it
    closes no connection before the buffer is empty. So a timer runs while the buffer is full, after which the client is
    closed with 1013; and what is left over after the end is dropped after a while. Who keeps up costs nothing.

    Most frames are whole messages. They are read and written here. All others go to the parser of `websockets`, one
    whole frame after the other, so that it never waits in the middle of one: fragments, control frames, all that is
    compressed, and all that is wrong, which it answers. The tests of the template compare it with uvicorn's own.
    """

    def __init__(self, *, settings: CoreSettings, **options: Any) -> None:
        super().__init__(**options)
        self.queue: Any = Events(self.loop)
        self._settings = settings
        self._overdue: TimerHandle | None = None
        self._reads_frames = False
        """Frames are read here first; not before the accept, and not after the end."""
        self._rest: bytearray | None = None
        """The beginning of a frame whose end has not come yet, or what came before the accept."""
        self._unsent: bytearray | None = None
        """Frames that are written together, while the handler works through messages that came together."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=self._settings.max_pending_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unsent = None
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._settings.send_seconds:
            self._overdue = self.loop.call_later(self._settings.send_seconds, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        if self._reads_frames:
            busy = not self.queue.empty()
            self._read_frames(data)
            if busy and not self.read_paused and not self.close_sent:
                self.read_paused = True  # until the handler has taken what came before this
                self.transport.pause_reading()
        elif self.handshake_initiated and not self.handshake_complete:
            self._rest = (self._rest or bytearray()) + data  # the parser would answer it, before the handshake is
            self.transport.pause_reading()
        elif self.conn.parser_exc is None:  # else it has failed, and what follows is not for us (RFC 6455, 7.1.7)
            super().data_received(data)
            if not self.handshake_initiated:  # headers too long or too many; uvicorn would leave it open, unanswered
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.transport.close()

    def _read_frames(self, data: bytes | bytearray) -> None:
        """Hand on each message in whole frames, give each other frame to the parser, and keep what is not whole."""
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
            if size < 0 or (limit is not None and size > limit - (begun or 0)) or first & 0x0F not in KNOWN:
                self._end_reading(data[at:])  # the parser says what is wrong, whatever is still to come
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
        """Hand on a message; False where it is not UTF-8."""
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

        Closing while bytes wait to be read resets the connection, and the client never sees the code. So only our side
        is closed at first, what still comes is thrown away, and the client closes, or is aborted.
        """
        self._write_unsent()
        close: Any = self.conn.close_sent  # never None when this is called
        self.conn.fail(close.code)  # after text that is not UTF-8 it would go on to parse
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
            self.conn.data_to_send()  # dropped: the pongs for a client that pings and does not read have no bound
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
            await asyncio.sleep(0)  # a handler that does nothing but send would never let `connection_lost` run
        await super().send(message)
        if message["type"] == "websocket.accept":
            del self.request, self.response  # nobody asks for them again, and each connection would keep them
            self._reads_frames = self.takes_frames
            if self._rest:
                self.transport.resume_reading()
                self.data_received(b"")

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._patience, self.transport.abort)

    def send_keepalive_ping(self) -> None:
        if self.close_sent or self.transport.is_closing():
            self._abort_in(self.ping_timeout or 0)
        else:
            super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        self._write_unsent()
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # a peer that answers no ping reads no rest

    def shutdown(self) -> None:
        self._write_unsent()
        super().shutdown()
        self._abort_in((self.config.timeout_graceful_shutdown or 0) / 2)

    @property
    def _patience(self) -> float:
        """Seconds for the client to read the rest after the end."""
        return self._settings.send_seconds or self.close_timeout

    def _abort_in(self, seconds: float) -> None:
        self.ping_timer = self.loop.call_later(seconds, self.transport.abort)  # `connection_lost` cancels it

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        """Close with 1013, behind all that is unread, and let each send that waits end as if the client were gone."""
        self._overdue = None
        session: Session | None = self.scope.get("state", {}).get(SESSION_KEY)
        code = session.close_slow_consumer().code if session else CloseCode.TRY_AGAIN_LATER
        self.disconnected = True
        self.writable.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": "too slow"})
        if self.close_sent or self.transport.is_closing():
            return
        self.stop_keepalive()
        self._write_unsent()
        self.conn.send_close(CloseCode.TRY_AGAIN_LATER, "too slow")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self._patience, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()  # for the close frame with which the client answers
