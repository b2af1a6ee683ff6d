"""`Auth`: the plugin that asks every WebSocket for a token, and `POST /logout`, which revokes one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from litestar import Litestar, Request, post
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.plugins import InitPlugin
from litestar.security.jwt import Token
from msgspec import Struct

from ..fanout.broker import FanoutUnavailableError
from ..fanout.dispatch import Batch
from ..fanout.messages import GapMarker, node_channel
from ..fanout.plugin import Fanout
from ..handlers.listener import Guard
from ..sessions.handshake import HandshakeMiddleware
from ..sessions.plugin import Sessions
from .authenticator import Authenticator
from .handshake import AuthenticationMiddleware
from .settings import AuthSettings

log = structlog.get_logger(__name__)

NODE_CHANNEL: Final = node_channel("LoggedOut")
"""The channel on which the nodes announce logouts to each other."""

RETRY_SECONDS: Final = 1
"""Seconds until what was revoked is read again, where the engine was unavailable."""


class LoggedOut(Struct, tag="logged_out"):
    """A token was revoked before it expired."""

    user: str
    jti: str
    exp: datetime


class Auth(InitPlugin):
    """Ask every WebSocket for a token; injected as `auth: NamedDependency[Auth]`.

    An HTTP handler that needs a user calls `await auth.authenticate(request)`.

    Args:
        settings: The settings `auth_*`.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self.authenticator = Authenticator(settings)
        self._middleware = AuthenticationMiddleware(self.authenticator, settings.auth_max_connections_per_user)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["auth"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        if self.authenticator.provider:
            config.lifespan.append(self.authenticator.provider.refreshed)
        config.lifespan.append(self._follow_logouts)
        middleware: list[Any] = config.middleware
        outer = sum(isinstance(each, HandshakeMiddleware) for each in middleware)
        middleware.insert(outer, self._middleware)  # behind the admission, in front of everything else
        return app_config

    async def authenticate(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
        """Return the valid token of a handshake or a request: its `sub` is the user, its `extras` are all other claims.

        Raises:
            NotAuthorizedException: There is no token, or it is not valid (401).
            PermissionDeniedException: The token is in a cookie, and the Origin is not one that may connect (403).
            ServiceUnavailableException: The keys of the provider could not be fetched yet (503).
        """
        return await self.authenticator.authenticate(connection)

    async def log_out(self, token: Token, app: Litestar) -> None:
        """Revoke a token, and close all connections of its user with 1008, on every node.

        Args:
            token: A valid token. Other tokens of its user stay valid.
            app: The application, as in `request.app`.

        Raises:
            FanoutUnavailableError: The other nodes could not be told (503). Nothing is done; try again.
        """
        logged_out = LoggedOut(user=token.sub, jti=str(token.jti), exp=token.exp)
        broker, encoded = app.plugins.get(Fanout).broker, msgspec.json.encode(logged_out)
        await broker.remember(encoded.decode(), token.exp.timestamp())
        self._log_out(logged_out, app)
        broker.publish(NODE_CHANNEL, encoded)  # where it is given up, all nodes receive a gap, and read what is kept

    def _log_out(self, logged_out: LoggedOut, app: Litestar) -> None:
        self.authenticator.revoke(logged_out.jti, logged_out.exp)
        app.plugins.get(Sessions).registry.disconnect(logged_out.user, "logged out")

    @asynccontextmanager
    async def _follow_logouts(self, app: Litestar) -> AsyncGenerator[None, None]:
        """Follow the logouts on other nodes. What this node did itself comes back too, and is done already."""
        lost = asyncio.Event()

        def follow(encoded: bytes) -> None:
            try:
                logged_out = msgspec.json.decode(encoded, type=LoggedOut)
                if logged_out.jti not in self.authenticator.revoked:
                    self._log_out(logged_out, app)
            except Exception:
                log.exception("a logout on another node could not be followed")

        def deliver(batch: Batch) -> None:
            for message in batch.messages:
                if isinstance(message, GapMarker):
                    lost.set()
                else:
                    follow(message.data)

        async def read() -> None:
            await fanout.broker.wait_subscribed(NODE_CHANNEL)
            for text in await fanout.broker.remembered():
                follow(text.encode())

        async def read_lost() -> None:
            while await lost.wait():
                lost.clear()
                try:
                    await read()
                except FanoutUnavailableError:
                    lost.set()
                    await asyncio.sleep(RETRY_SECONDS)

        fanout = app.plugins.get(Fanout)
        fanout.subscribe(NODE_CHANNEL, deliver)
        try:
            if fanout.available:
                await read()
        except FanoutUnavailableError:
            lost.set()
        if not fanout.available:
            lost.set()
        reading = asyncio.create_task(read_lost())
        try:
            yield
        finally:
            reading.cancel()
            fanout.unsubscribe(NODE_CHANNEL, deliver)


def requires_role(role: str, *others: str) -> Guard:
    """Make a guard that admits users with at least one of these roles.

    It guards WebSockets and, before their body is read, HTTP handlers: `guards=[requires_role("agent")]`. In a
    `Listener` it is a tuple: `guards = (requires_role("agent"),)`.

    Args:
        role: A role, as the claims of AUTH_ROLES_CLAIMS name it.
        others: Other roles, any of which is enough too.

    Returns:
        The guard. It raises what `Auth.authenticate` raises, and `PermissionDeniedException` (403) for other users.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        authenticator = connection.app.plugins.get(Auth).authenticator
        scope: Any = connection.scope
        token: Token | None = scope.get("auth")  # of a WebSocket; none for a request, and in a public listener
        if token is None:
            token = await authenticator.authenticate(connection)
            scope.update(user=token.sub, auth=token)
        if authenticator.roles_of(token).isdisjoint([role, *others]):
            raise PermissionDeniedException(f"this needs the role {' or '.join([role, *others])}")

    return guard


@post("/logout", status_code=204)
async def logout(request: Request[Any, Any, Any], auth: NamedDependency[Auth]) -> None:
    """Revoke the token in the header or the cookie of the request, and close all connections of its user with 1008, on
    every node.

    Other tokens of the user stay valid until they expire. With an engine, nodes that start later or were cut off know
    too what was revoked. 503: they could not be told, and nothing is done; try again.
    """
    await auth.log_out(await auth.authenticate(request), request.app)
