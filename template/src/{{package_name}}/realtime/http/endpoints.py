"""The endpoints for operators: /health, /ready and /metrics."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from litestar import HttpMethod, Response, get, route
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ..fanout.plugin import Fanout
from ..observability.logs import LogCollector
from ..sessions.plugin import Sessions

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
    """Return 200 where new connections are welcome.

    It is 503 while the service drains, while the fan-out is unavailable, and while a function of `Realtime(ready=...)`
    fails.
    """
    if sessions.registry.draining:
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
    registry.register(sessions.collector)
    registry.register(fanout.metrics)
    registry.register(LogCollector())
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})
