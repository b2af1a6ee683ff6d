"""The numbers of the connections, for Prometheus. Counted in plain integers; collected only when somebody asks."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .registry import Registry


class Metrics(Collector):
    """What happened since the process began."""

    def __init__(self, registry: "Registry") -> None:
        self._registry = registry
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.bad_messages = 0
        self.slow_disconnects = 0
        self.messages_in = 0
        """Of the connections that have ended; those of the open ones are added when collected."""
        self.messages_out = 0

    def collect(self) -> Iterator[Metric]:
        received = self.messages_in + sum(entry.messages_in for entry in self._registry)
        sent = self.messages_out + sum(entry.messages_out for entry in self._registry)
        yield GaugeMetricFamily("websocket_open", "Sockets open now", len(self._registry))
        yield GaugeMetricFamily("websocket_draining", "1 while the service drains", int(self._registry.draining))
        yield CounterMetricFamily("websocket_accepted", "Handshakes accepted", self.accepted)
        yield _labelled("websocket_refused", "Handshakes refused, by reason", "reason", self.refused)
        yield _labelled("websocket_ended", "Connections ended, by reason", "reason", self.ended)
        yield CounterMetricFamily("websocket_messages_received", "Messages from clients", received)
        yield CounterMetricFamily("websocket_messages_sent", "Messages to clients", sent)
        yield CounterMetricFamily("websocket_bad_messages", "Messages that were not understood", self.bad_messages)
        yield CounterMetricFamily("websocket_slow_disconnects", "on_disconnect out of time", self.slow_disconnects)


def _labelled(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
