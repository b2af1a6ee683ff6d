"""`Realtime`: the one plugin with which app.py gives Litestar all that this folder brings."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from litestar import MediaType
from litestar.app import DEFAULT_OPENAPI_CONFIG
from litestar.config.app import AppConfig
from litestar.logging.config import BaseLoggingConfig, LoggingConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.plugins import InitPlugin, PluginProtocol

from .checks.plugin import Checks
from .http.headers import SecurityHeaders
from .observability.logs import Logging
from .parts import DISTRIBUTION, ROUTE_HANDLERS, VERSION, RealtimeSettings, plugins_of
from .sessions.info import ConnectionInfo
from .sessions.plugin import Sessions


class Realtime(InitPlugin):
    """Give an application its connections, rooms, endpoints, documentation, security headers and log.

    What `Litestar(...)` configures itself is kept: a `logging_config`, an `openapi_config`, handlers, middleware,
    plugins, lifespans. Connections are cleaned up while everything that they use is still open, whatever the order of
    the plugins.

    Args:
        settings: The settings of the service.
        connection: The class `Connection`; called without arguments for each connection.
        hooks: A module or an object with the async functions `on_accept(socket, connection)` and
            `on_disconnect(socket, connection, cause)`.

    Raises:
        ConfigurationError: A hook or the class cannot be called as it must be, or an application is built with a
            mistake that Litestar lets through.
    """

    def __init__(self, settings: RealtimeSettings, connection: Callable[[], ConnectionInfo], hooks: Any) -> None:
        self._settings = settings
        sessions = Sessions(settings, connection, hooks)
        checks = Checks(sessions, connection, hooks)
        self._plugins: Sequence[PluginProtocol] = [*plugins_of(settings), sessions, checks]

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Litestar initializes the plugins that are added here after all others, so their lifespans end first."""
        app_config.plugins.extend(self._plugins)
        app_config.route_handlers.extend(ROUTE_HANDLERS)
        config: Any = app_config  # its types are partly unknown
        config.middleware.append(SecurityHeaders())
        if app_config.openapi_config is DEFAULT_OPENAPI_CONFIG:
            # Without a page: Litestar's pages load scripts from other hosts, which the security headers forbid.
            app_config.openapi_config = OpenAPIConfig(
                title=DISTRIBUTION,
                version=VERSION,
                render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"], media_type=MediaType.JSON)],
            )
        if _is_default(app_config.logging_config):
            app_config.logging_config = Logging(self._settings)
        return app_config


def _is_default(config: BaseLoggingConfig | None) -> bool:
    """Say whether Litestar made this configuration itself, because `Litestar(...)` was given none."""
    if type(config) is not LoggingConfig:
        return False
    default = LoggingConfig()
    names = [field.name for field in fields(LoggingConfig) if field.name != "exception_logging_handler"]
    return all(getattr(config, name) == getattr(default, name) for name in names)
