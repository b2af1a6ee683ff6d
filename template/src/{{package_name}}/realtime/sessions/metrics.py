"""The numbers of the connections, for Prometheus. Counted in plain integers; collected only when somebody asks."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .cause import Reason

if TYPE_CHECKING:
    from .session import Registry

LIMITS: Final = (
    "max_message_size",
    "max_messages_per_second",
    "max_bad_messages",
    "first_message_seconds",
    "idle_seconds",
    "send_seconds",
    "max_backlog",
)
"""The settings whose limits end a connection; those that refuse a handshake are counted as refused."""

BUCKETS: Final = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
"""Upper bounds of the handler's time, in seconds. A client that pings is given up after 40 s of a busy handler."""


class Metrics(Collector):
    """What happened since the process began."""

    def __init__(self, registry: "Registry") -> None:
        self._registry = registry
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.bad_messages = 0
        self.slow_disconnects = 0
        self.messages_in = 0
        """Of the connections that have ended; those of the open ones are added when collected."""
        self.messages_out = 0
        self._handled = [0] * (len(BUCKETS) + 1)
        self._handled_seconds = 0.0

    def message_handled(self, seconds: float) -> None:
        """Count a message by the time from its arrival until its handler was ready for the next one."""
        self._handled[bisect_left(BUCKETS, seconds)] += 1
        self._handled_seconds += seconds

    def collect(self) -> Iterator[Metric]:
        received = self.messages_in + sum(session.messages_in for session in self._registry)
        sent = self.messages_out + sum(session.messages_out for session in self._registry)
        yield GaugeMetricFamily("websocket_open", "Sockets open now", len(self._registry))
        yield GaugeMetricFamily("websocket_draining", "1 while the service drains", int(self._registry.draining))
        yield CounterMetricFamily("websocket_accepted", "Handshakes accepted", self.accepted)
        yield _labelled("websocket_refused", "Handshakes refused, by reason", "reason", self.refused)
        yield _labelled("websocket_ended", "Sessions ended, by reason", "reason", self.ended, Reason)
        over = "Sessions closed for a limit, by its setting"
        yield _labelled("websocket_limit_exceeded", over, "limit", self.limits, LIMITS)
        yield CounterMetricFamily("websocket_messages_received", "Messages from clients", received)
        yield CounterMetricFamily("websocket_messages_sent", "Messages to clients", sent)
        yield CounterMetricFamily("websocket_bad_messages", "Messages that were not understood", self.bad_messages)
        bounds = [*map(str, BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "websocket_handler_seconds",
            "Time from a message's arrival until its handler is ready for the next",
            buckets=list(zip(bounds, accumulate(self._handled), strict=True)),
            sum_value=self._handled_seconds,
        )
        yield CounterMetricFamily("websocket_slow_disconnects", "on_disconnect out of time", self.slow_disconnects)


def _labelled(
    name: str, documentation: str, label: str, counts: Mapping[str, int], known: Iterable[str] = ()
) -> CounterMetricFamily:
    """Count by a label. What is known to happen is there from the start, at 0: Prometheus misses a first step else."""
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in {**dict.fromkeys(known, 0), **counts}.items():
        family.add_metric([value], count)
    return family
