"""A slow reader: how much may wait for it, and how long, before it is closed with 1013.

uvicorn lets a send wait while what the client has not read fills the buffer: for ever, if it never reads. And it closes
no connection before the buffer is empty: a client that reads nothing would keep its descriptor, although it is counted
no more, and where it is found dead by a ping, even its clean-up would wait. So a timer runs while the buffer is full,
and what is left over after the end is dropped after a while. A reader that keeps up costs nothing.
"""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..settings import Settings
from .cause import TRY_AGAIN_LATER
from .registry import STATE_KEY, OpenSocket


def bounded(settings: Settings) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol with these settings for slow readers."""

    class Bounded(BoundedProtocol):
        max_pending_bytes = settings.max_pending_bytes
        send_seconds = settings.send_seconds

    return Bounded


class BoundedProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which waits for no client without an end.

    uvicorn 0.54: overrides the callbacks of the transport, `handle_ping`, `keepalive_timeout` and `run_asgi`.
    """

    max_pending_bytes: int
    """Bytes in the buffer from which on a send waits."""
    send_seconds: float
    """Seconds that it waits; 0 waits for ever."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=self.max_pending_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.send_seconds:
            self._overdue = self.loop.call_later(self.send_seconds, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # dropped: the pongs for a client that pings and does not read have no bound

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # a peer that answers no ping reads no rest

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._patience, self.transport.abort)

    @property
    def _patience(self) -> float:
        """Seconds for the client to read the rest after the end."""
        return self.send_seconds or self.close_timeout

    def _stop_waiting(self) -> None:
        if self._overdue:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        """Close with 1013, behind all that is unread, and let each send that waits end as if the client were gone."""
        self._overdue = None
        entry: OpenSocket | None = self.scope.get("state", {}).get(STATE_KEY)
        code = entry.give_up().code if entry else TRY_AGAIN_LATER
        self.disconnected = True
        self.writable.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": "too slow"})
        if self.close_sent or self.transport.is_closing():
            return
        self.stop_keepalive()
        self.conn.send_close(TRY_AGAIN_LATER, "too slow")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self._patience, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()  # for the close frame with which the client answers
