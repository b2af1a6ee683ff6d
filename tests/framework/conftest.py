"""The fixtures of the tests of the framework."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from litestar import Litestar
from litestar.testing import TestClient

from my_service.realtime.testing import process

from .forked import Popen
from .recording import Hooks, Serve, build


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Leave to no other test the log that an application of this one has configured, nor loggers that keep it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is telemetry, no stop waits for a collector."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start services sooner than `subprocess` does."""
    monkeypatch.setattr(process, "Popen", Popen)


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def serve(hooks: Hooks) -> Serve:
    @contextmanager
    def serve(*handlers: Any, **limits: Any) -> Generator[TestClient[Litestar]]:
        with TestClient(build(hooks, *handlers, **limits)) as client:
            yield client

    return serve
