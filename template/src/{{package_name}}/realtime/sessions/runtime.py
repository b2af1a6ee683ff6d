"""What sessions have in common: `Runtime` for those of an application, `HandlerTraits` for those of a handler, `Client`
for those of an address or a user. And `TokenBucket`, which bounds how much each of them may send.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec
import structlog
from litestar.handlers import BaseRouteHandler
from msgspec import Meta
from websockets.frames import CloseCode

from ..settings import CoreSettings
from .cause import Reason, truncate_reason
from .info import ConnectionInfo

log = structlog.get_logger(__name__)

SendEvent = Callable[[Any], Awaitable[None]]

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

BURST_SECONDS: Final = 10
"""Where a rate has no burst of its own, what it allows in this time may come at once."""


class Metrics:
    """Counters of the sessions since the process began. Each costs no more than an addition.

    What they count by is there from the start, at 0, where it is known: else Prometheus misses the first increase.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected: Counter[str] = Counter()
        """Handshakes that were rejected, by reason."""
        self.ended: Counter[str] = Counter(dict.fromkeys(Reason, 0))
        """Connections that ended, by the reason of their cause."""
        self.limits: Counter[str] = Counter(dict.fromkeys(LIMITS, 0))
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
    """The properties that all sessions of a handler share."""

    direct: bool
    """Nothing stands between the handler and the session."""
    encode: Callable[[Any], bytes]
    """Turns a message into JSON, with the `type_encoders` of the handler."""
    binary: bool
    """JSON is sent in binary frames."""


class TokenBucket:
    """A rate limit: a number per second on average, and a burst at once.

    Args:
        rate: Messages, frames or bytes per second. 0 lifts the limit.
        burst: The number allowed at once; ten seconds' worth by default.
    """

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = self._tokens = max(rate * BURST_SECONDS if burst is None else burst, 1.0)
        self._refilled_at = monotonic()

    def allows(self, now: float) -> bool:
        """Count one if it is within the limit, and return whether it is.

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
        """Count an amount, also beyond the limit; return whether it is within. A negative amount is given back."""
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate) - amount
        self._refilled_at = now
        return not self._rate or self._tokens >= 0

    def is_full(self) -> bool:
        """Return whether the whole burst is available, as at the start."""
        return self.charge(0) and (not self._rate or self._tokens >= self._burst)


class Client:
    """The rates of one client, an address or a user, over all its connections, including those that have ended.

    Args:
        key: The address or user under which it is kept.
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
        """Count messages and their bytes; return the setting whose limit is exceeded, or ""."""
        if not self._messages.charge(messages):
            return "max_messages_per_second_per_address"
        return "" if self._bytes.charge(size) else "max_bytes_per_second_per_address"

    def is_fresh(self) -> bool:
        """Return whether it has no session and full rates, as if it had never connected."""
        return not self.sessions and self._messages.is_full() and self._bytes.is_full()


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
    publishers: Container[asyncio.Task[Any] | None] = ()
    """The tasks that have published what the next turn of the event loop delivers."""

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
        told = {"path": quote(scope["path"]), "client": client_address(scope), "reason": reason, "status": int(status)}
        log.warning("handshake rejected", **told, detail=detail, **hints)
        shown = hints if self.settings.is_development else {}
        return "\n".join([detail, *(f"{name}: {value}" for name, value in shown.items())])

    async def reject(
        self, scope: dict[str, Any], send: SendEvent, reason: str, status: int, detail: str, **hints: Any
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
    """Return the client's address without its port, or "" if the server does not know it (a unix socket)."""
    client = scope.get("client")
    return client[0] if client else ""


PLAIN_PING: Final = "ping"
PLAIN_PONG: Final = "pong"
"""A ping in plain text, the default heartbeat of `useWebSocket` of VueUse and of `react-use-websocket`; its answer."""

Ref = Annotated[str, Meta(min_length=1, max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What a client calls a message; the answers to it carry the same."""

PING_FIELDS: Final = ("type", Literal["ping"]), ("ref", Ref, 0)
decode_ping: Final = msgspec.json.Decoder(msgspec.defstruct("Ping", PING_FIELDS, forbid_unknown_fields=True)).decode

MAX_PING: Final = 500
"""Characters of a ping."""

NOT_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeError)
"""What decoding raises of a text that is no JSON."""


def is_ping(text: str | bytes | None) -> bool:
    """Return whether a message is a ping: in JSON, with or without a `ref`, or in plain text."""
    if text is None or text == PLAIN_PING or len(text) > MAX_PING:
        return text == PLAIN_PING
    try:
        decode_ping(text)
    except NOT_JSON:
        return False
    return True
