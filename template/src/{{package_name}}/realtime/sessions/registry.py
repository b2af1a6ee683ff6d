"""The sessions of this node: each is counted before its first await, and leaves when its clean-up is done."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from websockets.frames import CloseCode

from .cause import Reason
from .frames import FrameWriter
from .metrics import BUCKETS, LIMITS, Metrics
from .session import Runtime, Session, State


class Registry:
    """The sessions that are not closed yet, counted by address and by user.

    Args:
        runtime: What the sessions share.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions: set[Session] = set()
        self._by_user: dict[str, set[Session]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.by_address: Counter[str] = Counter()
        """The sessions of each client, as `address_group` names it, with those whose descriptor is still open."""
        self.lingering = 0
        """Sessions whose clean-up is done, and whose descriptor is still open."""
        self.is_drained = False
        """The service runs on its own server, which drains the sessions before it stops."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over a copy: sessions come and go while the caller awaits."""
        return iter(tuple(self._sessions))

    @property
    def draining(self) -> bool:
        """Whether new handshakes are rejected, because the service is about to stop."""
        return self._runtime.draining

    def admit_handshakes(self) -> None:
        """Begin, or begin again, to let sessions in."""
        self._runtime.draining = False

    def begin_drain(self) -> None:
        """Let no new session in."""
        self._runtime.draining = True

    def add(self, session: Session) -> None:
        """Count a session."""
        self._sessions.add(session)
        self._empty.clear()
        self.by_address[address_group(session.client)] += 1

    def remove(self, session: Session, writer: FrameWriter | None = None) -> None:
        """Forget a session whose clean-up is done. It counts for its address, and as lingering, until it is closed."""
        self._sessions.remove(session)
        if sessions := self._by_user.get(session.user):
            sessions.discard(session)
            if not sessions:
                del self._by_user[session.user]
        if not self._sessions:
            self._empty.set()
        self.lingering += 1
        closed = partial(self._closed, address_group(session.client))
        writer.notify_closed(closed) if writer else closed()

    def _closed(self, client: str) -> None:
        self.lingering -= 1
        self.by_address[client] -= 1
        if not self.by_address[client]:
            del self.by_address[client]

    def acquire(self, session: Session, user: str, limit: int) -> bool:
        """Count a session as one of a user's until it is removed.

        Nothing is awaited between the check and the count, so a burst of handshakes cannot exceed the limit.

        Args:
            session: A session whose user is known now.
            user: The name of its user.
            limit: Sessions that one user may have on this node. 0 lifts the limit.

        Returns:
            Whether it is counted; False where the user has as many sessions as are allowed.
        """
        sessions = self._by_user.setdefault(user, set())
        if 0 < limit <= len(sessions):
            return False
        sessions.add(session)
        session.user = user
        return True

    def of_user(self, user: str) -> tuple[Session, ...]:
        """Return the open sessions of a user, also where the service itself has set `connection.user`."""
        is_open = (session for session in self if session.state is State.OPEN)
        return tuple(session for session in is_open if user and session.ensure_connection().user == user)

    def disconnect(self, user: str, detail: str) -> None:
        """Close the open sessions of a user with 1008.

        Args:
            user: The name of the user.
            detail: The close reason.
        """
        for session in self.of_user(user):
            session.close_soon(Reason.ACCESS_ENDED, CloseCode.POLICY_VIOLATION, detail)

    async def wait_empty(self, seconds: float) -> bool:
        """Wait until every session is cleaned up.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether none is left.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        return self._empty.is_set()


def address_group(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address, of which each has 2**64."""
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address


class SessionCollector(Collector):
    """Turn the counters of the sessions into Prometheus' metrics."""

    def __init__(self, metrics: Metrics, registry: Registry) -> None:
        self._metrics = metrics
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield each metric; the messages of open sessions are added to those of the closed."""
        metrics = self._metrics
        received = metrics.messages_in + sum(session.messages_in for session in self._registry)
        sent = metrics.messages_out + sum(session.messages_out for session in self._registry)
        yield GaugeMetricFamily("websocket_open", "Connections open now", len(self._registry))
        yield GaugeMetricFamily("websocket_draining", "1 while the service drains", int(self._registry.draining))
        yield CounterMetricFamily("websocket_accepted", "Handshakes accepted", metrics.accepted)
        yield _labelled("websocket_refused", "Handshakes refused, by reason", "reason", metrics.refused)
        yield _labelled("websocket_ended", "Connections ended, by reason", "reason", metrics.ended, Reason)
        over = "Connections closed for a limit, by its setting"
        yield _labelled("websocket_limit_exceeded", over, "limit", metrics.limits, LIMITS)
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


def _labelled(
    name: str, documentation: str, label: str, counts: Mapping[str, int], known: Iterable[str] = ()
) -> CounterMetricFamily:
    """Count by a label. Known values are there from the start, at 0: else Prometheus misses their first increase."""
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in {**dict.fromkeys(known, 0), **counts}.items():
        family.add_metric([value], count)
    return family
