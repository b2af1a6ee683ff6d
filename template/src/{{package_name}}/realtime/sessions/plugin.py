"""`Connections`: the plugin through which `app.py` gives Litestar all that stands in this folder."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, WebSocketException
from litestar.plugins import InitPlugin
from litestar.types import Scope

from ..settings import CoreSettings
from .handshake import HandshakeMiddleware
from .info import ConnectionInfo
from .lifespan import HookPair, connection_of
from .metrics import Metrics
from .origin import normal_origin
from .session import SESSION_KEY, Registry, Session

log = structlog.get_logger(__name__)


class Sessions(InitPlugin):
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
        settings: CoreSettings,
        connection: Callable[[], ConnectionInfo],
        hooks: Any,
    ) -> None:
        self.make_connection = connection
        self.stage = HookPair(hooks.on_accept, hooks.on_disconnect)
        self.settings = settings
        self.allowed_origins = frozenset(normal_origin(origin) for origin in settings.allowed_origins)
        self.registry = Registry()
        self.metrics = Metrics(self.registry)
        self._provides_connection = Provide(_provide_connection, sync_to_thread=False)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["connection"] = self._provides_connection
        app_config.dependencies["connections"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.middleware.insert(
            0, HandshakeMiddleware(self)
        )  # before any other: what comes first may await, uncounted
        config.after_exception.append(_after_exception)
        config.lifespan.append(self._lifespan)
        return app_config

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
