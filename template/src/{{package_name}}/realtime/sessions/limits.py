"""How much one connection may send. What a slow consumer may leave unread is in `server/websocket_protocol.py`."""

from time import monotonic
from typing import Final

PONGS: Final = dict.fromkeys(('{"type":"ping"}', '{"type": "ping"}'), '{"type":"pong"}') | {"ping": "pong"}
"""What is a ping, and its answer: in JSON, as `JSON.stringify` and Python's `json.dumps` write it, and as plain text,
the default heartbeat of `useWebSocket` of VueUse and of `react-use-websocket`."""

BURST_SECONDS: Final = 10
"""Frames that are no message may come at once, as many as MAX_FRAMES_PER_SECOND allows in this time."""


class MessageLimit:
    """Messages per second: a token bucket, which lets a burst through.

    Args:
        rate: Messages per second, on average. 0 lifts the limit.
        burst: Messages at once.
    """

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = self._tokens = max(float(burst), 1.0)
        self._refilled_at = monotonic()

    def allows_message(self, now: float) -> bool:
        """Count one message.

        Args:
            now: When it came, as of `monotonic()`.

        Returns:
            Whether it is within the limit.
        """
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def refund(self, messages: int) -> None:
        """Count so many messages less; more, where it is negative."""
        self._tokens += messages


def frame_limit(rate: float) -> MessageLimit:
    """Return the limit of what is no message: of the frames of MAX_FRAMES_PER_SECOND, and of `ping` messages."""
    return MessageLimit(rate, round(rate * BURST_SECONDS))


class BadMessageLimit:
    """Invalid messages in a row. They are told by their numbers, so that a valid message costs nothing.

    Args:
        limit: Invalid messages in a row. 0 lifts the limit.
    """

    __slots__ = ("_in_a_row", "_latest", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_a_row = 0
        self._latest = 0

    def allows_another(self, number: int) -> bool:
        """Count an invalid message.

        Args:
            number: Which of all messages of its connection it is.

        Returns:
            Whether it is within the limit.
        """
        self._in_a_row = self._in_a_row + 1 if number == self._latest + 1 else 1
        self._latest = number
        return not self._limit or self._in_a_row <= self._limit
