"""The metrics of the fan-out, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .broker import Broker
from .dispatch import Dispatcher


class FanoutMetrics(Collector):
    """Counts since the process began."""

    def __init__(self, dispatcher: Dispatcher, broker: Broker) -> None:
        self._dispatcher = dispatcher
        self._broker = broker
        self.published = 0
        self.dropped = 0
        self.gaps = 0

    def collect(self) -> Iterator[Metric]:
        """Iterate over all metrics of the fan-out."""
        channels = len(self._dispatcher.channels)
        yield GaugeMetricFamily("fanout_channels", "Channels with a subscriber on this node", channels)
        yield CounterMetricFamily("fanout_published", "Messages published on this node", self.published)
        yield CounterMetricFamily("fanout_dropped", "Messages dropped for slow consumers", self.dropped)
        yield CounterMetricFamily("fanout_gaps", "Gaps that clients were told of, slow consumers aside", self.gaps)
        yield from self._broker.collect()
