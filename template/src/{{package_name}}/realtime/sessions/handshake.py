"""The handshake middleware: every handshake is admitted here first, and counted before anything is awaited."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from websockets.frames import CloseCode

from .denial import deny
from .frames import EXTENSION
from .middleware import PassThroughMiddleware
from .origin import OriginPolicy
from .registry import Registry, address_group
from .session import RESTARTING, SESSION_KEY, Runtime, Session, client_address

log = structlog.get_logger(__name__)


class HandshakeMiddleware(PassThroughMiddleware):
    """Reject a handshake with an HTTP status, or register its session and hand it all events.

    Args:
        runtime: What the sessions share.
        registry: All sessions of this node.
        policy: Which pages may connect.
    """

    scopes = (ScopeType.WEBSOCKET,)

    def __init__(self, runtime: Runtime, registry: Registry, policy: OriginPolicy) -> None:
        self._runtime = runtime
        self._registry = registry
        self._policy = policy

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handshake = cast("dict[str, Any]", scope)
        if denial := self._denial(handshake):
            reason, status, detail = denial
            self._runtime.metrics.refused[reason] += 1
            path, client = quote(handshake["path"]), client_address(handshake)
            hints = self._policy.explain(handshake, reason) if status == HTTPStatus.FORBIDDEN else {}
            log.warning("handshake refused", path=path, client=client, reason=reason, detail=detail, **hints)
            if self._runtime.settings.is_development:
                detail = "\n".join([detail, *(f"{name}: {value}" for name, value in hints.items())])
            await deny(handshake, send, status, detail)
            return
        if EXTENSION not in (handshake.get("extensions") or ()):
            receive = _limited(receive, send, self._runtime.settings.max_message_size)
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
        if problem := self._policy.problem(handshake):
            return problem, HTTPStatus.FORBIDDEN, f"this {problem} may not connect"
        if 0 < settings.max_connections <= len(registry) + registry.lingering:
            return "full", HTTPStatus.SERVICE_UNAVAILABLE, "the service has no room for another connection"
        if 0 < settings.max_connections_per_address <= registry.by_address[address_group(client_address(handshake))]:
            return "address", HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address"
        return None


def _limited(receive: Receive, send: Send, limit: int) -> Receive:
    """Keep MAX_MESSAGE_SIZE on a server that is not ours, and may have another limit, or none."""

    async def receive_within_limit() -> Any:
        message: Any = await receive()
        if message["type"] == "websocket.receive":
            text = message.get("text")
            if len(text.encode() if text is not None else message.get("bytes") or b"") > limit:
                with suppress(OSError, RuntimeError):  # it is gone already
                    await send({"type": "websocket.close", "code": CloseCode.MESSAGE_TOO_BIG, "reason": "too big"})
                return {"type": "websocket.disconnect", "code": int(CloseCode.MESSAGE_TOO_BIG), "reason": "too big"}
        return message

    return receive_within_limit


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
