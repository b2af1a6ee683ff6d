"""The channels to which this node subscribes, and where each of them stands in its sequence."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
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


class Subscriptions:
    """Dispatches the messages of each channel once and in order, over all connections to the engine.

    Where messages do not follow each other (a connection was lost, or the engine has lost them), the channel is read
    again from its history, and a `GapMarker` stands for what is not there.
    """

    def __init__(self, dispatch: Dispatch, signer: Signer) -> None:
        self._dispatch = dispatch
        self._signer = signer
        self._subscriptions: set[str] = set()
        """The channels that are wanted."""
        self._last_sequence: dict[str, int] = {}
        """The channels whose messages follow each other, and the last sequence that came of each."""
        self._resume_points: dict[str, int] = {}
        """The last sequence of each channel that is to be resumed."""
        self._buffered: dict[str, list[Message]] = {}
        """What comes of a channel before it is known where it stands."""
        self._sync_wanted = asyncio.Event()
        self._next_sync = asyncio.Event()
        """Set when the channels have been synchronized once more."""
        self._failed: set[str] = set()
        """The channels that the engine could not read, when last asked."""
        self.dropped = 0
        """What arrived and is no message, or has a sequence that the engine has not given."""

    def sync_soon(self) -> None:
        """Have the channels synchronized as soon as there is a connection."""
        self._sync_wanted.set()

    async def sync_loop(self, backend: Backend) -> None:
        """Synchronize the channels whenever that is wanted, until the backend fails or this is cancelled."""
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted.clear()
            await self.sync(backend)

    def add(self, channel: str) -> None:
        """Subscribe to a channel, with the next `sync`."""
        self._subscriptions.add(channel)
        self.sync_soon()

    def discard(self, channel: str) -> None:
        """Unsubscribe from a channel, with the next `sync`: whoever leaves does not wait for the engine."""
        self._subscriptions.discard(channel)
        self._failed.discard(channel)
        self._resume_points.pop(channel, None)

    async def wait_synced(self, channel: str) -> None:
        """Wait until all that is published on a channel arrives, or nobody wants it any more.

        Raises:
            FanoutUnavailableError: The engine cannot read the channel.
        """
        while channel in self._subscriptions and channel not in self._last_sequence:
            self.sync_soon()
            await self._next_sync.wait()
            if channel in self._failed:
                raise FanoutUnavailableError(detail="the engine of the fan-out cannot read this channel")

    def receive(self, event: Event | None) -> None:
        """Dispatch a message, or have its channel resumed where messages before it are missing. None is no message."""
        if event is None:
            self.dropped += 1
            return
        channel, message, first = event
        last = self._last_sequence.get(channel)
        if not self._signer.open(channel, message):
            return
        if channel in self._buffered:
            self._buffered[channel].append(message)
        elif last is None or message.sequence <= last:
            return
        elif message.data and message.sequence == last + 1:
            self._last_sequence[channel] = message.sequence
            self._dispatch(channel, message)
        else:
            del self._last_sequence[channel]
            self._resume_points[channel] = message.sequence - 1 if first else last  # what came before it is forgotten
            self._buffered[channel] = [message]
            self.sync_soon()

    async def sync(self, backend: Backend) -> None:
        """Subscribe the backend to the channels that are wanted, and to no others.

        Raises:
            Exception: The backend has failed.
        """
        for channels in batches((self._last_sequence.keys() | self._buffered.keys()) - self._subscriptions):
            for channel in channels:
                self._last_sequence.pop(channel, None)
                self._buffered.pop(channel, None)
            async with asyncio.timeout(ANSWER_SECONDS):
                await backend.unsubscribe(channels)
        for channels in batches(self._subscriptions - self._last_sequence.keys()):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._subscribe(backend, channels)
        self._next_sync.set()
        self._next_sync = asyncio.Event()

    async def _subscribe(self, backend: Backend, channels: Sequence[str]) -> None:
        for channel in channels:
            self._buffered.setdefault(channel, [])
        await backend.subscribe(channels)
        arrived = {channel: len(self._buffered[channel]) for channel in channels}
        reads = [ReadHistory(channel=channel, after=self._resume_points.get(channel)) for channel in channels]
        histories: list[History | Exception] = await backend.apply(reads)
        for channel, history in zip(channels, histories, strict=True):
            if isinstance(history, Exception):  # the other channels are in order, and this one is tried again
                if channel not in self._failed:
                    log.error("channel cannot be read", channel=channel, problem=type(history).__name__)
                self._failed.add(channel)
                self._buffered.pop(channel, None)
            else:
                for message in history.messages:
                    self._signer.open(channel, message)
                self._catch_up(channel, history, arrived[channel])

    def _catch_up(self, channel: str, history: History, arrived: int) -> None:
        """Dispatch what was missed, then what has come meanwhile.

        Args:
            channel: The name of the channel.
            history: What the engine has of it.
            arrived: So many messages came before the history was asked for; the engine knows no later one than it says.
        """
        self._failed.discard(channel)
        after = self._resume_points.pop(channel, None)
        buffered = self._buffered.pop(channel)
        early = [message for message in buffered[:arrived] if message.sequence <= history.sequence]
        self.dropped += arrived - len(early)
        messages: Iterable[Message] = early + buffered[arrived:]
        if after is not None:
            messages = resume(channel, after, history, messages)
        last = history.sequence
        for message in messages:
            if message.data:
                self._dispatch(channel, message)
            last = max(last, message.sequence)
        self._last_sequence[channel] = last

    def connection_lost(self) -> None:
        """Resume all channels with the next `sync`, which has another backend."""
        self._resume_points.update(
            (channel, last) for channel, last in self._last_sequence.items() if channel in self._subscriptions
        )
        self._last_sequence.clear()
        self._buffered.clear()


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into lists of at most BATCH; `itertools.batched` is of Python 3.12."""
    rest = iter(tuple(items))
    while batch := list(islice(rest, BATCH)):
        yield batch
