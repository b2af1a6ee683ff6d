"""`Connections`: the plugin through which `app.py` gives Litestar all that stands in this folder."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, WebSocketException
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute
from litestar.types import Scope

from ..checks.checks import check_factory, check_hook, check_listener_class, check_registered, check_unregistered
from ..handlers.listener import ListenerRouteHandler
from ..internals import handlers_of, lifespan_of, listener_classes, websocket_handlers
from ..settings import CoreSettings
from .cause import Cause
from .handshake import HandshakeMiddleware
from .info import ConnectionInfo
from .lifespan import HookPair, connection_lifespan, connection_of
from .metrics import Metrics
from .origin import normal_origin
from .session import SESSION_KEY, Registry, Session, Socket

log = structlog.get_logger(__name__)


class Sessions(InitPlugin, ReceiveRoutePlugin):
    """Give every WebSocket of an application its gate, its `Connection`, its hooks and its checks.

    Args:
        connection: The class of the state, a factory without arguments: one instance for each connection.
        on_accept: The hook for every connection that was accepted.
        on_disconnect: The hook for every connection that has ended, whatever ended it.
        settings: The limits, and who may connect.

    Raises:
        ConfigurationError: A hook cannot be called, or an application is built with one of the mistakes of `checks.py`.
    """

    def __init__(
        self,
        connection: Callable[[], ConnectionInfo],
        on_accept: Callable[[Socket, Any], Awaitable[None]],
        on_disconnect: Callable[[Socket, Any, Cause], Awaitable[None]],
        settings: CoreSettings,
    ) -> None:
        check_factory(connection)
        check_hook(on_accept, "socket", "connection")
        check_hook(on_disconnect, "socket", "connection", "cause")
        self.make_connection = connection
        self.stage = HookPair(on_accept, on_disconnect)
        self.settings = settings
        self.allowed_origins = frozenset(normal_origin(origin) for origin in settings.allowed_origins)
        self.registry = Registry()
        self.metrics = Metrics(self.registry)
        self._provides_connection = Provide(_provide_connection, sync_to_thread=False)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        for handler in websocket_handlers(app_config.route_handlers):
            check_unregistered(handler)
        for cls in listener_classes(app_config.route_handlers):
            check_listener_class(cls)
        app_config.dependencies["connection"] = self._provides_connection
        app_config.dependencies["connections"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.middleware.insert(
            0, HandshakeMiddleware(self)
        )  # before any other: what comes first may await, uncounted
        config.after_exception.append(_after_exception)
        config.lifespan.append(self._lifespan)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        for handler in handlers_of(route):
            lives = isinstance(handler, ListenerRouteHandler) or lifespan_of(handler) is connection_lifespan
            check_registered(handler, self._provides_connection, has_connection=lives)

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        """Keep what the connections share open until the last is cleaned up, also on a server that does not drain."""
        self.registry.draining = False
        try:
            yield
        finally:
            self.registry.draining = True
            if not await self.registry.wait_empty(2 * self.settings.hook_seconds):
                log.error("connections were not cleaned up in time", connections=len(self.registry))


def _provide_connection(scope: Scope) -> Any:
    """Make the `Connection` of a socket, or return the one it has. Dependencies come before the lifespan."""
    session: Session = scope["state"][SESSION_KEY]
    return connection_of(session)


async def _after_exception(error: Exception, scope: Scope) -> None:
    """Log what Litestar would swallow, once, and note the status with which a handshake ends.

    What a stranger can cause (an unknown path, a refused guard) is no failure and leaves no traceback.
    """
    status = error.status_code if isinstance(error, HTTPException) else 500
    if scope["type"] != ScopeType.WEBSOCKET:
        if status >= 500:
            log.error("request failed", path=quote(scope["path"]), exc_info=error)
        return
    session: Session | None = scope["state"].get(SESSION_KEY)
    if session is None or isinstance(error, WebSocketException):
        return
    session.error_status = status
    if status >= 500:
        log.error("socket failed" if session.accepted else "handshake failed", path=session.path, exc_info=error)
    else:
        log.info("handshake refused", path=session.path, client=session.client, status=status, detail=str(error))
