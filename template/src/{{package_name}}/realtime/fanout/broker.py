"""`Broker`: carries published messages to the subscribers of this node; and the settings of the fan-out."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from litestar.exceptions import ServiceUnavailableException
from prometheus_client.core import Metric
from pydantic import Field

from ..settings import Seconds, SettingsGroup
from .messages import History, Members, Message

CHANNEL_SHARE: Final = 8
"""One channel keeps at most this fraction, one in so many, of the bytes of all history."""

MESSAGE_BYTES: Final = 200
"""Bytes that a message takes besides its JSON, roughly: many small ones are bounded too."""

Dispatch = Callable[[str, Message], None]
"""Called with a channel and a message for its subscribers on this node, in the order of the channel."""


class FanoutUnavailableError(ServiceUnavailableException):
    """The fan-out is unavailable, so the call was not carried out.

    If no handler catches it, a request is answered with 503 and a connection is closed with 1013 (try again later).
    """


class Broker(ABC):
    """Number the messages of each channel, keep their history, and track presence.

    Futures fail with `FanoutUnavailableError` if the broker is closed or unavailable. They need not be awaited.
    """

    @property
    def available(self) -> bool:
        """It can be reached now."""
        return True

    async def check(self) -> None:
        """Check the settings before the service starts.

        Raises:
            SettingsError: A setting is wrong.
        """
        return

    def collect(self) -> Iterator[Metric]:
        """Iterate over metrics of its own."""
        return iter(())

    @abstractmethod
    async def start(self, dispatch: Dispatch) -> None:
        """Start with empty state."""

    @abstractmethod
    async def stop(self) -> None:
        """Finish pending work that can finish soon. Later calls fail at once."""

    @abstractmethod
    def subscribe(self, channel: str) -> None:
        """Start to dispatch the messages of a channel, as soon as possible."""

    @abstractmethod
    async def wait_subscribed(self, channel: str) -> None:
        """Wait until the subscription to a channel is in effect, so that every later message is dispatched.

        Raises:
            FanoutUnavailableError: That took too long.
        """

    @abstractmethod
    def unsubscribe(self, channel: str) -> None:
        """Stop dispatching the messages of a channel."""

    @abstractmethod
    def publish(self, channel: str, data: bytes, exclude: str = "") -> asyncio.Future[int]:
        """Publish JSON to all but the connection with the id `exclude`; return its sequence."""

    @abstractmethod
    async def read_history(self, channel: str, after: int) -> History:
        """Return the messages of a channel after a sequence, as far as they are kept."""

    @abstractmethod
    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[Any]:
        """Note that a member is in a channel on this node; publish `joined` if it was not there before on any.

        `left` is published when the member is gone from all nodes. Where either is empty, nothing is.
        """

    @abstractmethod
    def set_presence_state(self, channel: str, member: str, state: bytes = b"") -> asyncio.Future[float]:
        """Keep the state of a member that is in a channel, until it is gone from all nodes; publish a new one.

        One is published PRESENCE_STATE_SECONDS after the one before it, or where its member leaves a node meanwhile.

        Args:
            channel: The name of the channel.
            member: Whose state it is. Where it is in the channel on no node, nothing happens.
            state: The state as JSON. Without one, what is kept is published, unless it has been.

        Returns:
            A future of the seconds after which this is to be called again without a state; 0 where nothing waits.
        """

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
        """Return the texts that are kept."""

    @abstractmethod
    async def members(self, channel: str) -> Members:
        """Return who is in a channel, over all nodes, in one step."""


class FanoutSettings(SettingsGroup):
    """What the fan-out keeps, and what it does with slow consumers."""

    history: int = Field(default=100, ge=0)
    """Messages that each channel keeps for clients that reconnect. 0 keeps none."""
    history_seconds: Seconds = Field(default=300, ge=1)
    """Seconds that the history of a channel is kept after its last message. At least 1."""
    history_bytes: int = Field(default=67_108_864, ge=1_048_576)
    """Bytes of history that this node, or the engine, keeps for all channels together; one channel uses at most an
    eighth. The history of the channel that was silent for longest is dropped first. At least 1 MiB; the default is 64
    MiB."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of one channel that wait for one slow consumer. At least 1."""
    backlog_full: Literal["drop", "close"] = "drop"
    """When the backlog is full: `drop` the oldest message and tell the client of the gap, or `close` with 1013."""

    presence_state_seconds: Seconds = Field(default=1, ge=0)
    """Seconds between two published changes of one member's state, across all nodes. Of the changes in between, only
    the last is published. 0 lifts the limit."""

    @abstractmethod
    def make_broker(self) -> Broker:
        """Make the broker for the settings."""


@dataclass(slots=True)
class _Member:
    joining: asyncio.Future[Any]
    connections: int = 0


class Presence:
    """Tells the broker of the first connection of each member of a channel on this node, and of the end of the last.

    Args:
        broker: The broker that is told.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._members: dict[tuple[str, str], _Member] = {}
        self._throttled: set[tuple[str, str]] = set()
        """Those whose state is published later; they may have left this node meanwhile, and be on others."""

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
        """Change the state of a member. It is published now, or as soon as the last one is old enough.

        Raises:
            FanoutUnavailableError: The broker could not be told in time.
        """
        await asyncio.shield(self._set_state(channel, member, state))

    def _set_state(self, channel: str, member: str, state: bytes = b"") -> asyncio.Future[float]:
        result = self._broker.set_presence_state(channel, member, state)
        result.add_done_callback(partial(self._publish_later, channel, member))
        return result

    def _publish_later(self, channel: str, member: str, result: asyncio.Future[float]) -> None:
        throttled = not result.cancelled() and not result.exception() and result.result()
        if throttled and (channel, member) not in self._throttled:
            self._throttled.add((channel, member))
            asyncio.get_running_loop().call_later(throttled, self._publish_state, channel, member)

    def _publish_state(self, channel: str, member: str) -> None:
        self._throttled.remove((channel, member))
        self._set_state(channel, member)

    def leave(self, channel: str, member: str) -> None:
        """Stop counting a connection of a member."""
        entry = self._members[channel, member]
        entry.connections -= 1
        if not entry.connections:
            del self._members[channel, member]
            self._broker.leave_presence(channel, member)


def fail(result: asyncio.Future[Any], detail: str) -> None:
    """Set an exception on a future that may never be awaited, unless it is done."""
    if not result.done():
        result.set_exception(FanoutUnavailableError(detail=detail))
        result.exception()  # else asyncio logs it where nobody awaits the future


def closed() -> asyncio.Future[Any]:
    """Return a future that has failed because the fan-out is closed."""
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    fail(result, "the fan-out is closed")
    return result
