"""The numbers of the sessions for Prometheus, collected when `/metrics` is read."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .cause import Reason
from .metrics import BUCKETS, LIMITS, Metrics
from .registry import Registry
from .session import Session


class SessionCollector(Collector):
    """Turn the counters of the sessions into Prometheus' metrics."""

    def __init__(self, metrics: Metrics, registry: Registry[Session]) -> None:
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
