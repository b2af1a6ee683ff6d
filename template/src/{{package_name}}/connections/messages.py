"""What the wiring itself says to a client. The messages of your service are in `messages.py` above."""

from typing import Literal

from msgspec import Struct


class ErrorMessage(Struct, tag="error"):
    """A message was not understood; the connection stays open, and no handler has seen the message."""

    code: Literal["invalid_message"]
    detail: str
