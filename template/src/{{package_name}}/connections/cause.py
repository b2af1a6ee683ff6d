"""Why a connection ended: the reasons, and the close codes of RFC 6455, section 7.4, that go with them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
WRONG_KIND: Final = 1003
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
NOT_UTF8: Final = 1007
POLICY_VIOLATION: Final = 1008
MESSAGE_TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One line of the table of close codes."""

    closes: Literal["client", "service", "either", "nobody"]
    """Who closes with it; `nobody` where no close frame carries it, and only this side's software says so."""
    meaning: str
    reconnect: bool
    """Whether the client should come back, after a random moment that grows with each try."""


CLOSE_CODES: Final = {
    NORMAL: CloseCode("either", "done, as wanted", reconnect=False),
    GOING_AWAY: CloseCode("either", "leaving for good", reconnect=False),
    PROTOCOL_ERROR: CloseCode("service", "protocol error", reconnect=False),
    WRONG_KIND: CloseCode("service", "wrong kind of frame", reconnect=False),
    NO_STATUS: CloseCode("nobody", "closed without a code", reconnect=True),
    ABNORMAL: CloseCode("nobody", "connection lost or refused", reconnect=True),
    NOT_UTF8: CloseCode("service", "text that is not UTF-8", reconnect=False),
    POLICY_VIOLATION: CloseCode("service", "against the policy of the service", reconnect=False),
    MESSAGE_TOO_BIG: CloseCode("service", "message too big", reconnect=False),
    INTERNAL_ERROR: CloseCode("service", "error in the service", reconnect=True),
    SERVICE_RESTART: CloseCode("service", "the service restarts", reconnect=True),
    TRY_AGAIN_LATER: CloseCode("service", "full, or too slow: try again later", reconnect=True),
}
"""The close codes of the service. The table in the README and that of `client.js` say the same; a test of the template
holds them to it. Codes of your own service are from 4000 to 4999, and mean what you say."""

PROTOCOL_CODES: Final = frozenset({PROTOCOL_ERROR, NOT_UTF8, MESSAGE_TOO_BIG})
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
    """The client went over a limit of the service (1008), or read too slowly (1013)."""
    ACCESS_ENDED = "access_ended"
    """The client may no longer be here: its credentials expired, or its user logged out (1008)."""
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
