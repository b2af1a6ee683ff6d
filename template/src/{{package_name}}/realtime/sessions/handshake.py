"""The handshake: count each before anything is awaited, admit or reject it, and answer requests without a handler."""

import asyncio
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
from litestar.exceptions import NotFoundException
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send
from websockets.frames import CloseCode

from ..internals import has_readable_host, routing_error, websocket_paths
from .fast_path import EXTENSION, FrameWriter, PassThroughMiddleware
from .origin import OriginPolicy, own_origin
from .registry import Registry
from .runtime import DENIAL_RESPONSE, Client, Runtime, TokenBucket, client_address
from .session import RESTARTING, SESSION_KEY, Session

log = structlog.get_logger(__name__)

MAX_SUGGESTIONS: Final = 10
"""Paths a second for which the nearest one is looked up, which takes time."""

NOT_FOUND: Final = b'{"status_code":404,"detail":"Not Found"}'
"""The body with which Litestar answers a request to an unknown path."""

PROBES: Final = frozenset({"/health", "/ready"})
"""Paths that are answered whatever the Host: they tell nothing about the service, and probes use names of their own."""

UPGRADE: Final = (
    "if a proxy dropped the header Upgrade, configure the proxy to forward it (nginx: proxy_http_version 1.1; "
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;)"
)


