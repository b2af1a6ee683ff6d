"""The engine `memory://`: this process alone. Nothing of it breaks, and nothing outlives the process."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Collection, Sequence
from time import monotonic, time_ns
from typing import Any, Final, Self
from uuid import uuid4

from .link import Arrive, Depart, History, Link, Members, Operation, Publish, Published, Pulse, Since
from .settings import FanoutSettings

MAX_CHANNELS: Final = 10_000
"""Channels whose history is kept; the one that was silent for longest is forgotten for the next."""


class _Channel:
    __slots__ = ("began", "messages", "sequence", "used_at")

    def __init__(self, history: int) -> None:
        self.began = self.sequence = time_ns() // 1000
        self.messages: deque[Published] = deque(maxlen=history)
        self.used_at = monotonic()


class MemoryLink(Link):
    """All that there is to know, in dictionaries."""

    keeps_history = True

    def __init__(self, settings: FanoutSettings) -> None:
        self._settings = settings
        self._channels: OrderedDict[str, _Channel] = OrderedDict()
        self._present: dict[str, dict[str, bytes]] = {}
        self._listening: set[str] = set()
        self._events: asyncio.Queue[tuple[str, Published]] = asyncio.Queue()
        self._lifetime = uuid4().hex

    @classmethod
    async def connect(cls, settings: FanoutSettings, node: str) -> Self:  # noqa: ARG003
        return cls(settings)

    async def listen(self, channels: Collection[str]) -> None:
        self._listening.update(channels)

    async def ignore(self, channels: Collection[str]) -> None:
        self._listening.difference_update(channels)

    async def events(self) -> AsyncIterator[tuple[str, Published]]:
        while True:
            yield await self._events.get()

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        return [self._apply(operation) for operation in operations]

    def _apply(self, operation: Operation[Any]) -> Any:
        match operation:
            case Publish(channel=channel, data=data, skipped=skipped):
                return self._publish(channel, data, skipped)
            case Since(channel=channel, after=after):
                kept = self._channel(channel)
                messages = [] if after is None else [each for each in kept.messages if each.sequence > after]
                return History(kept.began, kept.sequence, messages)
            case Arrive(channel=channel, member=member, joined=joined, left=left):
                members = self._present.setdefault(channel, {})
                if member not in members:
                    members[member] = left
                    self._announce(channel, joined)
            case Depart(channel=channel, member=member):
                members = self._present.get(channel, {})
                left = members.pop(member, b"")
                if not members:
                    self._present.pop(channel, None)
                self._announce(channel, left)
            case Members(channel=channel):
                return list(self._present.get(channel, ()))
            case _:
                raise TypeError(operation)
        return None

    def _publish(self, channel: str, data: bytes, skipped: str = "") -> int:
        kept = self._channel(channel)
        kept.sequence += 1
        published = Published(data, kept.sequence, skipped)
        kept.messages.append(published)
        if channel in self._listening:
            self._events.put_nowait((channel, published))
        return kept.sequence

    def _announce(self, channel: str, message: bytes) -> None:
        if message:
            self._publish(channel, message)

    def _channel(self, name: str) -> _Channel:
        kept = self._channels.get(name)
        if kept is None:
            kept = self._channels[name] = _Channel(self._settings.history)
            if len(self._channels) > MAX_CHANNELS:
                self._channels.popitem(last=False)
        else:
            self._channels.move_to_end(name)
            kept.used_at = monotonic()
        return kept

    async def pulse(self) -> Pulse:
        oldest = monotonic() - self._settings.history_seconds
        while self._channels:
            name, kept = next(iter(self._channels.items()))
            if kept.used_at > oldest:
                break
            del self._channels[name]
        return Pulse(self._lifetime, known=True)

    async def entries(self) -> set[tuple[str, str]]:
        return {(channel, member) for channel, members in self._present.items() for member in members}

    async def close(self) -> None:
        pass
