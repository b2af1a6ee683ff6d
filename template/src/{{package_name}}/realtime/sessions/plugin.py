"""`Sessions`: the plugin that gives every WebSocket of an application its session, limits, state and hooks."""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import ValidationException, WebSocketException
from litestar.plugins import InitPlugin
from litestar.types import Scope

from ..settings import PACKAGE, CoreSettings
from .cause import resolve_cause
from .fast_path import surround
from .handshake import HandshakeMiddleware, RoutingMiddleware
from .info import ConnectionInfo
from .origin import OriginPolicy
from .registry import Registry
from .runtime import Runtime
from .session import SESSION_KEY, Session

MISSING: Final = (
    "the drain on SIGTERM, SEND_SECONDS and MAX_PENDING_BYTES for slow consumers, HANDSHAKE_SECONDS, PING_INTERVAL, "
    "TRUSTED_PROXIES"
)
"""Features and settings that another server does not have or does not read."""

log = structlog.get_logger(__name__)


class Sessions(InitPlugin):
    """Manage the WebSocket sessions of an application; injected as `sessions: NamedDependency[Sessions]`.

    Args:
        settings: The limits, and the origins that may connect.
        connection: The class `Connection`; called without arguments for each connection.
        hooks: A module or an object with the async functions `on_accept(socket, connection)` and
            `on_disconnect(socket, connection, cause)`.
    """

    def __init__(self, settings: CoreSettings, connection: Callable[[], ConnectionInfo], hooks: Any) -> None:
        self.registry = Registry(Runtime(settings, connection, hooks))
        """All sessions of this node, and what Prometheus reads."""
        self.policy = OriginPolicy(settings)
        """Which pages may connect."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the handshake middleware before all others, so that nothing is awaited before the count."""
        config: Any = app_config  # its types are partly unknown
        config.middleware.insert(0, HandshakeMiddleware(self.registry, self.policy))
        surround(app_config, RoutingMiddleware(self.registry.runtime, self.policy), innermost=True)
        config.after_exception.append(_after_exception)
        config.lifespan.append(self._lifespan)
        app_config.dependencies["connection"] = Provide(_provide_connection, sync_to_thread=False)
        app_config.dependencies["sessions"] = Provide(lambda: self, sync_to_thread=False)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        """Keep shared resources open until the last connection is cleaned up, also on a server that does not drain."""
        if not self.registry.is_drained and "litestar.testing" not in sys.modules:
            log.warning("the service does not run on its own server", missing=MISSING, fix=f"run python -m {PACKAGE}")
        runtime = self.registry.runtime
        runtime.draining = False  # it may start again, in tests
        try:
            yield
        finally:
            runtime.draining = True
            if not await self.registry.wait_empty(3 * runtime.settings.hook_seconds):
                log.error("connections were not cleaned up in time", connections=len(self.registry))


def _provide_connection(scope: Scope) -> Any:
    """Return the `Connection` of a socket; create it on first use. Dependencies are resolved before the lifespan."""
    session: Session = scope["state"][SESSION_KEY]
    return session.ensure_connection()


async def _after_exception(error: Exception, scope: Scope) -> None:
    """End a session whose handler has no lifespan or was not reached, and log exceptions that Litestar would swallow.

    What a client can cause (an unknown path, a guard that refuses) is not a failure and leaves no traceback.
    """
    _hide_url(error)
    session: Session | None = scope["state"].get(SESSION_KEY)
    if session is not None and session.cause is None:
        await session.end(error)
    elif resolve_cause(error).is_bug or (session is None and isinstance(error, WebSocketException)):
        log.error("request failed", path=quote(scope["path"]), exc_info=error)


def _hide_url(error: Exception) -> None:
    """Name only the wrong parameters in place of the whole URL, which may hold a token.

    2.25: `Validation failed for GET /path?query`, `Missing required query parameter 'name' for path /path?query`.
    """
    if isinstance(error, ValidationException) and error.detail.startswith(QUOTING):
        extra: Any = error.extra if isinstance(error.extra, list) else []
        names = ", ".join(str(each["key"]) for each in extra if "key" in each)
        error.detail = error.detail.partition(" for ")[0] + (f": {names}" if names else "")


QUOTING: Final = ("Validation failed for ", "Missing required ")
"""How the details begin in which Litestar quotes a URL."""
