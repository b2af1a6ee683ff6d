"""What an exception means for a connection: the one function that decides it."""

from asyncio import CancelledError
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from litestar.exceptions import HTTPException, ServiceUnavailableException, WebSocketDisconnect, WebSocketException
from websockets.frames import CloseCode

from .cause import Reason, is_sendable

INTERNAL_ERROR: Final = "internal error"
"""All that a client learns about a bug."""


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
    """The exception, where it is more than a way to say how to close."""
    is_bug: bool = False
    """Somebody has to fix the service: the exception is logged with its traceback."""


def resolve_cause(error: BaseException | None, *, initializing: bool = False, draining: bool = False) -> Resolution:
    """Return how a connection ends after its handler returned or raised.

    An exception group is treated as what it holds. It is a bug where one of its exceptions is; else the exception that
    says most about the end counts: how to close, before a cancellation, before a disconnect.

    Args:
        error: What was raised; None where the handler returned.
        initializing: It was raised before the connection was initialized, by `on_accept`.
        draining: The service is about to stop.
    """
    match error:
        case None | WebSocketDisconnect():
            return Resolution(Reason.SERVICE_CLOSED, CloseCode.NORMAL_CLOSURE)
        case CancelledError() if draining:
            return Resolution(Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART, "service restarts", error=error)
        case CancelledError():
            return Resolution(Reason.CANCELLED, CloseCode.INTERNAL_ERROR, "cancelled", error=error)
        case BaseExceptionGroup():
            held = [resolve_cause(each, initializing=initializing, draining=draining) for each in error.exceptions]
            if bug := next((each for each in held if each.is_bug), None):
                return replace(bug, error=error)
            return max(held, key=_tells)
        case WebSocketException() if is_sendable(error.code):
            return Resolution(Reason.SERVICE_CLOSED, error.code, error.detail)
        case ServiceUnavailableException():
            return Resolution(Reason.SERVICE_CLOSED, CloseCode.TRY_AGAIN_LATER, error.detail, error.status_code)
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
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


def _tells(resolution: Resolution) -> int:
    """Rank a resolution by how much it says about the end."""
    if resolution.error is not None:
        return 1  # a cancellation
    return 0 if resolution.code == CloseCode.NORMAL_CLOSURE else 2
