"""What a channel has kept, and how a subscriber resumes from it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .messages import GapMarker, Message


class History(NamedTuple):
    """The messages of a channel after some sequence, in order, as far as they are kept."""

    began: int
    """The sequence with which the channel began; its first message has the next one."""
    sequence: int
    """The last sequence that it gave."""
    messages: Sequence[Message]


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
