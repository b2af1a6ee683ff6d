"""How many TCP connections a node has: those that are a WebSocket, and those that are not, or not yet."""

from asyncio import Transport
from collections import Counter
from ipaddress import ip_address, ip_network
from time import monotonic
from typing import Final

import structlog

from ..settings import CoreSettings

log = structlog.get_logger(__name__)

SPARE_DESCRIPTORS: Final = 200
"""File descriptors for files and connections to other services."""

HTTP_DESCRIPTORS: Final = 1000
"""File descriptors that WebSockets leave to other TCP connections; a quarter of them, where there are few."""

LOG_SECONDS: Final = 10
"""Seconds in which the log says at most once that connections are dropped."""


class TcpLimits:
    """Bounds on the TCP connections that are no WebSocket, in all and for each address, and on those that become one.

    A node that is full drops the one that has been there for the longest time, so that a health check is answered. A
    trusted proxy has no limit of its own: it stands for many clients.

    Args:
        settings: The limits.
        descriptors: File descriptors that this process may open.
    """

    def __init__(self, settings: CoreSettings, descriptors: int) -> None:
        available = max(descriptors - SPARE_DESCRIPTORS, descriptors // 2)
        self._max_connections = available
        self._max_sockets = available - min(HTTP_DESCRIPTORS, max(available // 4, 4))
        self._max_by_address = settings.max_connections_per_address
        self._trusts_all = settings.trusted_proxies == "*"
        proxies = "" if self._trusts_all else settings.trusted_proxies
        self._proxies = [ip_network(proxy.strip()) for proxy in proxies.split(",") if proxy.strip()]
        self._http: dict[Transport, str] = {}
        """The transport of each TCP connection that is no WebSocket, the oldest first, with its address."""
        self._by_address: Counter[str] = Counter()
        self._logged_at = 0.0

    def add(self, transport: Transport, address: str, connections: int) -> None:
        """Count a TCP connection; drop it where its address has too many, or the oldest where there are too many.

        Args:
            transport: The connection.
            address: The address of its client.
            connections: All that are open now, WebSockets and this one among them.
        """
        self._http[transport] = address
        self._by_address[address] += 1
        if 0 < self._max_by_address < self._by_address[address] and not self._is_proxy(address):
            self._drop(transport, "too many TCP connections from an address")
        elif connections > self._max_connections:
            self._drop(next(iter(self._http)), "too many TCP connections without a handshake")

    def remove(self, transport: Transport) -> None:
        """Count a TCP connection no more: it is closed, or a WebSocket."""
        if (address := self._http.pop(transport, None)) is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def admits(self, connections: int) -> bool:
        """Return whether there is a descriptor for another WebSocket, where so many TCP connections are open."""
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

    def _is_proxy(self, address: str) -> bool:
        try:
            return self._trusts_all or any(ip_address(address) in proxy for proxy in self._proxies)
        except ValueError:  # a unix socket
            return True
