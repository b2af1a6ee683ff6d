"""The handshake: a WebSocket needs a valid token, and is closed when its token expires."""

import asyncio
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, TooManyRequestsException
from litestar.security.jwt import Token
from litestar.types import ASGIApp, Message, Receive, Scope, Send, WebSocketScope
from websockets.frames import CloseCode

from ..sessions.cause import Cause, Reason
from ..sessions.fast_path import PassThroughMiddleware
from ..sessions.plugin import Sessions
from ..sessions.session import SESSION_KEY, Session
from .authenticator import Authenticator, seconds_left
from .credentials import SUBPROTOCOL

REASONS: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "token",
    HTTPStatus.FORBIDDEN: "origin",
    HTTPStatus.TOO_MANY_REQUESTS: "user",
}
"""What `/metrics` and the log call a handshake that is rejected with this status."""


class AuthenticationMiddleware(PassThroughMiddleware):
    """Reject a handshake with 401, 403 or 429, or let its user in until the token expires.

    A handler with `opt={"public": True}` also accepts clients without a token. A token that a client sends itself is
    verified there too.

    Args:
        authenticator: Says which tokens are valid.
        max_connections_per_user: Connections of one user on this node. 0 lifts the limit.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, authenticator: Authenticator, max_connections_per_user: int) -> None:
        self._authenticator = authenticator
        self._max_connections_per_user = max_connections_per_user
        self._closing: set[asyncio.Task[Cause]] = set()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        websocket = cast("WebSocketScope", scope)
        session: Session = scope["state"][SESSION_KEY]
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        token: Token | None = None
        try:
            token = self._authenticator.authenticate(connection)
        except HTTPException as error:
            public = scope["route_handler"].opt.get("public")
            if not public or self._authenticator.has_explicit_token(connection):
                await _reject(session, error)
                return
        if token is None:
            await next_app(scope, receive, send)
            return
        registry = connection.app.plugins.get(Sessions).registry
        if excess := registry.acquire(session, token.sub, limit=self._max_connections_per_user):
            await _reject(session, TooManyRequestsException(f"too many {excess} of this user"))
            return
        scope["user"], scope["auth"] = token.sub, token
        structlog.contextvars.bind_contextvars(user=token.sub)
        expiry: asyncio.TimerHandle | None = None

        def accept(message: Message) -> None:
            nonlocal expiry
            self._authenticator.check(token)  # guards and dependencies may have taken their time
            if SUBPROTOCOL in websocket["subprotocols"] and message["type"] == "websocket.accept":
                # A browser fails a connection whose answer selects none of the subprotocols that it offered.
                message["subprotocol"] = message["subprotocol"] or SUBPROTOCOL
            expiry = asyncio.get_running_loop().call_later(
                seconds_left(token), self.close, session, "the token has expired"
            )

        session.before_accept = accept  # a wrapper of `send` would be called for each message
        try:
            await next_app(scope, receive, send)
        finally:
            if expiry is not None:
                expiry.cancel()

    def close(self, session: Session, detail: str) -> None:
        """Close a connection with 1008, in a task of its own: a client that reads nothing delays no other.

        Args:
            session: A session that is accepted.
            detail: The close reason.
        """
        task = asyncio.create_task(session.close(Reason.ACCESS_ENDED, CloseCode.POLICY_VIOLATION, detail))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _reject(session: Session, error: HTTPException) -> None:
    # Of the cause only the kind: the text of the decoder might quote the token.
    hints = {"problem": type(error.__cause__).__name__} if error.__cause__ else {}
    await session.reject(REASONS[error.status_code], error.status_code, error.detail, **hints)
