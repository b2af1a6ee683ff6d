"""`Checks`: the plugin that checks every handler of an application when it is registered."""

from collections.abc import Callable
from typing import Any

from litestar.config.app import AppConfig
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute

from ..handlers.listener import ListenerRouteHandler
from ..internals import handlers_of, lifespan_of, listener_classes, websocket_handlers
from ..sessions.info import ConnectionInfo
from ..sessions.lifespan import connection_lifespan
from ..sessions.plugin import Sessions
from .checks import check_factory, check_hook, check_listener_class, check_registered, check_unregistered


class Checks(InitPlugin, ReceiveRoutePlugin):
    """Refuse an application with one of the mistakes of `checks.py`.

    Args:
        sessions: The plugin that provides `connection`.
        connection: The class `Connection`.
        hooks: A module or an object with the hooks of the service.

    Raises:
        ConfigurationError: A hook or the class cannot be called as it must be.
    """

    def __init__(self, sessions: Sessions, connection: Callable[[], ConnectionInfo], hooks: Any) -> None:
        check_factory(connection)
        check_hook(hooks.on_accept, "socket", "connection")
        check_hook(hooks.on_disconnect, "socket", "connection", "cause")
        self._sessions = sessions

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        for handler in websocket_handlers(app_config.route_handlers):
            check_unregistered(handler)
        for cls in listener_classes(app_config.route_handlers):
            check_listener_class(cls)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        for handler in handlers_of(route):
            has_connection = isinstance(handler, ListenerRouteHandler) or lifespan_of(handler) is connection_lifespan
            check_registered(handler, self._sessions.provides_connection, has_connection=has_connection)
