"""Litestar's middleware, at a lower price for connections that live long."""

from collections.abc import Awaitable

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send


class PassThroughMiddleware(ASGIMiddleware):
    """A middleware for the `scopes` that it names.

    Litestar's keeps a coroutine of its own for as long as a connection lives, also where it has nothing to do: memory
    for each, and a step more for each message. It knows no `exclude_…`.
    """

    def __call__(self, app: ASGIApp) -> ASGIApp:
        handle, scopes = self.handle, frozenset(self.scopes)

        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return handle(scope, receive, send, app) if scope["type"] in scopes else app(scope, receive, send)

        return middleware
