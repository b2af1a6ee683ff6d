"""The interface of an engine. A backend is one live connection to it; `supervisor.py` replaces a broken one."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar
from uuid import uuid4

from ..messages import MAX_SEQUENCE, History, Members, Message
from .settings import EngineSettings

T = TypeVar("T")


class Event(NamedTuple):
    """A message that arrived from the engine."""

    channel: str
    message: Message
    """Without data where the engine has lost it already."""
    first: bool
    """No message of the channel came before it, or what came before is forgotten."""


def parse_event(channel: str, sequence: bytes, first: bytes, exclude: bytes, data: bytes) -> Event | None:
    """Return a message as it arrived, or None where it cannot be one of this service."""
    if not (sequence.isdigit() and int(sequence) <= MAX_SEQUENCE and exclude.isascii()):
        return None
    message = Message(data, int(sequence), "" if exclude == b"-" else exclude.decode())
    return Event(channel, message, first == b"1")


class Heartbeat(NamedTuple):
    """The answer of an engine to a heartbeat of this node."""

    lifetime: str
    """Changes when the engine has forgotten all that it knew."""
    known: bool
    """It knew this node; where not, it took the node for dead, or has forgotten it."""


@dataclass(slots=True, kw_only=True)
class Operation(Generic[T]):
    """One step in the engine, in order with all others of its channel; the type parameter is the result's."""

    channel: str
    member: str = ""
    retried: bool = False
    """It was tried before, and nobody knows whether it was done."""


@dataclass(slots=True, kw_only=True)
class Publish(Operation[int]):
    """Give a message the next sequence of its channel, keep it, and send it to all nodes. Results in the sequence.

    One without data stands for a message that is lost.
    """

    data: bytes
    exclude: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)
    """By this it is found when it is retried."""


@dataclass(slots=True, kw_only=True)
class ReadHistory(Operation[History]):
    """Read what a channel has after a sequence: with 0 all that is kept, with None only its last sequence."""

    after: int | None = None


@dataclass(slots=True, kw_only=True)
class PresenceJoin(Operation[None]):
    """Note that a member is in a channel on this node. If it was there on no node, publish `joined`, unless empty.

    `left` is kept, for whichever node finds that the member is on no node any more.
    """

    joined: bytes
    left: bytes


@dataclass(slots=True, kw_only=True)
class PresenceLeave(Operation[None]):
    """Note that a member has left a channel on this node. If it is on no other, publish its `left`."""


@dataclass(slots=True, kw_only=True)
class PresenceState(Operation[float]):
    """If a member is in a channel on any node, keep its state, and publish what is kept, unless it has been.

    Results in the seconds until that is allowed, or 0 where nothing waits: see `Broker.set_presence_state`.
    """

    state: bytes = b""
    restored: bool = False
    """Keep the state only if there is none: what another node has set meanwhile is newer."""


@dataclass(slots=True, kw_only=True)
class Remember(Operation[None]):
    """Keep a text until a Unix time."""

    text: bytes
    until: float


@dataclass(slots=True, kw_only=True)
class ListRemembered(Operation[list[bytes]]):
    """List what is kept."""


@dataclass(slots=True, kw_only=True)
class ListMembers(Operation[Members]):
    """List who is in a channel, over all nodes."""


class EngineRefusedError(Exception):
    """The engine refuses the connection, for a reason that only another URL resolves."""


class Backend(ABC):
    """One live connection to an engine. It is discarded once an operation has raised or taken too long."""

    keeps_history: bool
    """What is published twice is kept once, so that an operation may be retried."""

    @classmethod
    @abstractmethod
    async def connect(cls, settings: EngineSettings, node: str) -> Self:
        """Connect.

        Raises:
            EngineRefusedError: The engine is there, and will never let us in like this.
            Exception: It is unavailable.
        """

    @abstractmethod
    async def subscribe(self, channels: Collection[str]) -> None:
        """Subscribe to channels: once this returns, `events` yields all that is published on them."""

    @abstractmethod
    async def unsubscribe(self, channels: Collection[str]) -> None:
        """Unsubscribe from channels."""

    @abstractmethod
    def events(self) -> Sequence[AsyncIterator[Event | None]]:
        """Iterate, for each server, over what is published on its channels, in the order of each channel.

        None stands for what is no message.

        Others may write to the same server. What they send is no failure of the backend.
        """

    @abstractmethod
    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Do operations, in the order of each channel; return the result of each, or the exception it failed with.

        What is the fault of one operation fails it alone; what is raised is a failure of the backend.
        """

    @abstractmethod
    async def heartbeat(self) -> Heartbeat:
        """Send a heartbeat of this node, check that the engine answers, and expire nodes without heartbeats."""

    @abstractmethod
    async def registered_members(self) -> set[tuple[str, str]]:
        """Return the channels and members that the engine has recorded for this node."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, whatever its state."""
