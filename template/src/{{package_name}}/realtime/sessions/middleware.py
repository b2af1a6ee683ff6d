"""Middleware that leaves the events of a WebSocket alone, and costs a long connection nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Litestar, WebSocket
from litestar.config.app import AppConfig
from litestar.enums import ScopeType
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send


class PassThroughMiddleware(ASGIMiddleware):
    """A middleware that hands on `receive` and `send` of a WebSocket as they are, for the `scopes` that it names.

    Litestar's own keeps a coroutine for as long as a connection lives, even where it has nothing to do. This one keeps
    none, and does not take the fast path from the handlers behind it. It supports no `exclude_…`.
    """

    def __call__(self, app: ASGIApp) -> ASGIApp:
        handle, scopes = self.handle, frozenset(self.scopes)

        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return handle(scope, receive, send, app) if scope["type"] in scopes else app(scope, receive, send)

        return middleware


def surround(config: AppConfig, middleware: Callable[[ASGIApp], ASGIApp], *, innermost: bool = False) -> None:
    """Put a middleware around the whole application when it starts, so that it sees what no handler answers.

    Args:
        config: The configuration of the application, which is changed.
        middleware: The middleware.
        innermost: Put it inside of all others that are added so.
    """
    done = False

    def wrap(app: Litestar) -> None:
        nonlocal done
        if not done:  # an application may start again, in tests
            app.asgi_handler = middleware(app.asgi_handler)
            done = True

    config.on_startup.insert(0 if innermost else len(config.on_startup), wrap)


def is_direct(handler: WebsocketRouteHandler) -> bool:
    """Return whether no middleware and no WebSocket class of its own wants to see the events of a handler."""
    resolved: Any = handler  # the types of its methods are partly unknown
    return resolved.resolve_websocket_class() is WebSocket and all(
        isinstance(each, PassThroughMiddleware)
        or (isinstance(each, ASGIMiddleware) and ScopeType.WEBSOCKET not in each.scopes)
        for each in resolved.resolve_middleware()
    )
