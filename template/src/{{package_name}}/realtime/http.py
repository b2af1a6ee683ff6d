"""HTTP: the endpoints for operators, /health, /ready and /metrics, and the security headers of every response.

A header that a handler sets itself is kept. Responses without a handler (404, 405) have the headers too. HTTPS, and
therefore Strict-Transport-Security, is the task of the proxy.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from litestar import HttpMethod, Response, get, route
from litestar.datastructures import MutableScopeHeaders
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .fanout.plugin import Fanout
from .observability.logs import LogCollector
from .sessions.fast_path import PassThroughMiddleware
from .sessions.plugin import Sessions

READY_SECONDS: Final = 5
"""Seconds that each function of `Realtime(ready=...)` may take."""

ReadyCheck = Callable[[], Awaitable[Any]]

log = structlog.get_logger(__name__)


@route("/health", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def health() -> dict[str, str]:
    """Return 200 as long as the process is alive."""
    return {"status": "alive"}


@route("/ready", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def ready(
    sessions: NamedDependency[Sessions],
    fanout: NamedDependency[Fanout],
    ready_checks: NamedDependency[tuple[ReadyCheck, ...]],
) -> Response[dict[str, str]]:
    """Return 200 while the service accepts new connections.

    Return 503 while the service drains, while the fan-out is unavailable, or while a function of `Realtime(ready=...)`
    fails.
    """
    if sessions.registry.runtime.draining:
        return Response({"status": "draining"}, status_code=503)
    if not fanout.available:
        return Response({"status": "fan-out unavailable"}, status_code=503)
    for check in ready_checks:
        name = getattr(check, "__name__", "check")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await check()
        except Exception as error:
            log.warning("not ready", check=name, exc_info=error)
            return Response({"status": f"{name} failed"}, status_code=503)
    return Response({"status": "ready"})


@get("/metrics", include_in_schema=False)
async def metrics(sessions: NamedDependency[Sessions], fanout: NamedDependency[Fanout]) -> Response[bytes]:
    """Return the metrics of the connections, the fan-out and the log in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(sessions.registry)
    registry.register(fanout.metrics)
    registry.register(LogCollector())
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of a response that is not a page (W3C, Content Security Policy Level 3)."""

OPENER: Final = "cross-origin-opener-policy"

HEADERS: Final = {
    "content-security-policy": NOTHING,
    OPENER: "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

LOCAL: Final = re.compile(rb"(localhost|.+\.localhost|\[::1\]|127\..*?)(:[0-9]*)?", re.IGNORECASE)


class SecurityHeaders(PassThroughMiddleware):
    """Add the security headers to each HTTP response that does not set them itself."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                for name, value in HEADERS.items():
                    if name not in headers and (name != OPENER or _is_trustworthy(scope)):
                        headers[name] = value
            await send(message)

        await next_app(scope, receive, send_with_headers)


def _is_trustworthy(scope: Scope) -> bool:
    """Return whether a browser honours Cross-Origin-Opener-Policy here. Elsewhere it logs a warning in its console."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return scope["scheme"] == "https" or LOCAL.fullmatch(host) is not None
