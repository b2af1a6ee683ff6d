"""What channels are called, what is published on them, what they keep of it, and what the fan-out tells a client.

Channels are those of rooms, of users and of nodes, which no name crosses. A room has its own name. The others begin
with NUL, and a room whose name does so has one more in front.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from litestar.exceptions import ClientException
from msgspec import Struct

from ..sessions.fast_path import encode_with, text_frame

MAX_SEQUENCE: Final = 2**53 - 1
"""What JavaScript can count to."""

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in the name of a room or a user; it often comes from a URL, so from untrusted clients."""

_NODES: Final = "\0node:"
_USERS: Final = "\0user:"


def room_channel(name: str) -> str:
    """Return the channel of a room.

    Raises:
        ClientException: The name is too long, or not UTF-8.
    """
    check_name(name, "the name of a channel")
    return f"\0{name}" if name.startswith("\0") else name


def user_channel(user: str) -> str:
    """Return the channel of a user.

    Raises:
        ClientException: The name is too long, or not UTF-8.
    """
    check_name(user, "the name of a user")
    return _USERS + user


def node_channel(name: str) -> str:
    """Return a channel over which the nodes of the service talk to each other."""
    return _NODES + name


def is_node_channel(channel: str) -> bool:
    """Return whether a channel is one of the nodes."""
    return channel.startswith(_NODES)


def is_room(channel: str) -> bool:
    """Return whether a channel is that of a room."""
    return not channel.startswith((_NODES, _USERS))


def display_name(channel: str) -> str:
    """Return the name of a channel for clients: the name of the room, or `user:` and the name of the user."""
    return channel.removeprefix("\0")


def check_name(name: str, what: str) -> None:
    """Check the name of a room or a user.

    Raises:
        ClientException: It is too long, or not UTF-8.
    """
    try:
        too_long = len(name.encode()) > MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        raise ClientException(detail=f"{what} is not UTF-8") from None
    if too_long:
        raise ClientException(detail=f"{what} has at most {MAX_NAME_BYTES} bytes")


class Gap(Struct, tag="gap"):
    """Messages of a channel did not reach this client: it was too slow, or they are no longer kept.

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
        """Return the message as JSON; `numbered` adds its `sequence`, where it has one."""
        if not (numbered and self.sequence):
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
    """Marks messages of a channel that all subscribers on this node have missed. Its JSON is a `Gap`.

    Args:
        channel: The name of the channel.
        missed: How many were missed, where it is known.
        until: The sequence of the last of them, or 0 where the channel may have begun anew.
    """

    __slots__ = ("missed", "until")

    def __init__(self, channel: str, missed: int | None = None, until: int = 0) -> None:
        super().__init__(msgspec.json.encode(Gap(display_name(channel), missed)), 0)
        self.missed = missed or 1  # at least
        self.until = until


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
    """Yield the messages after a sequence, each once and in order, and a `GapMarker` for each hole.

    Used wherever a channel is resumed: for a client that reconnects, and for a node whose messages do not follow
    each other.

    Args:
        channel: The name of the channel.
        after: The last sequence that was received; 0 yields all that is kept.
        history: The messages of the channel after that sequence.
        received: Messages that arrived before the history did. One without data is known to be lost.
    """
    kept = {message.sequence: message for message in history.messages}
    late: list[Message] = []
    for each in received:
        # Of what was missed, the history may have some.
        message = Message(b"", each.until) if isinstance(each, GapMarker) and each.until else each
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
                yield GapMarker(channel, missed, message.sequence - bool(message.data))
            if message.data:
                yield message
            last = message.sequence
