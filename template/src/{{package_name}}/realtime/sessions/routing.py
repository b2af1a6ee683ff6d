"""What no handler answers: a WebSocket at an unknown path, and a plain request for a WebSocket."""

import re
from collections.abc import Awaitable
from difflib import get_close_matches
from http import HTTPStatus
from string import printable
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import quote

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.exceptions import MethodNotAllowedException
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from ..internals import routing_error, websocket_paths
from .denial import deny
from .limits import MessageLimit
from .session import Runtime, client_address

log = structlog.get_logger(__name__)

MAX_SUGGESTIONS: Final = 10
"""Paths a second for which the nearest one is looked up, which takes time."""

UPGRADE: Final = (
    "if a proxy dropped the header Upgrade, have it pass it on (nginx: proxy_http_version 1.1; "
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;)"
)


class RoutingMiddleware:
    """Answer a handshake for an unknown path with 404, and a GET for a WebSocket with 426.

    It stands around the application, because Litestar's own answers are 403 and 405.

    Args:
        runtime: What the sessions share.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._suggestions = MessageLimit(MAX_SUGGESTIONS, MAX_SUGGESTIONS)

    def __call__(self, app: ASGIApp) -> ASGIApp:
        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if not scope["query_string"].isascii():  # Litestar decodes it, and takes what is no UTF-8 for a bug
                scope["query_string"] = quote(scope["query_string"], safe=printable).encode()
            error = routing_error(scope["litestar_app"], cast("dict[str, Any]", scope))
            if error is None:
                return app(scope, receive, send)
            if scope["type"] == ScopeType.WEBSOCKET:
                return self._answer_unknown(scope, send)
            is_get = isinstance(error, MethodNotAllowedException) and scope["method"] == "GET"
            if is_get and "websocket" in (error.headers or {}).get("allow", ""):
                return self._answer_upgrade(scope, receive, send)
            return app(scope, receive, send)

        return middleware

    async def _answer_unknown(self, scope: Any, send: Send) -> None:
        nearest = self._nearest(scope["litestar_app"], scope["path"])
        detail = "there is no WebSocket at this path"
        hint = {"nearest": nearest} if nearest else {}
        self._refused(scope, "path", HTTPStatus.NOT_FOUND, detail, **hint)
        if hint and self._runtime.settings.is_development:
            detail += f"; the nearest is {nearest}"
        await deny(scope, send, HTTPStatus.NOT_FOUND, detail)

    async def _answer_upgrade(self, scope: Any, receive: Receive, send: Send) -> None:
        self._refused(scope, "upgrade", HTTPStatus.UPGRADE_REQUIRED, "this is a WebSocket", fix=UPGRADE)
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        body = b"This is a WebSocket, and the request asks for no upgrade. Does a proxy drop the header Upgrade?"
        response = ASGIResponse(
            body=body, status_code=HTTPStatus.UPGRADE_REQUIRED, headers=headers, media_type="text/plain"
        )
        await response(scope, receive, send)

    def _refused(self, scope: Any, reason: str, status: int, detail: str, **hint: str) -> None:
        self._runtime.metrics.refused[reason] += 1
        path, client = quote(scope["path"]), client_address(scope)
        log.warning(
            "handshake refused", path=path, client=client, reason=reason, status=int(status), detail=detail, **hint
        )

    def _nearest(self, app: Litestar, path: str) -> str:
        """Return the path of a WebSocket that may be meant: behind a prefix, or spelled alike."""
        if len(path) > 200 or not self._suggestions.allows_message(monotonic()):
            return ""
        known = websocket_paths(app)
        for each in known:
            if each != "/" and re.search(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(each)) + "/?$", path):
                return each
        return next(iter(get_close_matches(path, known, n=1)), "")
