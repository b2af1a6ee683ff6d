"""The messages that the service itself receives and sends. Those of your service are in `messages.py` above."""

import re
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar.exceptions import HTTPException
from msgspec import UNSET, Meta, Struct, UnsetType

RESERVED_TAGS: Final = frozenset({"error", "end", "cancel", "authenticate"})
"""What a message of a user may not be called."""
RESERVED_FIELDS: Final = frozenset({"ref", "sequence"})
"""The fields that the service adds to the messages that it sends."""


class MessageError(Exception):
    """Refuse a message: raise it in a listener, and the client is answered with an `ErrorMessage`.

    The connection stays open. To close it, raise Litestar's `WebSocketException`.

    Args:
        code: What a program reads, as in "name_taken".
        detail: What a person reads.
        extra: More for the program, such as the field that is wrong.
    """

    def __init__(self, code: str, detail: str = "", *, extra: dict[str, Any] | Struct | None = None) -> None:
        """Keep what the client is answered."""
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.extra = extra


class ErrorMessage(Struct, tag="error"):
    """The answer to a message that is refused. The connection stays open.

    A message that cannot be decoded is answered with the code "invalid_message", and no handler has seen it. A listener
    refuses one by `MessageError`, with a code of its own, or by one of Litestar's HTTP exceptions below 500, whose code
    is the name of its class: "permission_denied".

    Attributes:
        code: What is wrong, for a program.
        detail: What is wrong, in words: of msgspec, at most 200 characters, where it cannot be decoded.
        extra: What the listener adds.
    """

    code: Annotated[str, Meta(examples=["invalid_message"])]
    detail: str = ""
    extra: Any | UnsetType = UNSET


class End(Struct, tag="end"):
    """The end of the answers to a message that is answered by a stream, where that has a `ref`.

    Attributes:
        cancelled: The client has cancelled it.
    """

    cancelled: bool | UnsetType = UNSET


class Cancel(Struct, tag="cancel"):
    """A client wants no more of the answers to the message with this `ref`."""

    ref: Annotated[str, Meta(min_length=1, max_length=64)] | int


class Ping(Struct, tag="ping"):
    """A client asks for a sign of life. A browser does not show its page the pings of RFC 6455, section 5.5.2."""


class Pong(Struct, tag="pong"):
    """The answer to a `ping`, from the service itself; no handler has seen the `ping`."""


PING: Final = msgspec.json.encode(Ping())
PINGS: Final = frozenset({PING, PING.decode(), '{"type": "ping"}'})
"""A ping as `JSON.stringify` writes it, and as Python's `json.dumps` does; bytes where it had a `ref`."""


def error_answer(error: MessageError | HTTPException) -> ErrorMessage:
    """Return what answers a message that a listener refuses.

    Raises:
        HTTPException: Its status is 500 or more: the service has failed, or is not available.
    """
    if isinstance(error, MessageError):
        return ErrorMessage(error.code, error.detail, UNSET if error.extra is None else error.extra)
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    name = type(error).__name__.removesuffix("Exception")
    code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() or "http"
    return ErrorMessage(code, error.detail, error.extra if isinstance(error.extra, dict) else UNSET)
