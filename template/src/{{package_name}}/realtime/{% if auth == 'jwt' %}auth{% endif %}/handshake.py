"""The handshake: a WebSocket needs a valid token, and is closed when its token expires."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import (
    HTTPException,
    PermissionDeniedException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from litestar.security.jwt import Token
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct

from ..handlers.messages import End, ErrorMessage, error_answer
from ..sessions.fast_path import PassThroughMiddleware
from ..sessions.plugin import Sessions
from ..sessions.runtime import NOT_JSON, Ref
from ..sessions.session import SESSION_KEY, Session
from .authenticator import Authenticator, seconds_left
from .credentials import SUBPROTOCOL

REASONS: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "token",
    HTTPStatus.FORBIDDEN: "origin",
    HTTPStatus.TOO_MANY_REQUESTS: "user",
    HTTPStatus.SERVICE_UNAVAILABLE: "provider",
}
"""The reason for `/metrics` and the log, by the status with which a handshake is rejected."""


class AuthenticationMiddleware(PassThroughMiddleware):
    """Reject a handshake with 401, 403, 429 or 503, or let its user in until the token expires.

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

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        session: Session = scope["state"][SESSION_KEY]
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        token: Token | None = None
        try:
            token = await self._authenticator.authenticate(connection)
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
        structlog.contextvars.bind_contextvars(user=token.sub)
        session.access = access = TokenAccess(token, session, self._authenticator)
        session.before_accept = access.begin  # a wrapper of `send` would be called for each message
        try:
            await next_app(scope, receive, send)
        finally:
            access.end()


class Authenticate(Struct, tag="authenticate"):
    """A client renews its access with a new token of the same user.

    It is answered as a message without an answer is: by an `end` if it has a `ref`, or by an error.
    """

    token: str
    ref: Ref | None = None


class TokenAccess:
    """The access that a token grants a connection until it expires. A new token of the same user renews it.

    Args:
        token: The token of the handshake.
        session: The session, which is not accepted yet.
        authenticator: Says which tokens are valid.
    """

    def __init__(self, token: Token, session: Session, authenticator: Authenticator) -> None:
        self._session = session
        self._authenticator = authenticator
        self._expiry: asyncio.TimerHandle | None = None
        self._use(token)

    def _use(self, token: Token) -> None:
        self._token = token
        self.claims: Mapping[str, Any] = token.extras
        self.roles = self._authenticator.roles_of(token)
        self._session.scope.update(user=token.sub, auth=token)

    def begin(self, message: Message) -> None:
        """Prepare the event that accepts the handshake; from then on the token ends the connection."""
        self._authenticator.check(self._token)  # guards and dependencies may have taken their time
        if SUBPROTOCOL in self._session.scope["subprotocols"] and message["type"] == "websocket.accept":
            # A browser fails a connection whose answer selects none of the subprotocols that it offered.
            message["subprotocol"] = message["subprotocol"] or SUBPROTOCOL
        self._await_expiry()

    def _await_expiry(self) -> None:
        self.end()
        loop, seconds = asyncio.get_running_loop(), seconds_left(self._token)
        self._expiry = loop.call_later(seconds, self._session.end_access, "the token has expired")

    def end(self) -> None:
        """Forget when the token expires."""
        if self._expiry is not None:
            self._expiry.cancel()

    async def renew(self, text: str) -> bool:
        """Handle a message that renews the access, and say whether it was one.

        Raises:
            WebSocketDisconnect: It was one refusal too many.
        """
        session = self._session
        try:
            message = _decode(text)
        except NOT_JSON:
            return False
        try:
            token = await self._authenticator.verify(message.token)
            if token.sub != session.user:
                raise PermissionDeniedException("the token is of another user")
        except ServiceUnavailableException as error:
            answer: End | ErrorMessage | None = ErrorMessage("service_unavailable", error.detail)
        except HTTPException as error:
            await session.count_bad_message()
            answer = error_answer(error)
        else:
            self._use(token)
            self._await_expiry()
            hook = getattr(session.runtime.hooks, "on_authenticated", None)
            if hook:
                await hook(session.socket, session.ensure_connection())
            answer = None if message.ref is None else End()
        await session.send_message(answer, message.ref)
        return True


_decode: Final = msgspec.json.Decoder(Authenticate).decode


async def _reject(session: Session, error: HTTPException) -> None:
    # Of the cause only the kind: the text of the decoder might quote the token.
    hints = {"problem": type(error.__cause__).__name__} if error.__cause__ else {}
    await session.reject(REASONS[error.status_code], error.status_code, error.detail, **hints)
