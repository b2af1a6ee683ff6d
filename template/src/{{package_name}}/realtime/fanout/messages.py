"""What is published on a channel, and what the fan-out itself tells a client."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from ..sessions.frames import text_frame


class Gap(Struct, tag="gap"):
    """Messages of a channel did not reach this client: it was too slow, or they are not kept any more.

    Nothing is missing from what follows. `missed` is the number of messages, where it is known.
    """

    channel: str
    missed: int | None = None


class Message:
    """A published message: one object for all connections of this node that receive it.

    Args:
        data: The message as JSON.
        sequence: Its number, one more than that of the message before it in the channel. A channel begins with the time
            in microseconds, so that it never gives a number twice, whatever is forgotten in between; JavaScript can
            count that far (below 2**53).
        exclude: The id of the connection that does not receive it, or "".
    """

    __slots__ = ("_frame", "_numbered", "_numbered_frame", "data", "exclude", "sequence")

    def __init__(self, data: bytes, sequence: int, exclude: str = "") -> None:
        self.data = data
        self.sequence = sequence
        self.exclude = exclude
        self._frame = b""
        self._numbered = b""
        self._numbered_frame = b""

    def payload(self, *, numbered: bool) -> bytes:
        """Return the message as JSON; `numbered` adds its `sequence`."""
        if not numbered:
            return self.data
        if not self._numbered:
            self._numbered = add_sequence(self.data, self.sequence)
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
        super().__init__(msgspec.json.encode(Gap(channel, missed)), 0)

    def payload(self, *, numbered: bool) -> bytes:  # noqa: ARG002  it has no sequence
        return self.data


def add_sequence(data: bytes, sequence: int) -> bytes:
    """Add the field `sequence` to a JSON object; any other JSON has no place for it and is returned as it is."""
    if not data.startswith(b"{"):
        return data
    fields: dict[str, Any] = {**_FIELDS.decode(data), "sequence": sequence}
    return msgspec.json.encode(fields)


_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
