"""What an engine must be able to do. A link is one live connection to it; that it breaks, and what then, is the
concern of `engine.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, Self, TypeVar
from uuid import uuid4

import msgspec

from ..sessions.frames import text_frame
from .messages import Gap
from .settings import FanoutSettings

T = TypeVar("T")


class Published(bytes):
    """A message as JSON, and its place in its channel. One object for all who hear it."""

    sequence: int
    """One more than that of the message before it. A channel begins with the time in microseconds, so that it never
    gives a number twice, whatever is forgotten in between; JavaScript can count that far (below 2**53)."""
    skipped: str
    """The id of the connection that shall not hear it, or ""."""

    def __new__(cls, data: bytes, sequence: int, skipped: str = "") -> Self:
        published = super().__new__(cls, data)
        published.sequence = sequence
        published.skipped = skipped
        return published

    @cached_property
    def text(self) -> str:
        """The message as it was published."""
        return self.decode()

    @cached_property
    def numbered(self) -> str:
        """The message with its `sequence` as the last field."""
        return f'{self.text[:-1]},"sequence":{self.sequence}}}'

    @cached_property
    def frame(self) -> bytes:
        """The message as a frame (RFC 6455, 5.2)."""
        return text_frame(self)

    @cached_property
    def numbered_frame(self) -> bytes:
        """The message with its `sequence` as a frame."""
        return text_frame(self.numbered.encode())


class Hole(Published):
    """Stands for messages that are lost to all who hear the channel on this node; it is a `Gap` as JSON."""

    @classmethod
    def of(cls, channel: str, missed: int | None) -> Self:
        """Make the hole of so many messages; None where nobody knows how many."""
        return cls(msgspec.json.encode(Gap(channel=channel, missed=missed)), 0)

    @cached_property
    def numbered(self) -> str:
        """The same: it has no sequence."""
        return self.text


@dataclass(slots=True, kw_only=True)
class Operation(Generic[T]):
    """What the engine shall do, in order with all else that it is asked; the type parameter is the result's."""

    channel: str
    again: bool = False
    """It was tried before, and nobody knows whether it was done."""


@dataclass(slots=True, kw_only=True)
class Publish(Operation[int]):
    """Give a message the next sequence of its channel, keep it, and tell all who listen. Results in the sequence."""

    data: bytes
    skipped: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)
    """By this it is found where it is tried again."""


class History(NamedTuple):
    """What a channel still has after some sequence, in order."""

    began: int
    """The sequence with which it began, since it was last forgotten; its first message has the next one."""
    sequence: int
    """The last that it gave."""
    messages: Sequence[Published]

    def missed(self, after: int) -> int | None:
        """Count the messages after that sequence that nobody has any more; None where nobody knows."""
        return self.sequence - after - len(self.messages) if self.began <= after <= self.sequence else None


@dataclass(slots=True, kw_only=True)
class Since(Operation[History]):
    """Look what a channel has after a sequence: with 0 all of it, with None nothing but its last sequence."""

    after: int | None = None


@dataclass(slots=True, kw_only=True)
class Arrive(Operation[None]):
    """Note that a member is in a channel on this node. If it was there on no node, publish `joined`, unless empty.

    `left` is kept, for whichever node finds that the member is on no node any more.
    """

    member: str
    joined: bytes
    left: bytes


@dataclass(slots=True, kw_only=True)
class Depart(Operation[None]):
    """Note that a member has left a channel on this node. If it is there on no other, publish its `left`."""

    member: str


@dataclass(slots=True, kw_only=True)
class Members(Operation[list[str]]):
    """List who is in a channel, over all nodes."""


class Pulse(NamedTuple):
    """What an engine answers to a sign of life."""

    lifetime: str
    """Changes when the engine has forgotten all that it knew."""
    known: bool
    """It knew of this node; where not, it took the node for dead, or has forgotten it."""


class Link(ABC):
    """One live connection to an engine. Once anything it does has raised, or taken too long, it is thrown away."""

    keeps_history: bool
    """What is published twice is kept once, so that an operation may be tried again."""

    @classmethod
    @abstractmethod
    async def connect(cls, settings: FanoutSettings, node: str) -> Self:
        """Connect.

        Raises:
            EngineRefusedError: The engine is there, and will never let us in like this.
            Exception: It is not there.
        """

    @abstractmethod
    async def listen(self, channels: Collection[str]) -> None:
        """Hear channels: once this returns, all that is published on them."""

    @abstractmethod
    async def ignore(self, channels: Collection[str]) -> None:
        """Hear channels no longer."""

    @abstractmethod
    def events(self) -> AsyncIterator[tuple[str, Published]]:
        """Iterate over what is published on the channels, in the order of each channel."""

    @abstractmethod
    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Do operations, in the order of each channel; return the result of each, or the exception it failed with."""

    @abstractmethod
    async def pulse(self) -> Pulse:
        """Show that this node lives, look whether the engine does, and bury the nodes that show no life."""

    @abstractmethod
    async def entries(self) -> set[tuple[str, str]]:
        """Return what the engine believes to be on this node: channels and members."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection, whatever its state."""


class EngineRefusedError(Exception):
    """The engine is there and refuses, for a reason that only a change of the URL mends."""
