"""uvicorn's HTTP protocol, with bounds on a client that never completes its request. For uvicorn 0.54."""

from asyncio import TimerHandle, Transport
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 65536
"""Bytes of the request line and the headers of a request."""


class HttpProtocol(HttpToolsProtocol):
    """One TCP connection before its handshake, with a bound on the head of a request, in time and in size.

    Args:
        handshake_seconds: Seconds in which the head of a request must arrive.
        options: Those of uvicorn's protocol.
    """

    def __init__(self, *, handshake_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._handshake_seconds = handshake_seconds
        self._deadline: TimerHandle | None = None
        """Set while the head of a request is read."""
        self._head_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
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
            self._head_bytes = 0
            self._deadline = self.loop.call_later(self._handshake_seconds, self.transport.abort)

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
