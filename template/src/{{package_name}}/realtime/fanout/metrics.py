"""The numbers of the fan-out, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .engine import Engine


class FanoutMetrics(Collector):
    """What happened since the process began."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dropped = 0
        self.gaps = 0

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        yield GaugeMetricFamily("fanout_up", "1 while there is a link to the engine", int(engine.up))
        yield GaugeMetricFamily("fanout_channels", "Channels that this node listens to", engine.channels)
        yield GaugeMetricFamily("fanout_waiting", "Operations that wait for the engine", engine.waiting)
        yield CounterMetricFamily("fanout_lost", "Times that the link to the engine was lost", engine.times_lost)
        yield CounterMetricFamily("fanout_published", "Messages published from this node", engine.published)
        yield CounterMetricFamily("fanout_failed", "Operations that the engine did not do in time", engine.failed)
        yield CounterMetricFamily("fanout_dropped", "Messages dropped for slow readers", self.dropped)
        yield CounterMetricFamily("fanout_gaps", "Gaps told after a reconnect", self.gaps + engine.gaps)
