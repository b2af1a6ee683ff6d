"""The template's: OpenTelemetry, where the setting wants it. A span for each request and each connection, sent by OTLP.

Its packages are an extra, and nothing here imports one of them before it is wanted.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from threading import Thread
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.plugins import InitPlugin

from . import DISTRIBUTION
from .settings import PREFIX, Settings, SettingsError

ORIGINAL = f"{__name__}.original"
SECRET_HEADERS = {b"authorization", b"cookie", b"sec-websocket-protocol"}
"""Where a token stands. No header is in a span by default, but OTEL_* variables can ask for any."""


def telemetry(settings: Settings) -> list[InitPlugin]:
    """Return the plugin, or none.

    Raises:
        SettingsError: The setting is on, and its packages are not installed.
    """
    return [_Telemetry(settings)] if settings.opentelemetry else []


class _Telemetry(InitPlugin):
    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.hook_seconds
        try:
            resources = import_module("opentelemetry.sdk.resources")
            sdk = import_module("opentelemetry.sdk.trace")
            export = import_module("opentelemetry.sdk.trace.export")
            otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
            trace = import_module("opentelemetry.trace")
            litestar = import_module("litestar.plugins.opentelemetry")
        except ImportError as error:
            mend = "install what it needs with `uv sync --extra opentelemetry`"
            raise SettingsError(f"{PREFIX}OPENTELEMETRY: {error}; {mend}") from None
        given = resources.OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME wins
        resource = resources.Resource.create({"service.name": DISTRIBUTION} | dict(given))
        self._provider: Any = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
        trace.set_tracer_provider(self._provider)  # for spans of your own, and of other libraries
        self._middleware: Any = litestar.OpenTelemetryConfig(
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],  # they would be one for each message
            middleware_class=type("Redacting", (_Redacting, litestar.OpenTelemetryInstrumentationMiddleware), {}),
        ).middleware

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        config: Any = app_config  # its types are partly unknown
        config.middleware.append(self._middleware)  # Litestar finds it there, and puts it around everything
        config.lifespan.append(self._lifespan)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        """Send what is left in the end. A collector that does not answer cannot hold the service up."""
        try:
            yield
        finally:
            sending = Thread(target=self._provider.shutdown, daemon=True)
            sending.start()
            await asyncio.to_thread(sending.join, self._seconds)


class _Redacting:
    """Shows the instrumentation a scope without what may hold a token, and the application the real one."""

    def __init__(self, app: Any, config: Any) -> None:
        async def with_the_original(scope: Any, receive: Any, send: Any) -> None:
            await app(scope.get(ORIGINAL, scope), receive, send)

        instrumentation: Any = super()
        instrumentation.__init__(with_the_original, config)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in SECRET_HEADERS]
        instrumentation: Any = super()
        await instrumentation.__call__(
            {**scope, "query_string": b"", "headers": headers, ORIGINAL: scope}, receive, send
        )
