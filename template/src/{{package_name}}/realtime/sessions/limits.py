"""How much one connection may send, and one client. What a slow consumer may leave unread is in
`server/websocket_protocol.py`.
"""

from time import monotonic
from typing import Final, Literal

import msgspec

from ..settings import CoreSettings

PLAIN_PING: Final = "ping"
PLAIN_PONG: Final = "pong"
"""A ping in plain text, the default heartbeat of `useWebSocket` of VueUse and of `react-use-websocket`; its answer."""

PING_FIELDS: Final = ("type", Literal["ping"]), ("ref", msgspec.Raw, msgspec.Raw())
decode_ping: Final = msgspec.json.Decoder(msgspec.defstruct("Ping", PING_FIELDS, forbid_unknown_fields=True)).decode

MAX_PING: Final = 500
"""Characters of a ping."""

NOT_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeError)
"""What decoding raises of a text that is no JSON."""

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
        tokens = self._tokens + (now - self._refilled_at) * self._rate
        tokens = tokens if tokens < self._burst else self._burst  # `min` is a call
        self._tokens = tokens if tokens < 1 else tokens - 1
        self._refilled_at = now
        return tokens >= 1

    def charge(self, amount: float) -> bool:
        """Count so many, allowed or not; fewer, where it is negative. Return whether they are within the limit."""
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate) - amount
        self._refilled_at = now
        return not self._rate or self._tokens >= 0

    def is_full(self) -> bool:
        """Return whether it is as if nothing had ever been counted."""
        return self.charge(0) and (not self._rate or self._tokens >= self._burst)


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
        if not self._messages.charge(messages):
            return "max_messages_per_second_per_address"
        return "" if self._bytes.charge(size) else "max_bytes_per_second_per_address"

    def is_fresh(self) -> bool:
        """Return whether it is as if it had never connected."""
        return not self.sessions and self._messages.is_full() and self._bytes.is_full()


def is_ping(text: str | bytes | None) -> bool:
    """Return whether a message is a ping: in JSON, with or without a `ref`, or in plain text."""
    if text is None or text == PLAIN_PING or len(text) > MAX_PING:
        return text == PLAIN_PING
    try:
        decode_ping(text)
    except NOT_JSON:
        return False
    return True
