"""What is published on a channel, what the channel keeps of it, and what the fan-out itself tells a client."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from ..sessions.fast_path import encode_with, text_frame
from .channels import display_name

MAX_SEQUENCE: Final = 2**53 - 1
"""What JavaScript can count to."""


class Gap(Struct, tag="gap"):
    """Messages of a channel did not reach this client: it was too slow, or they are not kept any more.

    Nothing is missing from what follows. `missed` is the number of messages, where it is known.
    """

    channel: str
    missed: int | None = None


@dataclass(slots=True, eq=False)
class Message:
    """A published message: one object for all connections of this node that receive it.

    Args:
        data: The message as JSON.
        sequence: Its number, one more than that of the message before it in the channel. A channel begins with the time
            in microseconds, so that it never gives a number twice, whatever is forgotten in between; JavaScript can
            count that far (below 2**53).
        exclude: The id of the connection that does not receive it, or "".
    """

    data: bytes
    sequence: int
    exclude: str = ""
    _frame: bytes = field(default=b"", init=False)
    _numbered: bytes = field(default=b"", init=False)
    _numbered_frame: bytes = field(default=b"", init=False)

    def payload(self, *, numbered: bool) -> bytes:
        """Return the message as JSON; `numbered` adds its `sequence`."""
        if not numbered:
            return self.data
        if not self._numbered:
            self._numbered = encode_with(msgspec.Raw(self.data), "sequence", self.sequence)
        return self._numbered

    def frame(self, *, numbered: bool) -> bytes:
        """Return the message as a frame (RFC 6455, section 5.2), made once for all connections."""
        if numbered:
            if not self._numbered_frame:
                self._numbered_frame = text_frame(self.payload(numbered=True))
            return self._numbered_frame
        if not self._frame:
            self._frame = text_frame(self.data)
        return self._frame


class GapMarker(Message):
    """Stands in a channel for messages that are lost to all its subscribers on this node. Its JSON is a `Gap`."""

    __slots__ = ()

    def __init__(self, channel: str, missed: int | None = None) -> None:
        super().__init__(msgspec.json.encode(Gap(display_name(channel), missed)), 0)

    def payload(self, *, numbered: bool) -> bytes:  # noqa: ARG002  it has no sequence
        return self.data


class History(NamedTuple):
    """The messages of a channel after some sequence, in order, as far as they are kept."""

    began: int
    """The sequence with which the channel began; its first message has the next one."""
    sequence: int
    """The last sequence that it gave."""
    messages: Sequence[Message]


class Members(NamedTuple):
    """Who is present in a channel."""

    sequence: int
    """The last sequence of the channel by then: what came up to it is known here, what comes later changes it."""
    states: dict[str, bytes]
    """The state of each member as JSON, or b""."""


def resume(channel: str, after: int, history: History, received: Iterable[Message] = ()) -> Iterator[Message]:
    """Yield what follows a sequence, each message once and in order, and a `GapMarker` for each hole.

    The one rule for whoever receives a channel again: a client that reconnects, and a node whose messages do not follow
    each other.

    Args:
        channel: The name of the channel.
        after: The last sequence that was received; 0 yields all that is kept.
        history: What the channel has after that sequence.
        received: Messages that arrived before the history did. One without data is known to be lost.
    """
    kept = {message.sequence: message for message in history.messages}
    late: list[Message] = []
    for message in received:
        if isinstance(message, GapMarker) or message.sequence > history.sequence:
            late.append(message)
        elif message.data:
            kept[message.sequence] = message
    last = after
    if not history.began <= after <= history.sequence:
        if after:
            yield GapMarker(channel)  # the channel has begun anew: nobody knows how many
        last = min(kept, default=history.sequence + 1) - 1
    for message in (*[kept[sequence] for sequence in sorted(kept)], Message(b"", history.sequence), *late):
        if isinstance(message, GapMarker):
            yield message
            last = 0
        elif message.sequence > last:
            first_missed = last + 1 if last else message.sequence
            missed = message.sequence - first_missed + (not message.data)
            if missed:
                yield GapMarker(channel, missed)
            if message.data:
                yield message
            last = message.sequence
