"""The gate: every handshake passes here first, and is counted before anything is awaited."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from .denial import refuse
from .middleware import PassThroughMiddleware
from .origin import origin_allowed
from .session import SESSION_KEY, Session, client_address

if TYPE_CHECKING:
    from .plugin import Sessions

log = structlog.get_logger(__name__)


class NoConnectionError(AttributeError):
    """`socket.state.connection` was asked for where there is none yet."""


class SocketState(dict[str, Any]):
    """`scope["state"]` of a socket: one for each connection, with a clear word for whoever comes too early."""

    def __missing__(self, key: str) -> Any:
        if key == "connection":
            raise NoConnectionError(
                "socket.state.connection does not exist yet. It is made after the guards, when the dependencies of "
                "the handler are resolved, and only for handlers that live in connection_lifespan. In a guard or a "
                "middleware, read what you need from the handshake itself: its headers, path and query."
            )
        raise KeyError(key)


class HandshakeMiddleware(PassThroughMiddleware):
    """Refuse with a real HTTP status, or register the socket and watch over its events."""

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, connections: "Sessions") -> None:
        self._connections = connections

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        websocket = cast("dict[str, Any]", scope)
        if refusal := self._refusal(websocket):
            reason, status, detail = refusal
            self._connections.metrics.refused[reason] += 1
            path, client = quote(websocket["path"]), client_address(websocket)
            log.warning("handshake refused", path=path, client=client, reason=reason, detail=detail)
            await refuse(websocket, send, status, detail)
            return
        session = Session(websocket, receive, send, self._connections)
        websocket["state"] = SocketState(websocket["state"], **{SESSION_KEY: session})
        self._connections.registry.add(session)
        try:
            await next_app(scope, session.receive, session.send)
        except asyncio.CancelledError:
            if not self._connections.registry.draining:
                raise
            # The drain cancelled a handler that was too slow; its clean-up has run, and nobody waits for more.
        finally:
            self._connections.registry.remove(session)
            self._connections.metrics.messages_in += session.messages_in
            self._connections.metrics.messages_out += session.messages_out

    def _refusal(self, scope: dict[str, Any]) -> tuple[str, HTTPStatus, str] | None:
        settings, registry = self._connections.settings, self._connections.registry
        if registry.draining:
            return "draining", HTTPStatus.SERVICE_UNAVAILABLE, "the service is about to restart"
        if not origin_allowed(scope, self._connections.allowed_origins, required=settings.require_origin):
            return "origin", HTTPStatus.FORBIDDEN, "this origin may not connect"
        if 0 < settings.max_connections <= len(registry):
            return "full", HTTPStatus.SERVICE_UNAVAILABLE, "the service has no room for another connection"
        if 0 < settings.max_connections_per_address <= registry.by_address[client_address(scope)]:
            return "address", HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address"
        return None
