"""The messages that the service itself receives and sends. Those of your service are in `messages.py` above."""

from typing import Literal

from msgspec import Struct


class ErrorMessage(Struct, tag="error"):
    """The answer to a message that cannot be decoded. The connection stays open; no handler has seen the message.

    Attributes:
        code: "invalid_message".
        detail: What is wrong with the message, in msgspec's words; at most 200 characters.
    """

    code: Literal["invalid_message"]
    detail: str


class Ping(Struct, tag="ping"):
    """A client asks for a sign of life. A browser does not show its page the pings of RFC 6455, section 5.5.2."""


class Pong(Struct, tag="pong"):
    """The answer to a `ping`, from the service itself; no handler has seen the `ping`."""
