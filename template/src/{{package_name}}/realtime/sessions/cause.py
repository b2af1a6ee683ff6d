"""Why a connection ended: the reasons, the causes of events and exceptions, and the close codes of RFC 6455, 7.4."""

from asyncio import CancelledError
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

from litestar.exceptions import (
    HTTPException,
    ServiceUnavailableException,
    ValidationException,
    WebSocketDisconnect,
    WebSocketException,
)
from litestar.types import ReceiveMessage
from websockets.frames import CloseCode

INTERNAL_ERROR: Final = "internal error"
"""All that a client learns about a bug."""

MAX_REASON_BYTES: Final = 123
"""Bytes of UTF-8 in a close reason: a control frame carries 125, two of which are the code (RFC 6455, 5.5)."""


class TooDeepError(ValidationException):
    """A message cannot be encoded, in most cases because of what a client sent: no bug, so there is no traceback."""

    code = "validation"
    """The error code for the client of a listener."""
    detail = "nested too deeply"


class Reason(StrEnum):
    """The reason why a connection ended. The first event that ends it decides, and later events do not change it."""

    CLIENT_CLOSED = "client_closed"
    """The client sent a close frame; the code is its own."""
    CONNECTION_LOST = "connection_lost"
    """The connection ended without a close frame: the network, a crash, a peer that answers no ping."""
    PROTOCOL_ERROR = "protocol_error"
    """The client violated the protocol (1002), or sent text that is not UTF-8 (1007)."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """The client exceeded a limit of the service (1008), sent a message that is too big (1009), or read too slowly
    (1013)."""
    ACCESS_ENDED = "access_ended"
    """The client may no longer be connected: its credentials expired, or its user logged out (1008)."""
    SERVICE_CLOSED = "service_closed"
    """A handler closed it with `socket.close(...)` or an exception that names a code or an HTTP status."""
    SERVICE_RESTARTS = "service_restarts"
    """The service drains its connections before it stops (1012)."""
    INITIALIZATION_FAILED = "initialization_failed"
    """`on_accept` raised (1011)."""
    HANDLER_FAILED = "handler_failed"
    """A handler raised: a bug in the service (1011)."""
    CANCELLED = "cancelled"
    """The task of the connection was cancelled from outside (1011)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a connection ended, as `on_disconnect` receives it."""

    reason: Reason
    code: int
    """The close code, 1000 to 4999; 1005 stands for a close frame without a code, 1006 for no close frame."""
    error: BaseException | None = None
    """The exception behind it, where the service failed."""


def cause_of_disconnect(message: ReceiveMessage) -> Cause:
    """Return the cause in a `websocket.disconnect` event.

    Only a close of the client comes with a `reason`. An end by the server does not, nor does a connection that is
    lost, for which servers have 1005 or 1006.
    """
    code = int(message.get("code", CloseCode.NO_STATUS_RCVD))  # type: ignore[call-overload]
    if "reason" in message or code not in SERVER_CODES:
        return Cause(Reason.CLIENT_CLOSED, code)
    reason = SERVER_CODES[code]
    return LOST if reason is Reason.CONNECTION_LOST else Cause(reason, code)


SERVER_CODES: Final[dict[int, Reason]] = {
    CloseCode.PROTOCOL_ERROR: Reason.PROTOCOL_ERROR,
    CloseCode.NO_STATUS_RCVD: Reason.CONNECTION_LOST,
    CloseCode.ABNORMAL_CLOSURE: Reason.CONNECTION_LOST,
    CloseCode.INVALID_DATA: Reason.PROTOCOL_ERROR,
    CloseCode.MESSAGE_TOO_BIG: Reason.LIMIT_EXCEEDED,
    CloseCode.SERVICE_RESTART: Reason.SERVICE_RESTARTS,
}
"""What a server ends by itself."""

LOST: Final = Cause(Reason.CONNECTION_LOST, int(CloseCode.ABNORMAL_CLOSURE))


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a connection ends."""

    reason: Reason
    code: int
    """The close code, where the handshake was accepted."""
    detail: str = ""
    """What the client is told: the close reason, or the body of the denial response."""
    status: int = HTTPStatus.FORBIDDEN
    """The HTTP status, where the handshake was not accepted yet."""
    error: BaseException | None = None
    """The exception; None where it only says how to close."""
    is_bug: bool = False
    """The service has to be fixed, so the exception is logged with its traceback."""


