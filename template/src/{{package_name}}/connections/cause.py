"""Why a connection ended: the reasons, and the close codes of RFC 6455, section 7.4, that go with them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

PROTOCOL_CODES: Final = frozenset({1002, 1007, 1009})
"""Close codes a server sends by itself: a broken frame, text that is not UTF-8, a message too big."""

LONGEST_REASON: Final = 123
"""Bytes of UTF-8 a close reason may have: a control frame carries 125, two are the code (RFC 6455, 5.5)."""


class Reason(StrEnum):
    """What ended a connection. The first thing that ends it is the reason; what follows does not change it."""

    CLIENT_CLOSED = "client_closed"
    """The client sent a close frame; the code is its own."""
    CONNECTION_LOST = "connection_lost"
    """The connection was cut without a close frame: network, crash, a peer that answers no ping."""
    PROTOCOL_ERROR = "protocol_error"
    """The client sent what the protocol forbids (1002, 1007) or a message that is too big (1009)."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """The client went over a limit of the service (1008)."""
    SERVICE_CLOSED = "service_closed"
    """A handler closed it: `socket.close(...)` or `raise WebSocketException(...)`; the code is the handler's."""
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
    """Why a connection ended, as `on_disconnect` hears it."""

    reason: Reason
    code: int
    """The close code, 1000 to 4999; 1005 and 1006 stand for a close frame without a code, or none at all."""
    error: BaseException | None = None
    """The exception behind it, where the service failed."""


def valid_code(code: int) -> bool:
    """Say whether an endpoint may send this close code (RFC 6455, 7.4.1 and 7.4.2)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in {1004, NO_STATUS, ABNORMAL})


def fit_reason(text: str) -> str:
    """Cut a close reason to the bytes that fit, never inside a character."""
    return text.encode()[:LONGEST_REASON].decode(errors="ignore")
