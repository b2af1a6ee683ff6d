"""How much one connection may send, and one client. What a slow consumer may leave unread is in
`server/websocket_protocol.py`.
"""

from time import monotonic
from typing import Final

import msgspec

from ..settings import CoreSettings

PONGS: Final = dict.fromkeys(('{"type":"ping"}', '{"type": "ping"}'), '{"type":"pong"}') | {"ping": "pong"}
"""What is a ping, and its answer: in JSON, as `JSON.stringify` and Python's `json.dumps` write it, and as plain text,
the default heartbeat of `useWebSocket` of VueUse and of `react-use-websocket`. In JSON it may have a `ref` too."""

decode_ping: Final = msgspec.json.Decoder(msgspec.defstruct("Ping", [], tag="ping")).decode

MAX_PING: Final = 500
"""Characters of a ping with a `ref`."""

BURST_SECONDS: Final = 10
"""Where a rate has no burst of its own, what it allows in this time may come at once."""


class TokenBucket:
    """So many a second, on average; a burst may come at once.

    Args:
        rate: How many a second: messages, frames or bytes. 0 lifts the limit.
        burst: How many at once; ten seconds' worth by default.
    """

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = self._tokens = max(rate * BURST_SECONDS if burst is None else burst, 1.0)
        self._refilled_at = monotonic()

    def allows(self, now: float) -> bool:
        """Count one, and return whether it is within the limit; one that is not does not count.

        Args:
            now: When it came, as of `monotonic()`.
        """
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def charge(self, amount: float) -> None:
        """Count so many more, allowed or not; less, where it is negative."""
        self._tokens -= amount

    def is_full(self) -> bool:
        """Return whether it is as if nothing had ever been counted."""
        return not self._rate or self._tokens + (monotonic() - self._refilled_at) * self._rate >= self._burst


class Client:
    """What all connections of one client have in common, those that have ended included: of an address, or of a user.

    Args:
        key: What it is kept by.
        settings: The limits.
    """

    __slots__ = ("_bytes", "_messages", "key", "sessions")

    def __init__(self, key: tuple[str, str], settings: CoreSettings) -> None:
        self.key = key
        self.sessions = 0
        """Those whose descriptor is open."""
        rate = settings.max_messages_per_second_per_address if settings.max_messages_per_second else 0
        self._messages = TokenBucket(rate)
        self._bytes = TokenBucket(settings.max_bytes_per_second_per_address)

    def exceeded(self, messages: int = 0, size: int = 0) -> str:
        """Count messages of so many bytes together; return the setting whose limit is exceeded, or ""."""
        now = monotonic()
        for bucket, amount, setting in (
            (self._messages, messages, "max_messages_per_second_per_address"),
            (self._bytes, size, "max_bytes_per_second_per_address"),
        ):
            bucket.charge(amount - 1)
            if not bucket.allows(now):
                return setting
        return ""

    def is_fresh(self) -> bool:
        """Return whether it is as if it had never connected."""
        return not self.sessions and self._messages.is_full() and self._bytes.is_full()


def is_ping(text: str | None) -> bool:
    """Return whether a text message is a ping, with or without a `ref`."""
    if text is None or text in PONGS or len(text) > MAX_PING:
        return text in PONGS
    try:
        decode_ping(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    return True
