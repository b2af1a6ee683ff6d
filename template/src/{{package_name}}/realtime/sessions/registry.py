"""The sessions of this node: each is counted before its first await, and leaves when its clean-up is done."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from itertools import accumulate, islice
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .runtime import BUCKETS, Client, Runtime
from .session import Session, State

MAX_CLIENTS: Final = 10_000
"""Clients without a session whose rates are remembered at most. Those that left first are forgotten first."""


class Registry(Collector):
    """The sessions that are not closed yet, counted by address and by user, and for Prometheus.

    Args:
        runtime: The state that the sessions share.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._sessions: set[Session] = set()
        self._emptied: asyncio.Event | None = None
        """Set when the last session leaves, while somebody waits for that."""
        self.clients: dict[tuple[str, str], Client] = {}
        """Each address and each user that has a session, or whose rates are not full again."""
        self._absent: dict[Client, None] = {}
        """The clients without a session, the one that has been away for the longest time first."""
        self.lingering = 0
        """Sessions whose clean-up is done, and whose descriptor is still open."""
        self.is_drained = False
        """The service runs on its own server, which drains the sessions before it stops."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over a copy: sessions come and go while the caller awaits."""
        return iter(tuple(self._sessions))

    def client_of(self, address: str) -> Client:
        """Return the counters of the client with an address."""
        return self._client("address", address_group(address))

    def _client(self, kind: str, name: str) -> Client:
        for client in [*islice(self._absent, 2)]:  # so that more leave than come
            if client.is_fresh() or len(self._absent) > MAX_CLIENTS:
                self._forget(client)
        key = kind, name
        if key not in self.clients:
            self.clients[key] = Client(key, self.runtime.settings)
            self._absent[self.clients[key]] = None
        return self.clients[key]

    def _forget(self, client: Client) -> None:
        del self._absent[client], self.clients[client.key]

    def count(self, session: Session, client: Client) -> None:
        """Count a session for a client, until it is closed."""
        self._sessions.add(session)
        self._absent.pop(client, None)
        client.sessions += 1
        session.clients += (client,)

    def remove(self, session: Session) -> None:
        """Forget a session whose clean-up is done. It counts for its client, and as lingering, until it is closed."""
        self._sessions.remove(session)
        if self._emptied and not self._sessions:
            self._emptied.set()
        self.lingering += 1
        closed = partial(self._closed, session.clients)
        session.server.notify_closed(closed) if session.server else closed()

    def _closed(self, clients: Iterable[Client]) -> None:
        self.lingering -= 1
        for client in clients:
            client.sessions -= 1
            if not client.sessions:
                self._absent[client] = None
                if client.is_fresh():
                    self._forget(client)

    def acquire(self, session: Session, user: str, limit: int) -> str:
        """Count a session for a user, until it is closed.

        Nothing is awaited between the check and the count, so a burst of handshakes cannot exceed the limit.

        Args:
            session: A session whose user is known now.
            user: The name of its user.
            limit: Sessions that one user may have on this node. 0 lifts the limit.

        Returns:
            What the user has too many of, "connections" or "messages"; "" if the session is counted.
        """
        client = self._client("user", user)
        if 0 < limit <= client.sessions:
            return "connections"
        if client.exceeded():
            return "messages"
        self.count(session, client)
        session.user = user
        return ""

    def of_user(self, user: str) -> tuple[Session, ...]:
        """Return the open sessions of a user, also if the service's own code has set `connection.user`."""
        is_open = (session for session in self if session.state is State.OPEN)
        return tuple(session for session in is_open if user and session.ensure_connection().user == user)

    def disconnect(self, user: str, detail: str) -> None:
        """Close the open sessions of a user with 1008.

        Args:
            user: The name of the user.
            detail: The close reason.
        """
        for session in self.of_user(user):
            session.end_access(detail)

    async def wait_empty(self, seconds: float) -> bool:
        """Wait until every session is cleaned up.

        Args:
            seconds: Seconds to wait at most.

        Returns:
            Whether all sessions are cleaned up.
        """
        self._emptied = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._sessions:
                    self._emptied.clear()
                    await self._emptied.wait()
        return not self._sessions

    def collect(self) -> Iterator[Metric]:
        """Yield each metric; the messages of open sessions are added to those of the closed."""
        metrics = self.runtime.metrics
        received = metrics.messages_received + sum(session.messages_received for session in self)
        sent = metrics.messages_sent + sum(session.messages_sent for session in self)
        yield GaugeMetricFamily("websocket_open", "Connections open now", len(self))
        yield GaugeMetricFamily("websocket_draining", "1 while the service drains", int(self.runtime.draining))
        yield CounterMetricFamily("websocket_accepted", "Handshakes accepted", metrics.accepted)
        yield _labelled("websocket_rejected", "Handshakes rejected, by reason", "reason", metrics.rejected)
        yield _labelled("websocket_ended", "Connections ended, by reason", "reason", metrics.ended)
        over = "Connections closed for a limit, by its setting"
        yield _labelled("websocket_limit_exceeded", over, "limit", metrics.limits)
        yield CounterMetricFamily("websocket_messages_received", "Messages from clients", received)
        yield CounterMetricFamily("websocket_messages_sent", "Messages to clients", sent)
        yield CounterMetricFamily("websocket_bad_messages", "Invalid messages", metrics.bad_messages)
        bounds = [*map(str, BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "websocket_handler_seconds",
            "Seconds from a message's arrival until its handler is ready for the next",
            buckets=list(zip(bounds, accumulate(metrics.handled), strict=True)),
            sum_value=metrics.handled_seconds,
        )
        yield CounterMetricFamily(
            "websocket_slow_disconnects", "on_disconnect hooks that exceeded HOOK_SECONDS", metrics.slow_disconnects
        )


def address_group(address: str) -> str:
    """Return the key of a client: its IPv4 address, or the /64 network of its IPv6 address."""
    address = address.removeprefix("::ffff:")  # IPv4, on a socket for both or from a proxy with one
    if ":" in address:
        with suppress(ValueError):
            return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    return address


def _labelled(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
