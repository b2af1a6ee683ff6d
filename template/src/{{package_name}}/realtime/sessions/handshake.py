"""The handshake middleware: every handshake is admitted here first, and counted before anything is awaited."""

import asyncio
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from .denial import deny
from .frames import EXTENSION
from .middleware import PassThroughMiddleware
from .registry import Registry
from .session import RESTARTING, SESSION_KEY, Runtime, Session, client_address

log = structlog.get_logger(__name__)


class HandshakeMiddleware(PassThroughMiddleware):
    """Reject a handshake with an HTTP status, or register its session and hand it all events.

    Args:
        runtime: What the sessions share.
        registry: All sessions of this node.
        allowed_origins: Origins that may connect besides the service's own.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, runtime: Runtime, registry: Registry, allowed_origins: frozenset[str]) -> None:
        self._runtime = runtime
        self._registry = registry
        self._allowed_origins = allowed_origins

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handshake = cast("dict[str, Any]", scope)
        if denial := self._denial(handshake):
            reason, status, detail = denial
            self._runtime.metrics.refused[reason] += 1
            path, client = quote(handshake["path"]), client_address(handshake)
            log.warning("handshake refused", path=path, client=client, reason=reason, detail=detail)
            await deny(handshake, send, status, detail)
            return
        session = Session(handshake, receive, send, self._runtime)
        handshake["state"] = SocketState(handshake["state"], **{SESSION_KEY: session})
        self._registry.add(session)
        extensions: dict[str, Any] = handshake.get("extensions") or {}
        extension: dict[str, Any] = extensions.get(EXTENSION) or {}
        try:
            await next_app(scope, session.receive, session.send)
        except asyncio.CancelledError:
            if not self._runtime.draining:
                raise
            # The drain cancelled a handler that was too slow; its clean-up has run, and nobody waits for more.
        finally:
            session.leave()
            self._registry.remove(session, extension.get("writer"))

    def _denial(self, handshake: dict[str, Any]) -> tuple[str, HTTPStatus, str] | None:
        """Return why a handshake is rejected: the reason in the metrics, the status and the detail of the response."""
        settings, registry = self._runtime.settings, self._registry
        if registry.draining:
            return "draining", HTTPStatus.SERVICE_UNAVAILABLE, RESTARTING
        if not origin_allowed(handshake, self._allowed_origins, required=settings.require_origin):
            return "origin", HTTPStatus.FORBIDDEN, "this origin may not connect"
        if 0 < settings.max_connections <= len(registry) + registry.lingering:
            return "full", HTTPStatus.SERVICE_UNAVAILABLE, "the service has no room for another connection"
        if 0 < settings.max_connections_per_address <= registry.by_address[client_address(handshake)]:
            return "address", HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address"
        return None


class SocketState(dict[str, Any]):
    """`scope["state"]` of a socket, which says so where `connection` is read before there is one."""

    def __missing__(self, key: str) -> Any:
        if key == "connection":
            raise AttributeError(
                "socket.state.connection does not exist yet. It is made after the guards, when the dependencies of "
                "the handler are resolved, and only for handlers inside connection_lifespan. In a guard or a "
                "middleware, read what you need from the handshake itself: its headers, path and query."
            )
        raise KeyError(key)


def origin_allowed(scope: dict[str, Any], allowed: frozenset[str], *, required: bool) -> bool:
    """Say whether the page behind a handshake may connect.

    A browser lets any page open a WebSocket to any host and sends the host's cookies along (cross-site WebSocket
    hijacking); CORS does not apply. What the browser does send, and no page can forge, is the `Origin` header (RFC
    6455, section 10.2), so it is compared here, exactly, before the handshake is accepted.

    Args:
        scope: The ASGI scope of the handshake.
        allowed: Origins let in besides the service's own, each as scheme://host or scheme://host:port.
        required: Refuse clients that send no Origin at all (they are no browsers).
    """
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if not origins:
        return not required
    if len(origins) > 1:
        return False
    origin = origins[0].decode("latin-1").lower()
    return origin in allowed or origin == own_origin(scope)


def own_origin(scope: dict[str, Any]) -> str:
    """Return the origin of a page of this very service, or "" where the client names no host."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1:
        return ""
    scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
    return normal_origin(f"{scheme}://{hosts[0].decode('latin-1')}")


def normal_origin(origin: str) -> str:
    """Write an origin as browsers do: lower case, without the port that its scheme implies."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix({'http': ':80', 'https': ':443'}.get(scheme, ':'))}"
