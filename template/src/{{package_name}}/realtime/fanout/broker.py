"""What carries messages from those who publish them to the subscribers of this node, and its settings."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from litestar.exceptions import ServiceUnavailableException
from prometheus_client.core import Metric
from pydantic import Field

from ..settings import SettingsGroup
from .messages import History, Members, Message

CHANNEL_SHARE: Final = 8
"""One channel keeps at most this fraction, one in so many, of the bytes of all history."""

MESSAGE_BYTES: Final = 200
"""Bytes that a message takes besides its JSON, roughly: many small ones are bounded too."""

Dispatch = Callable[[str, Message], None]
"""Called with a channel and a message for its subscribers on this node, in the order of the channel."""


class FanoutUnavailableError(ServiceUnavailableException):
    """The fan-out cannot do now what it was asked for.

    Where no handler catches it, a request is answered with 503 and a connection is closed with 1013: come back later.
    """


class Broker(ABC):
    """Gives each message of a channel its sequence, keeps it, and knows who is present.

    Futures fail with `FanoutUnavailableError` where the broker is closed or unavailable. They may be left unawaited.
    """

    @property
    def available(self) -> bool:
        """It can be reached now."""
        return True

    async def check(self) -> None:
        """Look before the service starts whether the settings are right.

        Raises:
            SettingsError: Only another setting helps.
        """
        return

    def collect(self) -> Iterator[Metric]:
        """Iterate over metrics of its own."""
        return iter(())

    @abstractmethod
    async def start(self, dispatch: Dispatch) -> None:
        """Begin, with nothing of what was before."""

    @abstractmethod
    async def stop(self) -> None:
        """Finish what can be finished soon. Whatever is asked for from then on fails at once."""

    @abstractmethod
    def subscribe(self, channel: str) -> None:
        """Dispatch the messages of a channel, as soon as possible."""

    @abstractmethod
    async def wait_subscribed(self, channel: str) -> None:
        """Wait until all that is published on a channel from now on is dispatched.

        Raises:
            FanoutUnavailableError: That took too long.
        """

    @abstractmethod
    def unsubscribe(self, channel: str) -> None:
        """Dispatch the messages of a channel no longer."""

    @abstractmethod
    def publish(self, channel: str, data: bytes, exclude: str = "") -> asyncio.Future[int]:
        """Publish JSON to all but the connection with the id `exclude`; return its sequence."""

    @abstractmethod
    async def read_history(self, channel: str, after: int) -> History:
        """Return what a channel has after a sequence."""

    @abstractmethod
    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[Any]:
        """Note that a member is in a channel on this node; publish `joined` if it was not there before on any.

        `left` is published when the member is gone from all nodes. Where either is empty, nothing is.
        """

    @abstractmethod
    def set_presence_state(self, channel: str, member: str, state: bytes) -> asyncio.Future[Any]:
        """Keep the state of a member that is in a channel, until it is gone from all nodes; publish a new one."""

    @abstractmethod
    def leave_presence(self, channel: str, member: str) -> asyncio.Future[Any]:
        """Note that a member has left a channel on this node."""

    @abstractmethod
    async def remember(self, text: str, until: float) -> None:
        """Keep a text for all nodes, those that start later too, whatever the settings of the history.

        Args:
            text: What is kept.
            until: The Unix time at which it is forgotten.
        """

    @abstractmethod
    async def remembered(self) -> list[str]:
        """Return all that is kept."""

    @abstractmethod
    async def members(self, channel: str) -> Members:
        """Return who is in a channel, over all nodes, in one step."""


class FanoutSettings(SettingsGroup):
    """What the fan-out keeps, and what it does with slow consumers."""

    history: int = Field(default=100, ge=0)
    """Messages that are kept of each channel for clients that reconnect. 0 keeps none."""
    history_seconds: float = Field(default=300, ge=1)
    """Seconds that the history of a channel is kept after its last message. At least 1."""
    history_bytes: int = Field(default=67_108_864, ge=1_048_576)
    """Bytes of history that this node, or the engine, keeps of all channels; at most an eighth of them of one channel.
    The channel that was silent for longest is forgotten first. At least 1 MiB; the default is 64 MiB."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of one channel that wait for one slow consumer. At least 1."""
    backlog_full: Literal["drop", "close"] = "drop"
    """When the backlog is full: `drop` the oldest message and tell the client of the gap, or `close` with 1013."""

    presence_state_seconds: float = Field(default=1, ge=0)
    """Seconds between two changes of the state of one member that a node publishes; of those in between the last.
    0 lifts the limit."""

    @abstractmethod
    def make_broker(self) -> Broker:
        """Make what carries the messages."""


@dataclass(slots=True)
class _Member:
    joining: asyncio.Future[Any]
    connections: int = 0
    throttled: asyncio.TimerHandle | None = None
    """Until it is due, changes of the state wait."""
    waiting: bytes = b""
    """The last of them."""


class Presence:
    """Tells the broker of the first connection of each member of a channel on this node, and of the end of the last.

    Args:
        broker: What is told.
        state_seconds: Seconds between two changes of the state of a member.
    """

    def __init__(self, broker: Broker, state_seconds: float) -> None:
        self._broker = broker
        self._state_seconds = state_seconds
        self._members: dict[tuple[str, str], _Member] = {}

    async def join(self, channel: str, member: str, joined: bytes, left: bytes) -> None:
        """Count a connection of a member, until `leave` is called. Where this raises, it is not counted.

        Raises:
            FanoutUnavailableError: The broker could not be told in time.
        """
        entry = self._members.get((channel, member))
        if entry is None:
            joining = self._broker.join_presence(channel, member, joined, left)
            entry = self._members[channel, member] = _Member(joining)
        entry.connections += 1
        try:
            await asyncio.shield(entry.joining)
        except BaseException:
            self.leave(channel, member)
            raise

    async def set_state(self, channel: str, member: str, state: bytes) -> None:
        """Change the state of a member that is counted: at once, or as soon as its last change is old enough.

        Raises:
            FanoutUnavailableError: The broker could not be told in time.
        """
        entry = self._members[channel, member]
        if entry.throttled:
            entry.waiting = state
        else:
            await asyncio.shield(self._send_state(channel, member, state))

    def _send_state(self, channel: str, member: str, state: bytes) -> asyncio.Future[Any]:
        if seconds := self._state_seconds:
            due = asyncio.get_running_loop().call_later(seconds, self._send_waiting, channel, member)
            self._members[channel, member].throttled = due
        return self._broker.set_presence_state(channel, member, state)

    def _send_waiting(self, channel: str, member: str) -> None:
        entry = self._members[channel, member]
        entry.throttled, state, entry.waiting = None, entry.waiting, b""
        if state:
            self._send_state(channel, member, state)

    def leave(self, channel: str, member: str) -> None:
        """Count a connection of a member no longer."""
        entry = self._members[channel, member]
        entry.connections -= 1
        if not entry.connections:
            if entry.throttled:
                entry.throttled.cancel()
            del self._members[channel, member]
            self._broker.leave_presence(channel, member)


def fail(result: asyncio.Future[Any], detail: str) -> None:
    """Let a future fail that perhaps nobody awaits, unless it is done."""
    if not result.done():
        result.set_exception(FanoutUnavailableError(detail=detail))
        result.exception()  # else asyncio logs it where nobody awaits the future


def closed() -> asyncio.Future[Any]:
    """Return a future that has failed because the fan-out is closed."""
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    fail(result, "the fan-out is closed")
    return result
