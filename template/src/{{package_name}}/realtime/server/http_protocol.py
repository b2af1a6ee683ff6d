"""Limits on TCP connections that are not (yet) a WebSocket: their number, and the speed of requests and answers.

For uvicorn 0.54.
"""

import re
from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..settings import CoreSettings

log = structlog.get_logger(__name__)

SPARE_DESCRIPTORS: Final = 200
"""File descriptors for files and connections to other services."""

HTTP_DESCRIPTORS: Final = 1000
"""File descriptors that WebSockets leave to other TCP connections; a quarter of all, if there are few."""

LOG_SECONDS: Final = 10
"""Seconds between two log lines about dropped connections, at least."""

MAX_HEAD_BYTES: Final = 65536
"""Maximum bytes of the request line and the headers of a request."""

MIN_BODY_BYTES: Final = 4096
"""Bytes of a body that must arrive in each HANDSHAKE_SECONDS, until it is complete, while the handler reads it."""

NO_DESCRIPTOR: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

MAX_PIPELINED: Final = 16
"""Requests that may wait while an earlier one is answered."""


def plain(address: Any) -> Any:
    """Return the address and the port of one end, with `10.0.0.1` for the `::ffff:10.0.0.1` of a dual-stack socket."""
    return address and (address[0].removeprefix("::ffff:"), address[1])


class TcpLimits:
    """Limits on TCP connections that are not a WebSocket, in total and for each address, and on those that become one.

    A full node drops the oldest connection that is not a WebSocket, so that health checks are answered. The address of
    a trusted proxy has no limit, because it serves many clients.

    Args:
        max_by_address: Connections of one address. 0 lifts the limit.
        descriptors: File descriptors that this process may open.
        is_proxy: Returns whether an address is a trusted proxy.
    """

    def __init__(self, max_by_address: int, descriptors: int, is_proxy: Callable[[str], bool]) -> None:
        available = max(descriptors - SPARE_DESCRIPTORS, descriptors // 2)
        self._max_connections = available
        self._max_sockets = available - min(HTTP_DESCRIPTORS, max(available // 4, 4))
        self._max_by_address = max_by_address
        self._is_proxy = is_proxy
        self._http: dict[Transport, str] = {}
        """The transport and the address of each TCP connection that is not a WebSocket, the oldest first."""
        self._by_address: Counter[str] = Counter()
        self._logged_at = 0.0

    def add(self, transport: Transport, address: str, connections: int) -> None:
        """Count a TCP connection. Drop it if its address has too many; drop the oldest one if there are too many.

        Args:
            transport: The connection.
            address: The address of its client.
            connections: The number of all open connections, including WebSockets and this one.
        """
        self._http[transport] = address
        self._by_address[address] += 1
        if 0 < self._max_by_address < self._by_address[address] and address and not self._is_proxy(address):
            self._drop(transport, "too many TCP connections from an address")
        elif connections > self._max_connections:
            self._drop(next(iter(self._http)), "too many TCP connections without a handshake")

    def remove(self, transport: Transport) -> None:
        """Stop counting a TCP connection, because it was closed or became a WebSocket."""
        if (address := self._http.pop(transport, None)) is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def admits(self, connections: int) -> bool:
        """Return whether there is a descriptor for another WebSocket, given the number of open TCP connections."""
        admits = connections - len(self._http) < self._max_sockets
        if not admits:
            self._log("out of file descriptors: a handshake is rejected")
        return admits

    def _drop(self, transport: Transport, event: str) -> None:
        self._log(event, client=self._http[transport])
        self.remove(transport)
        transport.abort()

    def _log(self, event: str, **details: str) -> None:
        if monotonic() - self._logged_at > LOG_SECONDS:
            self._logged_at = monotonic()
            log.warning(event, connections=self._max_connections, **details)


class HttpProtocol(HttpToolsProtocol):
    """One TCP connection before its handshake, with limits on requests and on unread answers.

    The limits are the time and the size of a request's head, the lowest rate of its body, the number of requests that
    wait, and the time in which the client must read from a full buffer, or the remaining data at the end.

    Args:
        settings: The limits.
        tcp_limits: The counter of the TCP connections of this node.
        options: The options of uvicorn's protocol.
    """

    def __init__(self, *, settings: CoreSettings, tcp_limits: TcpLimits, **options: Any) -> None:
        super().__init__(**options)
        self._tcp_limits = tcp_limits
        self._head_seconds = settings.handshake_seconds
        self._read_seconds = settings.send_seconds or settings.handshake_seconds
        self._timers: dict[str, TimerHandle] = {}
        """Timers: `head` and `body` run while these are received, `unread` while the client has to read."""
        self._head_bytes = 0
        self._in_body = False
        self._body_bytes = 0
        """Bytes of the body since the last check."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client, self.server = plain(self.client), plain(self.server)
        self._begin("head", self._head_seconds, self.transport.abort)
        self._tcp_limits.add(transport, self.client[0] if self.client else "", len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _get_upgrade(self) -> bytes | None:
        """Return the upgrade named in any `Connection` header (RFC 9110, 5.3); uvicorn reads only the last one."""
        connection = b",".join(value for name, value in self.headers if name == b"connection").lower()
        if b"upgrade" not in map(bytes.strip, connection.split(b",")) or self.scope["http_version"] == "1.0":
            return None  # HTTP/1.0 has no upgrade (RFC 9110, 7.8)
        return dict(self.headers).get(b"upgrade", b"").lower()

    def handle_websocket_upgrade(self) -> None:
        self._stop()
        if self._tcp_limits.admits(len(self.connections)):
            self.url = re.sub(rb"^\w+://[^/?]*/?", b"/", self.url)  # it may be absolute (RFC 9112, 3.2.2)
            super().handle_websocket_upgrade()
        else:
            self.transport.write(NO_DESCRIPTOR)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:  # uvicorn ends it, whatever comes: empty lines may be all
            self._begin("head", self._head_seconds, self.transport.abort)
        head = self._timers.get("head")
        super().data_received(data)
        if head and head is self._timers.get("head"):  # all of it is head
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
        elif self._in_body:
            self._begin("body", self._head_seconds, self._check_body)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._begin("head", self._head_seconds, self.transport.abort)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end("head")
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser makes it a 400
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests wait for their answers")
        self._in_body, self._body_bytes = True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_reading()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._limit_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin("unread", self._read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end("unread")
        self._limit_reading()

    def _stop(self) -> None:
        """Stop the timers: the connection is lost, or became a WebSocket."""
        self._tcp_limits.remove(self.transport)
        self._in_body = False
        self._end("head", "body", "unread")

    def _begin(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, callback)

    def _end(self, *names: str) -> None:
        for name in names:
            if timer := self._timers.pop(name, None):
                timer.cancel()

    def _check_body(self) -> None:
        del self._timers["body"]
        if self._in_body and self._body_bytes < MIN_BODY_BYTES and not self.flow.read_paused:
            self.transport.abort()
        elif self._in_body:
            self._body_bytes = 0
            self._begin("body", self._head_seconds, self._check_body)

    def _limit_reading(self) -> None:
        """Limit the time in which the client reads the remaining data of a closed connection."""
        if self.transport.is_closing():
            self._begin("unread", self._read_seconds, self.transport.abort)
