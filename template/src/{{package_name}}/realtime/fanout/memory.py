"""The fan-out within one process: nothing of it breaks, and nothing outlives the process."""

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from math import inf
from time import monotonic, time_ns
from typing import Final, NamedTuple, TypeVar

from .broker import CHANNEL_SHARE, MESSAGE_BYTES, Broker, Dispatch, FanoutSettings, closed
from .messages import History, Members, Message, is_node_channel

T = TypeVar("T")

MAX_BURST: Final = 32
"""Messages of a channel, or channels, after which whoever publishes more in this turn of the event loop gives way."""

MAX_CHANNELS: Final = 10_000
"""Channels whose history is kept; the one that was silent for longest is forgotten for the next."""


class MemoryBroker(Broker):
    """Carries messages between the connections of this process."""

    def __init__(self, settings: FanoutSettings) -> None:
        self._settings = settings
        self._max_burst = min(MAX_BURST, settings.max_backlog // 2)
        self._dispatch: Dispatch | None = None
        self._channels: OrderedDict[str, _Channel] = OrderedDict()
        """The channel that was used last is the last."""
        self._size = 0
        self._published: Counter[str] = Counter()
        """Messages that were published in this turn of the event loop, by channel."""
        self._members: dict[str, dict[str, _Member]] = {}
        """The members of each channel."""

    async def start(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._channels.clear()
        self._size = 0
        self._published.clear()
        self._members.clear()

    async def stop(self) -> None:
        self._dispatch = None

    def publish(self, channel: str, data: bytes, exclude: str = "") -> asyncio.Future[int]:
        """Publish. To await it gives way to other tasks once in MAX_BURST messages of a channel."""
        if self._dispatch is None:
            return closed()
        kept = self._channel(channel)
        kept.sequence += 1
        self._keep(kept, _Kept(data, kept.sequence, exclude))
        self._dispatch(channel, Message(data, kept.sequence, exclude))
        return _resolved(kept.sequence, soon=self._gives_way(channel))

    def _gives_way(self, channel: str) -> bool:
        """Count a message, and return whether it is to be delivered before its sender goes on."""
        if not self._published:
            asyncio.get_running_loop().call_soon(self._published.clear)
        self._published[channel] += 1
        is_long = self._published[channel] >= self._max_burst or len(self._published) % MAX_BURST == 0
        return is_long or is_node_channel(channel)  # who was removed receives nothing of what follows

    def _keep(self, channel: "_Channel", message: "_Kept") -> None:
        """Keep a message, within the bounds in number and bytes of its channel, and in bytes of all of them."""
        channel.messages.append(message)
        self._resize(channel, message.size)
        max_size = self._settings.history_bytes // CHANNEL_SHARE
        while len(channel.messages) > self._settings.history or channel.size > max_size:
            self._resize(channel, -channel.messages.popleft().size)
        while self._size > self._settings.history_bytes:
            self._forget_oldest()

    def _resize(self, channel: "_Channel", size: int) -> None:
        channel.size += size
        self._size += size

    def _forget_oldest(self) -> None:
        _, channel = self._channels.popitem(last=False)
        self._size -= channel.size

    def _channel(self, name: str) -> "_Channel":
        """Return a channel, and forget those that were silent for too long."""
        now = monotonic()
        channel = self._channels.pop(name, None)
        if channel is None or channel.used_at < now - self._settings.history_seconds:
            self._size -= channel.size if channel else 0
            channel = _Channel()
        channel.used_at = now
        self._channels[name] = channel
        oldest = next(iter(self._channels.values()))
        if len(self._channels) > MAX_CHANNELS or oldest.used_at < now - self._settings.history_seconds:
            self._forget_oldest()
        return channel

    async def read_history(self, channel: str, after: int) -> History:
        kept = self._channel(channel)
        missed = [Message(*message) for message in kept.messages if message.sequence > after]
        return History(kept.began, kept.sequence, missed)

    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[int]:
        self._members.setdefault(channel, {})[member] = _Member(left)
        return self.publish(channel, joined) if joined else _resolved(0)

    def set_presence_state(self, channel: str, member: str, state: bytes = b"") -> asyncio.Future[float]:
        if self._dispatch is None:
            return closed()
        known = self._members.get(channel, {}).get(member)
        if known and state not in {b"", known.state}:
            known.state, known.waits = state, True
        if known is None or not known.waits:
            return _resolved(0.0)
        now = asyncio.get_running_loop().time()
        left = known.published_at + self._settings.presence_state_seconds - now
        if left <= 0:
            known.waits, known.published_at = False, now
            self.publish(channel, known.state)
        return _resolved(max(left, 0.0))

    def leave_presence(self, channel: str, member: str) -> asyncio.Future[int]:
        members = self._members[channel]
        left = members.pop(member).left
        if not members:
            del self._members[channel]
        return self.publish(channel, left) if left else _resolved(0)

    async def remember(self, text: str, until: float) -> None:
        """Do nothing: no other process is to know, and this one does."""

    async def remembered(self) -> list[str]:
        return []

    async def members(self, channel: str) -> Members:
        if self._dispatch is None:
            await closed()
        members = self._members.get(channel, {})
        return Members(self._channel(channel).sequence, {name: member.state for name, member in members.items()})

    def subscribe(self, channel: str) -> None:
        """Do nothing: all that is published here is dispatched here."""

    async def wait_subscribed(self, channel: str) -> None:  # noqa: ARG002
        """Return at once."""
        if self._dispatch is None:
            await closed()

    def unsubscribe(self, channel: str) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Member:
    left: bytes
    state: bytes = b""
    waits: bool = False
    """The state is not published yet."""
    published_at: float = -inf


class _Kept(NamedTuple):
    """A message without the frames that were made of it: its bytes are kept once."""

    data: bytes
    sequence: int
    exclude: str

    @property
    def size(self) -> int:
        return len(self.data) + MESSAGE_BYTES


class _Channel:
    __slots__ = ("began", "messages", "sequence", "size", "used_at")

    def __init__(self) -> None:
        self.began = self.sequence = time_ns() // 1000
        self.messages: deque[_Kept] = deque()
        self.size = 0
        self.used_at = monotonic()


def _resolved(value: T, *, soon: bool = False) -> asyncio.Future[T]:
    """Return a future that has a result, at once or in the next turn of the event loop."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    if soon:
        loop.call_soon(_resolve, result, value)
    else:
        result.set_result(value)
    return result


def _resolve(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)
