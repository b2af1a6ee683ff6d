"""`Auth`: the plugin through which `app.py` gives Litestar all that stands in this folder."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.plugins import InitPlugin
from litestar.security.jwt import Token
from litestar_asyncapi.spec import SecurityScheme, SecuritySchemeType
from msgspec import Struct
from websockets.frames import CloseCode

from ..fanout.plugin import Fanout
from ..sessions.cause import Cause, Reason
from ..sessions.handshake import HandshakeMiddleware
from ..sessions.origin import origin_allowed
from ..sessions.plugin import Sessions
from ..sessions.session import Registry, Session
from .credentials import SUBPROTOCOL, find_credentials
from .handshake import Handshake
from .settings import AuthSettings

ALGORITHM = "HS256"
"""The only one that is accepted, whatever the header of a token says (RFC 8725, section 3.1)."""

CLAIMS = ("sub", "exp", "iat", "jti")
"""What a token must say: who it is, until when and since when it holds, and a name by which it can be revoked."""

CHALLENGE = {"WWW-Authenticate": "Bearer"}


class LoggedOut(Struct, tag="logged_out"):
    """A token ends before its time."""

    user: str
    jti: str
    exp: datetime


class Auth(InitPlugin):
    """Ask every WebSocket for a token; injected as `auth: NamedDependency[Auth]`.

    An HTTP handler that needs a user calls `auth.authenticate(request)`.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self.max_connections_per_user = settings.auth_max_connections_per_user
        self.revoked: dict[str, datetime] = {}
        """The `jti` of each token that was logged out since this process began, on any node, with its `exp`."""
        self._closing: set[asyncio.Task[Cause]] = set()

    @property
    def security_schemes(self) -> dict[str, SecurityScheme]:
        """The places where a token may stand, for the documentation; `credentials.py` looks there."""
        return {
            "header": SecurityScheme(
                SecuritySchemeType.HTTP,
                scheme="bearer",
                bearer_format="JWT",
                description="For services: the header `Authorization: Bearer <token>`.",
            ),
            "subprotocol": SecurityScheme(
                SecuritySchemeType.HTTP_API_KEY,
                name="Sec-WebSocket-Protocol",
                in_="header",
                description=f'For pages: `new WebSocket(url, ["{SUBPROTOCOL}", token])`.',
            ),
            "cookie": SecurityScheme(
                SecuritySchemeType.HTTP_API_KEY,
                name=self._settings.auth_cookie,
                in_="cookie",
                description="For pages of an allowed origin: it counts only together with their Origin.",
            ),
        }

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["auth"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(self._hear_of_others)
        middleware: list[Any] = config.middleware
        middleware.insert(
            sum(isinstance(each, HandshakeMiddleware) for each in middleware), Handshake(self)
        )  # inside the gate
        return app_config

    def authenticate(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
        """Return the token of a handshake or a request: its `sub` is the user, its `extras` are your own claims.

        Raises:
            NotAuthorizedException: It has no token, or none that is good (401).
            PermissionDeniedException: The token is in a cookie, and no page that may connect has sent it (403).
        """
        credentials = find_credentials(connection, self._settings.auth_cookie)
        if credentials is None:
            raise NotAuthorizedException("a token is needed", headers=CHALLENGE)
        if credentials.by_cookie:
            allowed = connection.app.plugins.get(Sessions).allowed_origins
            if not origin_allowed(dict(connection.scope), allowed, required=True):
                raise PermissionDeniedException("a cookie counts only with the Origin of a page that may connect")
        try:
            token = Token.decode(
                credentials.encoded,
                secret=self._settings.auth_secret.get_secret_value(),
                algorithm=ALGORITHM,
                issuer=self._settings.auth_issuer or None,
                audience=self._settings.auth_audience or None,
                require_claims=CLAIMS,
            )
        except NotAuthorizedException as error:
            # The decoder's own complaint stays the cause, for the log.
            raise NotAuthorizedException("the token is not valid", headers=CHALLENGE) from error.__cause__ or error
        self.check(token)
        return token

    def is_claimed(self, connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
        """Say whether a client sent a token on purpose; browsers send cookies without being told."""
        credentials = find_credentials(connection, self._settings.auth_cookie)
        return credentials is not None and not credentials.by_cookie

    def check(self, token: Token) -> None:
        """Check what may change while a token is in use.

        Raises:
            NotAuthorizedException: It has expired or was revoked (401).
        """
        if seconds_left(token) <= 0:
            raise NotAuthorizedException("the token has expired", headers=CHALLENGE)
        if str(token.jti) in self.revoked:
            raise NotAuthorizedException("the token was revoked", headers=CHALLENGE)

    async def log_out(self, token: Token, registry: Registry, fanout: Fanout) -> None:
        """Let nobody in with this token again, and close all connections of its user with 1008, on every node.

        Raises:
            FanoutUnavailableError: On this node it is done; the others could not be told (503).
        """
        logout = LoggedOut(user=token.sub, jti=str(token.jti), exp=token.exp)
        self._log_out(logout, registry)
        await fanout.broadcast_to_nodes(logout)

    def _log_out(self, logout: LoggedOut, registry: Registry) -> None:
        now = datetime.now(UTC)
        self.revoked = {jti: exp for jti, exp in self.revoked.items() if exp > now}
        self.revoked[logout.jti] = logout.exp
        for session in tuple(registry.by_user.get(logout.user, ())):
            if session.accepted:
                self._close(session, "logged out")

    @asynccontextmanager
    async def _hear_of_others(self, app: Litestar) -> AsyncGenerator[None, None]:
        registry = app.plugins.get(Sessions).registry

        async def hear(logout: LoggedOut) -> None:
            if logout.jti not in self.revoked:
                self._log_out(logout, registry)

        async with app.plugins.get(Fanout).subscribe_to_nodes(LoggedOut, hear):
            yield

    def close_when_expired(self, session: Session, token: Token) -> asyncio.TimerHandle:
        """Close a connection with 1008 when its token expires, unless the timer is cancelled before."""
        return asyncio.get_running_loop().call_later(seconds_left(token), self._close, session, "the token has expired")

    def _close(self, session: Session, detail: str) -> None:
        """Close a connection soon, in a task of its own: a client that reads nothing delays nobody."""
        task = asyncio.create_task(session.close(Reason.ACCESS_ENDED, CloseCode.POLICY_VIOLATION, detail))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def seconds_left(token: Token) -> float:
    """Return the seconds until a token expires; zero or less where it has."""
    return (token.exp - datetime.now(UTC)).total_seconds()
