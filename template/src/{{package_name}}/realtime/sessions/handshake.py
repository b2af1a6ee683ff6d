"""The handshake middleware: every handshake is admitted here first, and counted before anything is awaited."""

import asyncio
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from .denial import deny
from .middleware import PassThroughMiddleware
from .origin import origin_allowed
from .runtime import Runtime
from .session import RESTARTING, SESSION_KEY, Session, client_address

log = structlog.get_logger(__name__)


class HandshakeMiddleware(PassThroughMiddleware):
    """Reject a handshake with an HTTP status, or register its session and hand it all events.

    Args:
        runtime: What the sessions share.
        allowed_origins: Origins that may connect besides the service's own.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, runtime: Runtime, allowed_origins: frozenset[str]) -> None:
        self._runtime = runtime
        self._allowed_origins = allowed_origins

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handshake = cast("dict[str, Any]", scope)
        registry = self._runtime.registry
        if denial := self._denial(handshake):
            reason, status, detail = denial
            self._runtime.metrics.count_refused(reason)
            path, client = quote(handshake["path"]), client_address(handshake)
            log.warning("handshake refused", path=path, client=client, reason=reason, detail=detail)
            await deny(handshake, send, status, detail)
            return
        session = Session(handshake, receive, send, self._runtime)
        handshake["state"] = SocketState(handshake["state"], **{SESSION_KEY: session})
        registry.add(session)
        try:
            await next_app(scope, session.receive, session.send)
        except asyncio.CancelledError:
            if not registry.draining:
                raise
            # The drain cancelled a handler that was too slow; its clean-up has run, and nobody waits for more.
        finally:
            session.leave()

    def _denial(self, handshake: dict[str, Any]) -> tuple[str, HTTPStatus, str] | None:
        """Return why a handshake is rejected: the reason in the metrics, the status and the detail of the response."""
        settings, registry = self._runtime.settings, self._runtime.registry
        if registry.draining:
            return "draining", HTTPStatus.SERVICE_UNAVAILABLE, RESTARTING
        if not origin_allowed(handshake, self._allowed_origins, required=settings.require_origin):
            return "origin", HTTPStatus.FORBIDDEN, "this origin may not connect"
        if 0 < settings.max_connections <= len(registry):
            return "full", HTTPStatus.SERVICE_UNAVAILABLE, "the service has no room for another connection"
        if 0 < settings.max_connections_per_address <= registry.by_address[client_address(handshake)]:
            return "address", HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address"
        return None


class NoConnectionError(AttributeError):
    """`socket.state.connection` was read before there is one."""


class SocketState(dict[str, Any]):
    """`scope["state"]` of a socket, which says so where `connection` is read too early."""

    def __missing__(self, key: str) -> Any:
        if key == "connection":
            raise NoConnectionError(
                "socket.state.connection does not exist yet. It is made after the guards, when the dependencies of "
                "the handler are resolved, and only for handlers inside connection_lifespan. In a guard or a "
                "middleware, read what you need from the handshake itself: its headers, path and query."
            )
        raise KeyError(key)
