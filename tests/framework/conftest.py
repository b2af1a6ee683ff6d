"""The fixtures of the tests of the framework."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from .recording import Hooks, Serve, build


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
