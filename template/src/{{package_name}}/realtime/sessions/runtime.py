"""`Runtime`: what all sessions of an application have in common, and the answer to a handshake that is rejected."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import structlog
from litestar.handlers import BaseRouteHandler
from websockets.frames import CloseCode

from ..settings import CoreSettings
from .cause import truncate_reason
from .info import ConnectionInfo

log = structlog.get_logger(__name__)

DENIAL_RESPONSE: Final = "websocket.http.response"
"""ASGI's "WebSocket Denial Response"."""

LIMITS: Final = (
    "max_message_size",
    "message_seconds",
    "max_messages_per_second",
    "max_messages_per_second_per_address",
    "max_bytes_per_second_per_address",
    "max_frames_per_second",
    "max_bad_messages",
    "first_message_seconds",
    "idle_seconds",
    "send_seconds",
    "max_backlog",
)
"""The settings whose limits close a connection. Those that reject a handshake are counted as `rejected`."""

BUCKETS: Final = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
"""Upper bounds of the handler's time, in seconds."""


class Metrics:
    """What happened to the sessions since the process began, in counters that cost no more than an addition."""

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected: Counter[str] = Counter()
        """Handshakes that were rejected, by reason."""
        self.ended: Counter[str] = Counter()
        """Connections that ended, by the reason of their cause."""
        self.limits: Counter[str] = Counter()
        """Connections that were closed for a limit, by the name of its setting."""
        self.bad_messages = 0
        self.slow_disconnects = 0
        self.messages_received = 0
        """Of the sessions that are closed. Each session counts its own until then."""
        self.messages_sent = 0
        self.handled = [0] * (len(BUCKETS) + 1)
        """Messages by the time that their handler took: one number for each of BUCKETS, and one for all above."""
        self.handled_seconds = 0.0

    def count_handled(self, seconds: float) -> None:
        """Count a message by the seconds from its arrival until its handler was ready for the next one."""
        self.handled[bisect_left(BUCKETS, seconds)] += 1
        self.handled_seconds += seconds


class HandlerTraits(NamedTuple):
    """What all sessions of a handler have in common."""

    direct: bool
    """Nothing stands between the handler and the session."""
    encode: Callable[[Any], bytes]
    """Turns a message into JSON, with the `type_encoders` of the handler."""
    binary: bool
    """JSON is sent in binary frames."""


@dataclass(slots=True)
class Runtime:
    """The one object that every session of an application refers to."""

    settings: CoreSettings
    make_connection: Callable[[], ConnectionInfo]
    hooks: Any
    """The hooks of the service, for every connection: the functions `on_accept` and `on_disconnect`."""
    metrics: Metrics = field(default_factory=Metrics)
    handlers: dict[BaseRouteHandler, HandlerTraits] = field(default_factory=dict[BaseRouteHandler, HandlerTraits])
    """The traits of each handler that had a connection."""
    mounted: set[BaseRouteHandler] = field(default_factory=set[BaseRouteHandler])
    """The ASGI applications that have accepted a socket without `connection_lifespan`: the log names each once."""
    draining: bool = False
    """The service is about to stop."""

    def count_rejected(self, scope: dict[str, Any], reason: str, status: int, detail: str, **hints: Any) -> str:
        """Count a handshake that is rejected, and log it.

        Args:
            scope: Its scope.
            reason: Why, in the metrics and in the log.
            status: The HTTP status.
            detail: Why, in words, for the client too.
            hints: More for the log and, in development, for the client.

        Returns:
            What the client is told.
        """
        self.metrics.rejected[reason] += 1
        path, client = quote(scope["path"]), client_address(scope)
        log.warning(
            "handshake rejected", path=path, client=client, reason=reason, status=int(status), detail=detail, **hints
        )
        shown = hints if self.settings.is_development else {}
        return "\n".join([detail, *(f"{name}: {value}" for name, value in shown.items())])

    async def reject(
        self,
        scope: dict[str, Any],
        send: Callable[[Any], Awaitable[None]],
        reason: str,
        status: int,
        detail: str,
        **hints: Any,
    ) -> None:
        """Count and log a handshake that is rejected, and send a denial response.

        Without the ASGI extension, the server turns the close into a bare 403. A client that is gone is not an error.
        """
        detail = self.count_rejected(scope, reason, status, detail, **hints)
        body = detail.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))  # a 401 must name a scheme (RFC 9110, 15.5.2)
        with suppress(OSError):
            if DENIAL_RESPONSE in (scope.get("extensions") or ()):
                await send({"type": "websocket.http.response.start", "status": int(status), "headers": headers})
                await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
            else:
                close = {"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION}
                await send({**close, "reason": truncate_reason(detail)})


def client_address(scope: dict[str, Any]) -> str:
    """Return the client's address without its port, or "" where the server does not know it (a unix socket)."""
    client = scope.get("client")
    return client[0] if client else ""
