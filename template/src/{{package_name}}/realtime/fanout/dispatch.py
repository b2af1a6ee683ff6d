"""From a channel to the connections of this node: what comes in one turn of the event loop is delivered together.

A `Dispatcher` gives each `Batch` to the subscribers of its channel. A `Subscription` is one connection that has joined
one channel: how messages reach its client, and what happens where it reads slowly.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, KeysView, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import filterfalse
from typing import Any, Final

import msgspec
import structlog
from litestar.exceptions import WebSocketDisconnect
from msgspec import Raw, Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from websockets.frames import CloseCode

from ..sessions.cause import Reason
from ..sessions.session import Session, Socket
from .broker import Broker, FanoutSettings
from .messages import GapMarker, History, Members, Message, is_node_channel, resume

log = structlog.get_logger(__name__)

MAX_WRITE_BYTES: Final = 65536
"""Bytes after which it is looked anew whether a client still reads."""

DOUBLE_SECONDS: Final = 60
"""Seconds after a join in which a message may still come that was stored before."""

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
        self.publishers: set[asyncio.Task[Any] | None] = set()
        """The tasks that have published what the next turn of the event loop delivers."""

    @property
    def channels(self) -> KeysView[str]:
        """The channels that have a subscriber."""
        return self._subscribers.keys()

    def dispatch(self, channel: str, message: Message) -> None:
        """Deliver a message to the subscribers of a channel soon, with what else comes in this turn of the loop."""
        if channel not in self._subscribers:
            return
        loop = asyncio.get_running_loop()
        pending = self._pending.get(channel)
        if pending is None:
            pending = self._pending[channel] = []
            loop.call_soon(self._dispatch, channel)
        pending.append(message)
        if not self.publishers:
            loop.call_soon(self.publishers.clear)
        self.publishers.add(asyncio.current_task())

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


@dataclass(slots=True, eq=False)
class Subscription:
    """Sends the messages of a channel to a connection.

    A slow consumer loses the oldest messages, is told how many, and delays nobody; or is closed with 1013, where the
    setting BACKLOG_FULL says so. Where something between the handler and the server wants to see each message (a
    middleware, compression, a test client), messages go there as events; else their frames are written as they are.

    Args:
        settings: How long the backlog may be, and what happens when it is full.
        metrics: Where gaps and dropped messages are counted.
        socket: The connection.
        channel: The name of the channel.
        numbered: Send each message with its sequence.
    """

    settings: FanoutSettings
    metrics: FanoutMetrics
    socket: Socket
    channel: str
    numbered: bool = field(kw_only=True)
    _session: Session = field(init=False)
    _connection_id: str = field(init=False)
    _backlog: deque[Message] = field(default_factory=deque[Message], init=False)
    _missed: int = field(default=0, init=False)
    """Messages dropped from the backlog since the client was last told of a gap."""
    _last_sequence: int = field(default=0, init=False)
    """What comes up to this sequence was sent already, or waits in the backlog."""
    joining: asyncio.Future[bool] | None = field(default=None, init=False)
    """While the channel is being joined: whether that succeeds."""
    started: bool = field(default=False, init=False)
    """The connection receives what is published: what it receives before that has been sent."""
    _stopped: bool = field(default=False, init=False)
    _key: str = field(default="", init=False)
    _sent_first: set[bytes] = field(default_factory=set[bytes], init=False)
    """The keys of the messages that were sent before those of the channel, for a while."""
    _forgetting: asyncio.TimerHandle | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._session = Session.of(self.socket)
        self._connection_id = self._session.ensure_connection().id

    def deliver(self, batch: Batch) -> None:
        """Send messages of the channel, at once where the client keeps up."""
        session = self._session
        if (
            self.started
            and not self._backlog
            and not self._sent_first
            and batch.fits
            and batch.first > self._last_sequence
            and self._connection_id not in batch.excluded
            and session.writer is not None
            and session.write_frames(batch.numbered_frames if self.numbered else batch.frames, len(batch.messages))
        ):
            return
        for message in batch.messages:
            self._queue(message)
        if self.started:
            self._flush()

    async def send_states(self, members: Members) -> None:
        """Send the states of those who are present, in place of what the channel had until then."""
        self._last_sequence = members.sequence
        self._backlog = deque(
            each for each in self._backlog if isinstance(each, GapMarker) or each.sequence > members.sequence
        )
        for state in filter(None, members.states.values()):
            await self._session.send_message(Raw(state))

    async def send_first(self, messages: AsyncIterable[Struct], key: str, encode: Callable[[Struct], bytes]) -> None:
        """Send messages, while those of the channel wait. What is among both, by a field, is sent once."""
        self._key = key
        iterator = aiter(messages)
        try:
            async for message in iterator:
                if self._stopped:
                    break
                data = encode(message)
                if not (value := self._key_of(data)):
                    raise ValueError(f"{self.socket.scope['path']}: a message that is sent first has no {key!r}")
                await self._session.send_message(Raw(data))
                self._sent_first.add(value)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()  # now, and not some time later: it may have a connection to a database

    def start(self) -> None:
        """Begin to send: first what has come since the channel was joined. Once it was stopped, nothing happens."""
        if self._stopped:
            return
        if self._sent_first:
            self._backlog = deque(filterfalse(self._is_double, self._backlog))
            self._forgetting = asyncio.get_running_loop().call_later(DOUBLE_SECONDS, self._sent_first.clear)
        self.started = True
        self._flush()

    def start_after(self, after: int, history: History) -> None:
        """Begin to send: first what the channel has after a sequence, or a gap for what it has not."""
        self._backlog = deque(resume(self.channel, after, history, self._backlog))
        self._last_sequence = max(self._last_sequence, history.sequence)
        self.start()

    async def stop(self) -> None:
        """Send nothing more."""
        self.started, self._stopped = False, True
        self._backlog.clear()
        if self._forgetting:
            self._forgetting.cancel()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _queue(self, message: Message) -> None:
        if isinstance(message, GapMarker) and message.until:
            missed = min(message.missed, message.until - self._last_sequence)
            if missed <= 0:
                return  # what this node has missed was sent already, from the history
            message = GapMarker(self.channel, missed, message.until)
        elif isinstance(message, GapMarker):
            self._last_sequence = 0  # the channel may have begun anew, with lower numbers
        elif (
            message.sequence <= self._last_sequence
            or (message.exclude and message.exclude == self._connection_id)
            or (self.started and self._is_double(message))
        ):
            return
        if len(self._backlog) >= self.settings.max_backlog:
            self._drop_oldest()
        self._backlog.append(message)

    def _is_double(self, message: Message) -> bool:
        """Return whether a message was sent already, before those of the channel."""
        return bool(self._sent_first) and self._key_of(message.data) in self._sent_first

    def _key_of(self, data: bytes) -> bytes:
        value = msgspec.json.decode(data).get(self._key) if data.startswith(b"{") else None
        return b"" if value is None else msgspec.json.encode(value)

    def _drop_oldest(self) -> None:
        oldest = self._backlog.popleft()
        self._missed += oldest.missed if isinstance(oldest, GapMarker) else 1
        self.metrics.dropped += 1
        if self.settings.backlog_full == "close":
            session = self._session
            session.close_soon(session.close_for_limit("max_backlog", "too slow", CloseCode.TRY_AGAIN_LATER))

    def _flush(self) -> None:
        if self._task is None and not self._write():
            self._task = asyncio.create_task(self._send_loop())

    def _write(self) -> bool:
        """Write frames while the client keeps up; return whether nothing is left."""
        while self._backlog:
            if self._session.writer is None or not self._session.writer.takes_frames:
                return False
            frames: list[bytes] = []
            size = 0
            while self._backlog and size < MAX_WRITE_BYTES:
                frames.append(self._next().frame(numbered=self.numbered))
                size += len(frames[-1])
            self._session.write_frames(b"".join(frames), len(frames))
        return True

    async def _send_loop(self) -> None:
        """Send the backlog as fast as the client reads it."""
        try:
            while not self._write():
                if writer := self._session.writer:
                    await writer.writable.wait()
                    if writer.writable.is_set() and not writer.takes_frames:  # else another channel was faster
                        return  # the connection is ending, and its own task cleans it up
                else:
                    await self.socket.send_text(self._next().payload(numbered=self.numbered).decode())
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("a published message could not be sent")  # nothing else reports it
            await self._session.close(Reason.HANDLER_FAILED, CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._task = None

    def _next(self) -> Message:
        if self._missed:
            missed, self._missed = self._missed, 0
            return GapMarker(self.channel, missed)
        message = self._backlog.popleft()
        self.metrics.gaps += isinstance(message, GapMarker)
        return message
