"""From a channel to its subscribers on this node: what comes in one turn of the event loop is delivered together."""

import asyncio
from collections.abc import Callable, Iterator, KeysView, Sequence
from functools import cached_property
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .broker import Broker
from .messages import Message, is_node_channel

MAX_WRITE_BYTES: Final = 65536
"""Bytes after which it is looked anew whether a client still reads."""


Deliver = Callable[["Batch"], None]
"""Takes messages of a channel, in order, without waiting."""


class Dispatcher:
    """The subscribers of each channel on this node.

    Args:
        max_batch: Messages that are delivered in one turn of the event loop, at most.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._subscribers: dict[str, set[Deliver]] = {}
        self._pending: dict[str, list[Message]] = {}

    @property
    def channels(self) -> KeysView[str]:
        """The channels that have a subscriber."""
        return self._subscribers.keys()

    def dispatch(self, channel: str, message: Message) -> None:
        """Deliver a message to the subscribers of a channel soon, with what else comes in this turn of the loop."""
        if channel not in self._subscribers:
            return
        pending = self._pending.get(channel)
        if pending is None:
            pending = self._pending[channel] = []
            asyncio.get_running_loop().call_soon(self._dispatch, channel)
        pending.append(message)

    def _dispatch(self, channel: str) -> None:
        messages = self._pending.pop(channel, [])
        if rest := messages[self._max_batch :]:
            del messages[self._max_batch :]
            self._pending[channel] = rest
            asyncio.get_running_loop().call_soon(self._dispatch, channel)
        if messages:
            batch = Batch(messages)
            for deliver in tuple(self._subscribers.get(channel, ())):
                deliver(batch)

    def add(self, channel: str, deliver: Deliver) -> None:
        """Subscribe to what is published on a channel from now on."""
        self._flush(channel)
        self._subscribers.setdefault(channel, set()).add(deliver)

    def remove(self, channel: str, deliver: Deliver) -> None:
        """Unsubscribe, after what was published until now."""
        self._flush(channel)
        subscribers = self._subscribers[channel]
        subscribers.remove(deliver)
        if not subscribers:
            del self._subscribers[channel]

    def _flush(self, channel: str) -> None:
        while channel in self._pending:
            self._dispatch(channel)


class Batch:
    """Messages of a channel that are delivered together, in the bytes that are the same for all connections."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.first = min(message.sequence for message in messages)
        self.excluded = {message.exclude for message in messages if message.exclude}
        self.fits = sum(len(message.data) for message in messages) <= MAX_WRITE_BYTES
        """It can be written at once."""

    @cached_property
    def frames(self) -> bytes:
        """The frames of the messages."""
        return b"".join([message.frame(numbered=False) for message in self.messages])

    @cached_property
    def numbered_frames(self) -> bytes:
        """The frames of the messages, each with its sequence."""
        return b"".join([message.frame(numbered=True) for message in self.messages])


class FanoutMetrics(Collector):
    """Counts since the process began, for Prometheus."""

    def __init__(self, dispatcher: Dispatcher, broker: Broker) -> None:
        self._dispatcher = dispatcher
        self._broker = broker
        self.published = self.dropped = self.gaps = 0

    def collect(self) -> Iterator[Metric]:
        """Iterate over all metrics of the fan-out."""
        channels = sum(not is_node_channel(channel) for channel in self._dispatcher.channels)
        yield GaugeMetricFamily("fanout_channels", "Channels with a subscriber on this node", channels)
        yield CounterMetricFamily("fanout_published", "Messages published on this node", self.published)
        yield CounterMetricFamily("fanout_dropped", "Messages dropped for slow consumers", self.dropped)
        yield CounterMetricFamily("fanout_gaps", "Gaps that clients were told of, slow consumers aside", self.gaps)
        yield from self._broker.collect()
