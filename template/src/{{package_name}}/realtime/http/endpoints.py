"""The template's: the HTTP side for those who run the service: /health, /ready and /metrics."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ..fanout.plugin import Fanout
from ..sessions.plugin import Sessions

READY_SECONDS: Final = 5
"""Seconds that each function of `Realtime(ready=...)` may take."""

ReadyCheck = Callable[[], Awaitable[Any]]

log = structlog.get_logger(__name__)


@get("/health")
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@get("/ready")
async def ready(
    connections: NamedDependency[Sessions],
    fanout: NamedDependency[Fanout],
    ready_checks: NamedDependency[tuple[ReadyCheck, ...]],
) -> Response[dict[str, str]]:
    """Say whether new connections are welcome: 503 while the service drains, while the fan-out is unavailable,
    or while a function of `Realtime(ready=...)` fails.
    """
    if connections.registry.draining:
        return Response({"status": "draining"}, status_code=503)
    if not fanout.available:
        return Response({"status": "fan-out unavailable"}, status_code=503)
    for check in ready_checks:
        name = getattr(check, "__name__", "check")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await check()
        except Exception as error:  # noqa: BLE001 (whatever it raises)
            log.warning("not ready", check=name, exc_info=error)
            return Response({"status": f"{name} failed"}, status_code=503)
    return Response({"status": "ready"})


@get("/metrics", include_in_schema=False)
async def metrics(connections: NamedDependency[Sessions], fanout: NamedDependency[Fanout]) -> Response[bytes]:
    """The numbers of the connections and the fan-out, in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(connections.metrics)
    registry.register(fanout.metrics)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