def resolve_cause(
    error: BaseException | None, *, initializing: bool = False, draining: bool = False, in_task: bool = False
) -> Resolution:
    """Return how a connection ends after its handler returned or raised.

    An exception group is a bug if one of the exceptions in it is. Otherwise one of them decides: an exception that says
    how to close comes before a cancellation, and a cancellation before a disconnect.

    Args:
        error: What was raised; None where the handler returned.
        initializing: Whether `on_accept` raised it, before the connection was initialized.
        draining: Whether the service is shutting down.
        in_task: Whether it was raised in a task of the connection, where an HTTP exception is a bug.
    """
    match error:
        case None | WebSocketDisconnect():
            return Resolution(Reason.SERVICE_CLOSED, CloseCode.NORMAL_CLOSURE)
        case CancelledError() if draining:
            return Resolution(Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART, "service restarts", error=error)
        case CancelledError():
            return Resolution(Reason.CANCELLED, CloseCode.INTERNAL_ERROR, "cancelled", error=error)
        case BaseExceptionGroup():
            resolve = partial(resolve_cause, initializing=initializing, draining=draining, in_task=in_task)
            held = [*map(resolve, error.exceptions)]
            if bug := next((each for each in held if each.is_bug), None):
                return replace(bug, error=error)
            return max(held, key=lambda each: 1 if each.error else 2 * (each.code != CloseCode.NORMAL_CLOSURE))
        case WebSocketException() if is_sendable(error.code):
            return Resolution(Reason.SERVICE_CLOSED, error.code, error.detail)
        case ServiceUnavailableException():
            return Resolution(Reason.SERVICE_CLOSED, CloseCode.TRY_AGAIN_LATER, error.detail, error.status_code)
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and (
            not in_task or isinstance(error, TooDeepError)
        ):
            return Resolution(Reason.SERVICE_CLOSED, CloseCode.POLICY_VIOLATION, error.detail, error.status_code)
        case _:
            return Resolution(
                Reason.INITIALIZATION_FAILED if initializing else Reason.HANDLER_FAILED,
                CloseCode.INTERNAL_ERROR,
                INTERNAL_ERROR,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                error,
                is_bug=True,
            )


def held_exceptions(error: BaseException) -> list[Any]:
    """Return the exceptions in a group, those in groups inside of it included, or the one that is no group."""
    match error:
        case BaseExceptionGroup():
            return [each for inner in error.exceptions for each in held_exceptions(inner)]
        case _:
            return [error]


def is_sendable(code: int) -> bool:
    """Return whether an endpoint may send this close code (RFC 6455, 7.4.1 and 7.4.2)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def truncate_reason(text: str) -> str:
    """Truncate a close reason to the bytes that fit, never inside a character."""
    return text.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class CloseCodeMeaning:
    """One line of the table of close codes."""

    closes: Literal["client", "service", "either", "nobody"]
    """Who closes with it; `nobody` where no close frame carries it, and software on this side reports it."""
    meaning: str
    reconnect: bool
    """Whether a client should reconnect, after a random delay that grows with each attempt."""


CLOSE_CODES: Final = {
    CloseCode.NORMAL_CLOSURE: CloseCodeMeaning("either", "done", reconnect=False),
    CloseCode.GOING_AWAY: CloseCodeMeaning("either", "the other end or a proxy goes away", reconnect=True),
    CloseCode.PROTOCOL_ERROR: CloseCodeMeaning("service", "protocol error", reconnect=False),
    CloseCode.UNSUPPORTED_DATA: CloseCodeMeaning("service", "wrong kind of frame", reconnect=False),
    CloseCode.NO_STATUS_RCVD: CloseCodeMeaning("nobody", "closed without a code", reconnect=True),
    CloseCode.ABNORMAL_CLOSURE: CloseCodeMeaning("nobody", "connection lost or rejected", reconnect=True),
    CloseCode.INVALID_DATA: CloseCodeMeaning("service", "text that is not UTF-8", reconnect=False),
    CloseCode.POLICY_VIOLATION: CloseCodeMeaning("service", "against the policy of the service", reconnect=False),
    CloseCode.MESSAGE_TOO_BIG: CloseCodeMeaning("service", "message too big", reconnect=False),
    CloseCode.INTERNAL_ERROR: CloseCodeMeaning("service", "error in the service", reconnect=True),
    CloseCode.SERVICE_RESTART: CloseCodeMeaning("service", "the service restarts", reconnect=True),
    CloseCode.TRY_AGAIN_LATER: CloseCodeMeaning("service", "full, or too slow: try again later", reconnect=True),
    CloseCode.BAD_GATEWAY: CloseCodeMeaning("service", "a proxy cannot reach the service", reconnect=True),
}
"""The close codes of the service. The README and `client.js` have the same table. Codes from 4000 to 4999 are your own:
a client decides what they mean."""
