"""The handshake: no WebSocket without a token, and none for longer than its token."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, TooManyRequestsException
from litestar.security.jwt import Token
from litestar.types import ASGIApp, Message, Receive, Scope, Send, WebSocketScope

from ..sessions.middleware import PassThroughMiddleware
from ..sessions.session import SESSION_KEY, Session
from .credentials import SUBPROTOCOL

if TYPE_CHECKING:
    from .plugin import Auth

log = structlog.get_logger(__name__)

REASONS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "token",
    HTTPStatus.FORBIDDEN: "origin",
    HTTPStatus.TOO_MANY_REQUESTS: "user",
}
"""What `/metrics` and the log say about a handshake that is refused."""


class Handshake(PassThroughMiddleware):
    """Refuse with a real 401, 403 or 429, or let the user in until the token expires.

    A handler with `opt={"public": True}` lets in clients without a token too; one that is sent is checked all the same.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, auth: "Auth") -> None:
        self._auth = auth

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        websocket = cast("WebSocketScope", scope)
        session: Session = scope["state"][SESSION_KEY]
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        token: Token | None = None
        try:
            token = self._auth.authenticate(connection)
        except HTTPException as error:
            if self._auth.is_claimed(connection) or not scope["route_handler"].opt.get("public"):
                await _refuse(session, error)
                return
        if token is None:
            await next_app(scope, receive, send)
            return
        if not session.registry.acquire(session, token.sub, limit=self._auth.max_connections_per_user):
            await _refuse(session, TooManyRequestsException("too many connections of this user"))
            return
        scope["user"], scope["auth"] = token.sub, token
        structlog.contextvars.bind_contextvars(user=token.sub)
        expiry: asyncio.TimerHandle | None = None

        def accept(message: Message) -> None:
            nonlocal expiry
            self._auth.check(token)  # guards and dependencies may have taken their time
            if SUBPROTOCOL in websocket["subprotocols"] and message["type"] == "websocket.accept":
                # A browser gives up a connection that answers none of its subprotocols.
                message["subprotocol"] = message["subprotocol"] or SUBPROTOCOL
            expiry = self._auth.close_when_expired(session, token)

        session.call_before_accept(accept)  # not around `send`: what stands there, each message has to go through
        try:
            await next_app(scope, receive, send)
        finally:
            if expiry is not None:
                expiry.cancel()


async def _refuse(session: Session, error: HTTPException) -> None:
    reason = REASONS[error.status_code]
    session.metrics.count_refused(reason)
    # Of what is wrong, only the kind: the words of the decoder might quote the token.
    kind = type(error.__cause__).__name__ if error.__cause__ else None
    log.warning(
        "handshake refused", reason=reason, path=session.path, client=session.client, detail=error.detail, problem=kind
    )
    await session.deny(error.status_code, error.detail)
