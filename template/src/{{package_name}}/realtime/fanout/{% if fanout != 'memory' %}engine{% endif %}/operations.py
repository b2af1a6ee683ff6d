"""What an engine can be asked to do."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import uuid4

from ..history import History

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Operation(Generic[T]):
    """One step in the engine, in order with all others of its channel; the type parameter is the result's."""

    channel: str
    retried: bool = False
    """It was tried before, and nobody knows whether it was done."""


@dataclass(slots=True, kw_only=True)
class Publish(Operation[int]):
    """Give a message the next sequence of its channel, keep it, and send it to all nodes. Results in the sequence."""

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

    member: str
    joined: bytes
    left: bytes


@dataclass(slots=True, kw_only=True)
class PresenceLeave(Operation[None]):
    """Note that a member has left a channel on this node. If it is on no other, publish its `left`."""

    member: str


@dataclass(slots=True, kw_only=True)
class ListMembers(Operation[list[str]]):
    """List who is in a channel, over all nodes."""
