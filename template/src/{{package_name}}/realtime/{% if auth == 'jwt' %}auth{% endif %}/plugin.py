"""`Auth`: the plugin that asks every WebSocket for a token."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.plugins import InitPlugin
from litestar.security.jwt import Token
from msgspec import Struct

from ..fanout.plugin import Fanout
from ..sessions.handshake import HandshakeMiddleware
from ..sessions.plugin import Sessions
from ..sessions.session import State
from .authenticator import Authenticator
from .handshake import AuthenticationMiddleware
from .settings import AuthSettings


class LoggedOut(Struct, tag="logged_out"):
    """A token was revoked before it expired."""

    user: str
    jti: str
    exp: datetime


class Auth(InitPlugin):
    """Ask every WebSocket for a token; injected as `auth: NamedDependency[Auth]`.

    An HTTP handler that needs a user calls `auth.authenticate(request)`.

    Args:
        settings: The settings `auth_*`.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self.authenticator = Authenticator(settings)
        self._middleware = AuthenticationMiddleware(self.authenticator, settings.auth_max_connections_per_user)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["auth"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(self._subscribe)
        middleware: list[Any] = config.middleware
        outer = sum(isinstance(each, HandshakeMiddleware) for each in middleware)
        middleware.insert(outer, self._middleware)  # behind the admission, in front of everything else
        return app_config

    def authenticate(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
        """Return the valid token of a handshake or a request: its `sub` is the user, its `extras` are your own claims.

        Raises:
            NotAuthorizedException: There is no token, or it is not valid (401).
            PermissionDeniedException: The token is in a cookie, and the Origin is not one that may connect (403).
        """
        return self.authenticator.authenticate(connection)

    async def log_out(self, token: Token, app: Litestar) -> None:
        """Revoke a token, and close all connections of its user with 1008, on every node.

        Args:
            token: A valid token. Other tokens of its user stay valid.
            app: The application, as in `request.app`.

        Raises:
            FanoutUnavailableError: It is done on this node, and the other nodes could not be told (503).
        """
        logout = LoggedOut(user=token.sub, jti=str(token.jti), exp=token.exp)
        self._log_out(logout, app)
        await app.plugins.get(Fanout).broadcast_to_nodes(logout)

    def _log_out(self, logout: LoggedOut, app: Litestar) -> None:
        self.authenticator.revoke(logout.jti, logout.exp)
        for session in app.plugins.get(Sessions).registry.of_user(logout.user):
            if session.state is State.OPEN:
                self._middleware.close(session, "logged out")

    @asynccontextmanager
    async def _subscribe(self, app: Litestar) -> AsyncGenerator[None, None]:
        """Follow the logouts on other nodes. What this node did itself comes back too, and is done already."""

        async def follow(logout: LoggedOut) -> None:
            if logout.jti not in self.authenticator.revoked:
                self._log_out(logout, app)

        async with app.plugins.get(Fanout).subscribe_to_nodes(LoggedOut, follow):
            yield
