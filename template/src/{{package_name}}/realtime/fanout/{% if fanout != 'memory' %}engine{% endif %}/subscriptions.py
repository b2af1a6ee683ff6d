"""The channels to which this node subscribes, and where each of them stands in its sequence."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import structlog

from ..broker import Dispatch, FanoutUnavailableError
from ..messages import History, Message, resume
from .backend import Backend, Event, ReadHistory
from .send_queue import ANSWER_SECONDS, BATCH
from .signatures import Signer

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Channel:
    """Where this node stands in a channel."""

    wanted: bool = True
    synced: bool = False
    """Its messages follow each other, and all that is published arrives."""
    last: int = 0
    """The last sequence that came, after which it is resumed. 0 begins with what comes from now on."""
    buffered: list[Message] = field(default_factory=list[Message])
    """What came while it was not synced."""
    failed: bool = False
    """The engine could not read it, when last asked."""


class Subscriptions:
    """Dispatches the messages of each channel once and in order, over all connections to the engine.

    Where messages do not follow each other (a connection was lost, or the engine has lost them), the channel is read
    again from its history, and a `GapMarker` stands for what is not there.
    """

    def __init__(self, dispatch: Dispatch, signer: Signer) -> None:
        self._dispatch = dispatch
        self._signer = signer
        self._channels: dict[str, _Channel] = {}
        """The channels that are wanted, or were when the backend was last told."""
        self._sync_wanted = asyncio.Event()
        self._next_sync = asyncio.Event()
        """Set when the channels have been synchronized once more."""
        self.dropped = 0
        """What arrived and is no message, or has a sequence that the engine has not given."""

    def add(self, name: str) -> None:
        """Subscribe to a channel, with the next `sync`."""
        self._channels.setdefault(name, _Channel()).wanted = True
        self.sync_soon()

    def discard(self, name: str) -> None:
        """Unsubscribe from a channel, with the next `sync`: whoever leaves does not wait for the engine."""
        if channel := self._channels.get(name):
            channel.wanted = channel.failed = False
            if not channel.synced:
                channel.last = 0

    async def wait_synced(self, name: str) -> None:
        """Wait until all that is published on a channel arrives, or nobody wants it any more.

        Raises:
            FanoutUnavailableError: The engine cannot read the channel.
        """
        while (channel := self._channels.get(name)) and channel.wanted and not channel.synced:
            self.sync_soon()
            await self._next_sync.wait()
            if channel.failed:
                raise FanoutUnavailableError(detail="the engine of the fan-out cannot read this channel")

    def receive(self, event: Event | None) -> None:
        """Dispatch a message, or have its channel resumed where messages before it are missing. None is no message."""
        if event is None:
            self.dropped += 1
            return
        name, message, first = event
        channel = self._channels.get(name)
        data = self._signer.open(name, message.data, message.exclude)
        if channel is None or (message.data and not data):
            return
        message.data = data
        if not channel.synced:
            channel.buffered.append(message)
        elif message.data and message.sequence == channel.last + 1:
            channel.last = message.sequence
            self._dispatch(name, message)
        elif message.sequence > channel.last:
            channel.synced, channel.buffered = False, [message]
            if first:  # what came before it is forgotten
                channel.last = message.sequence - 1
            self.sync_soon()

    def sync_soon(self) -> None:
        """Have the channels synchronized as soon as there is a connection."""
        self._sync_wanted.set()

    async def sync_loop(self, backend: Backend) -> None:
        """Synchronize the channels whenever that is wanted, until the backend fails or this is cancelled."""
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted.clear()
            await self.sync(backend)

    async def sync(self, backend: Backend) -> None:
        """Subscribe the backend to the channels that are wanted, and to no others.

        Raises:
            Exception: The backend has failed.
        """
        unwanted = [name for name, channel in self._channels.items() if not channel.wanted]
        for name in unwanted:
            del self._channels[name]
        for names in batches(unwanted):
            async with asyncio.timeout(ANSWER_SECONDS):
                await backend.unsubscribe(names)
        for channels in batches((name, channel) for name, channel in self._channels.items() if not channel.synced):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._subscribe(backend, dict(channels))
        self._next_sync.set()
        self._next_sync = asyncio.Event()

    async def _subscribe(self, backend: Backend, channels: dict[str, _Channel]) -> None:
        for channel in channels.values():
            if not channel.last:  # what came before belongs to an older subscription
                channel.buffered = []
        await backend.subscribe(channels)
        early = [channel.buffered for channel in channels.values()]
        for channel in channels.values():
            channel.buffered = []
        reads = [ReadHistory(channel=name, after=channel.last or None) for name, channel in channels.items()]
        histories: list[History | Exception] = await backend.apply(reads)
        for (name, channel), arrived, history in zip(channels.items(), early, histories, strict=True):
            if isinstance(history, Exception):  # the other channels are in order, and this one is tried again
                if not channel.failed:
                    log.error("channel cannot be read", channel=name, problem=type(history).__name__)
                channel.failed = True
                channel.buffered.clear()
            else:
                for message in history.messages:
                    message.data = self._signer.open(name, message.data, message.exclude)
                self._catch_up(name, channel, history, arrived)

    def _catch_up(self, name: str, channel: _Channel, history: History, early: Sequence[Message]) -> None:
        """Dispatch what was missed, then what has come meanwhile.

        Args:
            name: The name of the channel.
            channel: Where this node stands in it.
            history: What the engine has of it.
            early: What came before the history was asked for; the engine knows no later sequence than it says.
        """
        known = [message for message in early if message.sequence <= history.sequence]
        self.dropped += len(early) - len(known)
        messages: Iterable[Message] = known + channel.buffered
        if channel.last:
            messages = resume(name, channel.last, history, messages)
        channel.last, channel.buffered = history.sequence, []
        channel.synced, channel.failed = True, False
        for message in messages:
            if message.data:
                self._dispatch(name, message)
            channel.last = max(channel.last, message.sequence)

    def connection_lost(self) -> None:
        """Resume all channels with the next `sync`, which has another backend."""
        self._channels = {name: channel for name, channel in self._channels.items() if channel.wanted}
        for channel in self._channels.values():
            channel.synced = False
            channel.buffered.clear()


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into lists of at most BATCH; `itertools.batched` is of Python 3.12."""
    rest = iter(tuple(items))
    while batch := list(islice(rest, BATCH)):
        yield batch
