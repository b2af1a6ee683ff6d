"""`Realtime`: the plugin through which app.py adds this framework to Litestar."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from litestar import MediaType
from litestar.app import DEFAULT_OPENAPI_CONFIG
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.logging.config import LoggingConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.plugins import InitPlugin, PluginProtocol, ReceiveRoutePlugin
from litestar.routes import BaseRoute
from litestar.utils import normalize_path

from .checks.definitions import check_connection_class, check_hooks, check_lifespan, check_list, check_ready
from .checks.registration import (
    check_injection,
    check_listener_class,
    check_options,
    check_path,
    check_replaced,
    check_unmanaged,
)
from .handlers.listener import ListenerRouteHandler
from .http import SecurityHeaders
from .internals import handlers_of, lifespan_of, skip_validation, websocket_handlers
from .observability.logs import Logging
from .parts import ROUTE_HANDLERS, TITLE, VERSION, RealtimeSettings, plugins_of
from .sessions.fast_path import surround
from .sessions.info import ConnectionInfo
from .sessions.lifespan import connection_lifespan
from .sessions.plugin import Sessions


class Realtime(InitPlugin, ReceiveRoutePlugin):
    """Add connections, rooms, endpoints, documentation, security headers and logging to an application.

    The arguments of `Litestar(...)` are kept: its `logging_config`, `openapi_config`, handlers, middleware, plugins and
    lifespans. Connections are cleaned up before the resources that they use are closed, whatever the order of the
    plugins. Each handler of the application is checked, and a mistake stops the start.

    Args:
        settings: The settings of the service.
        connection: The class `Connection`; called without arguments for each connection.
        hooks: A module or an object with the async functions `on_accept(socket, connection)` and
            `on_disconnect(socket, connection, cause)`.
        unmanaged: The paths of WebSocket handlers that other plugins register and that run without
            `connection_lifespan`, as in `["/vite-hmr"]`. No hook runs for their connections.
        ready: Async functions without parameters. While one of them raises, or takes more than five seconds, `/ready`
            answers 503.

    Raises:
        ConfigurationError: A hook, the class or a function is wrong, or, when `Litestar(...)` registers the handlers,
            a handler has a mistake that Litestar does not report.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        connection: Callable[[], ConnectionInfo],
        hooks: Any,
        *,
        unmanaged: Iterable[str] = (),
        ready: Iterable[Callable[[], Awaitable[Any]]] = (),
    ) -> None:
        """Check the arguments and create the plugins."""
        check_connection_class(connection)
        check_hooks(hooks)
        self._settings = settings
        self._ready = check_list("ready", ready, object, "ready=[check_database]")
        for function in self._ready:
            check_ready(function)
        self._plugins: Sequence[PluginProtocol] = [*plugins_of(settings), Sessions(settings, connection, hooks)]
        paths = check_list("unmanaged", unmanaged, str, 'unmanaged=["/vite-hmr"]')
        self._unmanaged = frozenset(map(normalize_path, paths))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add everything to the configuration of the application.

        Args:
            app_config: The configuration, which is changed.

        Returns:
            The same configuration.
        """
        self._websockets: dict[str, BaseRouteHandler] = {}
        app_config.plugins.append(_Last(self._add_plugins))
        app_config.route_handlers.extend(ROUTE_HANDLERS)
        surround(app_config, SecurityHeaders())
        if app_config.openapi_config is DEFAULT_OPENAPI_CONFIG:
            # Without a page: Litestar's pages load scripts from other hosts, which the security headers forbid.
            app_config.openapi_config = OpenAPIConfig(
                title=TITLE,
                version=VERSION,
                render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"], media_type=MediaType.JSON)],
            )
        handler = getattr(app_config.logging_config, "exception_logging_handler", None)
        if app_config.logging_config == LoggingConfig(exception_logging_handler=handler):  # Litestar made it itself
            app_config.logging_config = Logging(self._settings)
        return app_config

    def _add_plugins(self, app_config: AppConfig) -> None:
        """Add the plugins of this folder after all others.

        Litestar exits lifespans in the reverse order of the plugins, so connections end before the resources that they
        use.
        """
        given = dict(app_config.dependencies)
        app_config.dependencies["ready_checks"] = Provide(lambda: self._ready, sync_to_thread=False)
        app_config.plugins.extend([*self._plugins, _Last(partial(self._check_configuration, given))])

    def _check_configuration(self, given: Mapping[str, Any], app_config: AppConfig) -> None:
        """Check handlers and dependencies before Litestar registers them."""
        check_replaced(given, app_config.dependencies)
        for handler in websocket_handlers(app_config.route_handlers):
            check_options(handler)
            if lifespan := lifespan_of(handler):
                check_lifespan(lifespan)

    def receive_route(self, route: BaseRoute) -> None:
        """Check the handlers of a route, once their dependencies are resolved."""
        if route.scope_type is ScopeType.ASGI:
            return
        for handler in handlers_of(route):
            skip_validation(handler)
            is_managed = isinstance(handler, ListenerRouteHandler) or lifespan_of(handler) is connection_lifespan
            check_injection(handler, is_managed=is_managed)
            if route.scope_type is ScopeType.WEBSOCKET:
                check_path(handler, route.path, self._websockets)
                check_listener_class(handler)
                if not is_managed:
                    check_unmanaged(handler, route.path, self._unmanaged)


class _Last(InitPlugin):
    """Calls a function after all other plugins, including plugins that other plugins add."""

    def __init__(self, function: Callable[[AppConfig], None]) -> None:
        self._function = function

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        if app_config.plugins[-1] is self:
            self._function(app_config)
        else:
            app_config.plugins.append(_Last(self._function))
        return app_config
