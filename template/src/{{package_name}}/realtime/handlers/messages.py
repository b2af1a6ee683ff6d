"""What the wiring itself hears from a client, and says to it. Those of your service are in `messages.py` above."""

from typing import Final, Literal

import msgspec
from msgspec import Struct


class ErrorMessage(Struct, tag="error"):
    """A message was not understood; the connection stays open, and no handler has seen the message."""

    code: Literal["invalid_message"]
    detail: str


class Ping(Struct, tag="ping"):
    """A client asks for a sign of life: a browser shows its page no ping of the protocol (RFC 6455, 5.5.2)."""


class Pong(Struct, tag="pong"):
    """The answer to a `ping`, from the service itself; no handler has seen the `ping`."""


PINGS: Final = frozenset({'{"type":"ping"}', '{"type": "ping"}'})
"""A ping as `JSON.stringify` writes it, and as Python's `json.dumps` does."""
PONG: Final = msgspec.json.encode(Pong()).decode()