class HandshakeMiddleware(PassThroughMiddleware):
    """Reject a handshake with an HTTP status, or register its session and pass all events through it.

    Args:
        registry: All sessions of this node.
        policy: The policy that decides which pages may connect.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, registry: Registry, policy: OriginPolicy) -> None:
        self._runtime = registry.runtime
        self._registry = registry
        self._policy = policy

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handshake = cast("dict[str, Any]", scope)
        admission = self._admit(handshake)
        if not isinstance(admission, Client):
            reason, status, detail = admission
            hints = self._policy.explain(handshake, reason) if status == HTTPStatus.FORBIDDEN else {}
            await self._runtime.reject(handshake, send, reason, status, detail, **hints)
            return
        extensions: dict[str, Any] = handshake.get("extensions") or {}
        server: FrameWriter | None = extensions.pop(EXTENSION, {}).get("writer")  # else it is kept in the scope
        session = Session(handshake, receive, send, self._runtime, server)
        handshake["state"] = SocketState(handshake["state"], **{SESSION_KEY: session})
        self._registry.count(session, admission)
        try:
            await next_app(scope, session.receive, session.send)
        except asyncio.CancelledError:
            if not self._runtime.draining:
                raise
            # The drain cancelled a handler that was too slow; its clean-up has run, and nobody waits for more.
        except Exception as error:  # noqa: BLE001  of a middleware; Litestar would make it a bare 403
            app: Any = scope["litestar_app"]
            for hook in app.after_exception:  # that of `Sessions` ends the session
                await hook(error, scope)
        finally:
            session.leave()
            self._registry.remove(session)

    def _admit(self, handshake: dict[str, Any]) -> Client | tuple[str, HTTPStatus, str]:
        """Return the client if it may connect; otherwise the reason for the metrics, the status and the detail."""
        settings, registry = self._runtime.settings, self._registry
        if self._runtime.draining:
            return "draining", HTTPStatus.SERVICE_UNAVAILABLE, RESTARTING
        if problem := self._policy.problem(handshake):
            return problem, HTTPStatus.FORBIDDEN, f"this {problem} may not connect"
        if 0 < settings.max_connections <= len(registry) + registry.lingering:
            return "full", HTTPStatus.SERVICE_UNAVAILABLE, "the service has no room for another connection"
        client = registry.client_of(client_address(handshake))
        if 0 < settings.max_connections_per_address <= client.sessions:
            return "address", HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address"
        if client.exceeded():
            return "rate", HTTPStatus.TOO_MANY_REQUESTS, "too many messages from this address"
        return client


class RoutingMiddleware:
    """Reject requests before they are routed, and answer a GET of a WebSocket's path as its handshake.

    A handshake for an unknown path is a 404, one whose Host cannot be read a 400, a request to a foreign Host a 403. A
    page of another origin that may connect can read these answers (CORS).

    It stands around the application, because Litestar's own answers are 403 and 405.

    Args:
        runtime: The state that the sessions share.
        policy: The policy that decides under which names the service may be reached.
    """

    def __init__(self, runtime: Runtime, policy: OriginPolicy) -> None:
        self._runtime = runtime
        self._policy = policy
        self._suggestions = TokenBucket(MAX_SUGGESTIONS, MAX_SUGGESTIONS)

    def __call__(self, app: ASGIApp) -> ASGIApp:
        def middleware(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
            if not scope["query_string"].isascii():  # Litestar decodes it, and takes what is no UTF-8 for a bug
                scope["query_string"] = quote(scope["query_string"], safe=printable).encode()
            error = routing_error(scope["litestar_app"], scope)
            if scope["type"] == ScopeType.WEBSOCKET:
                if not has_readable_host(scope):
                    detail = "the Host header cannot be read"
                    return self._runtime.reject(scope, send, "host", HTTPStatus.BAD_REQUEST, detail)
                return app(scope, receive, send) if error is None else self._answer_unknown(scope, send)
            if self._is_foreign(scope):
                hints = self._policy.explain(scope, "host")
                path, client = quote(scope["path"]), client_address(scope)
                log.warning("request rejected", path=path, client=client, reason="host", **hints)
                body = "this host is not one of the service; its log says which setting admits it"
                return ASGIResponse(body=body.encode(), status_code=403, media_type="text/plain")(scope, receive, send)
            if error is None:
                return app(scope, receive, send)
            cors_headers = self._policy.cors_headers(scope)
            send_cors = _with_headers(send, cors_headers)
            if isinstance(error, ArithmeticError):  # the router would raise it
                return ASGIResponse(body=NOT_FOUND, status_code=HTTPStatus.NOT_FOUND)(scope, receive, send_cors)
            is_websocket = "websocket" in (error.headers or {}).get("allow", "")
            if is_websocket and scope["method"] == "GET":
                return self._answer_get(app, scope, receive, send_cors)
            if cors_headers and scope["method"] == "OPTIONS" and (is_websocket or isinstance(error, NotFoundException)):
                return ASGIResponse(status_code=HTTPStatus.NO_CONTENT)(scope, receive, send_cors)
            return app(scope, receive, send_cors)

        return middleware

    def _is_foreign(self, scope: dict[str, Any]) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        return path not in PROBES and not self._policy.may_ask(scope)

    async def _answer_unknown(self, scope: Any, send: Send) -> None:
        nearest = self._nearest(scope["litestar_app"], scope["path"])
        hint, detail = {"nearest": nearest} if nearest else {}, "there is no WebSocket at this path"
        await self._runtime.reject(scope, send, "path", HTTPStatus.NOT_FOUND, detail, **hint)

    async def _answer_get(self, app: ASGIApp, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a GET as the handshake would be, with 426 if it is accepted: browsers hide its status from pages."""
        headers = [*scope["headers"]]
        if (b"sec-fetch-site", b"same-origin") in headers and not any(name == b"origin" for name, _ in headers):
            headers.append((b"origin", own_origin(scope).encode()))  # a GET of the same origin has none
        handshake = scope | {
            "type": "websocket",
            "scheme": scope["scheme"].replace("http", "ws"),
            "headers": headers,
            "state": {**scope["state"]},
            "subprotocols": [],
            "extensions": {DENIAL_RESPONSE: {}},
        }
        events = iter([{"type": "websocket.connect"}])

        async def receive_event() -> Any:
            return next(events, {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE})

        async def answer(event: Any) -> None:
            if event["type"] == "websocket.accept":
                await self._answer_upgrade(scope, receive, send)
                raise OSError("there is no WebSocket to accept")  # as when the client is gone
            event["type"] = event["type"].removeprefix("websocket.")
            await send(event)

        del handshake["method"]
        if routing_error(scope["litestar_app"], handshake):
            await self._answer_unknown(handshake, answer)
        else:
            await app(handshake, receive_event, answer)

    async def _answer_upgrade(self, scope: Any, receive: Receive, send: Send) -> None:
        status = HTTPStatus.UPGRADE_REQUIRED
        self._runtime.count_rejected(scope, "upgrade", status, "this is a WebSocket", fix=UPGRADE)
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        body = b"This is a WebSocket, and the request asks for no upgrade. Does a proxy drop the header Upgrade?"
        response = ASGIResponse(body=body, status_code=status, headers=headers, media_type="text/plain")
        await response(scope, receive, send)

    def _nearest(self, app: Litestar, path: str) -> str:
        """Return the path of the WebSocket that was probably meant: one with a prefix, or with a similar spelling."""
        if len(path) > 200 or not self._suggestions.allows(monotonic()):
            return ""
        known = websocket_paths(app)
        for each in known:
            if each != "/" and re.search(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(each)) + "/?$", path):
                return each
        return next(iter(get_close_matches(path, known, n=1)), "")


def _with_headers(send: Send, more: list[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(event: Any) -> None:
        names = [name.lower() for name, _ in event.get("headers", ())]
        if event["type"] == "http.response.start" and b"access-control-allow-origin" not in names:
            event["headers"] = [*event["headers"], *more]
        await send(event)

    return send_with_headers


class SocketState(dict[str, Any]):
    """`scope["state"]` of a socket. Reading `connection` too early raises an error that explains it."""

    def __missing__(self, key: str) -> Any:
        if key == "connection":
            raise AttributeError(
                "socket.state.connection does not exist yet. It is made after the guards, when the dependencies of "
                "the handler are resolved, and only for handlers inside connection_lifespan. In a guard or a "
                "middleware, read what you need from the handshake itself: its headers, path and query."
            )
        raise KeyError(key)
