"""Fixtures, clients and credentials for the tests of the service. The service itself never imports it.

`tests/conftest.py` takes all fixtures from here, so what a later version adds is there too. A test takes `connect` to
open any number of connections inside its own process, or `start` where it needs a process of its own: for signals,
ports and the network.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import structlog
from litestar import Litestar
from litestar.testing import TestClient
from litestar.types import GetLogger
from structlog.contextvars import merge_contextvars
from structlog.processors import KeyValueRenderer, format_exc_info
from structlog.stdlib import BoundLogger, LoggerFactory

from .. import plugin
from ..observability.logs import Logging
from ..parts import load_app, load_settings
from ..settings import PACKAGE, PREFIX, CoreSettings
from .client import Channel, Client, Connect, Published, UndocumentedMessages
from .process import TIMEOUT, Identify, Service, Start, credentials, settings_for_tests

__all__ = ["TIMEOUT", "Channel", "Client", "Connect", "Identify", "Published", "Service", "Start", "credentials"]
__all__ += ["app", "client", "connect", "dialogues", "environment", "identify", "published", "settings", "start"]
__all__ += ["pytest_collection_modifyitems", "pytest_configure"]

PARAMETER: Final = re.compile(r"\{(\w+)[^}]*\}")
"""A parameter in a path, and its name."""


class LoggingForTests(Logging):
    """Passes the log of the service to `logging`, so that pytest shows it only for a test that fails."""

    def configure(self) -> GetLogger:
        shown: list[Any] = [merge_contextvars, format_exc_info, KeyValueRenderer(key_order=["event"])]
        structlog.configure(shown, wrapper_class=BoundLogger, logger_factory=LoggerFactory())
        return structlog.get_logger


def pytest_configure(config: pytest.Config) -> None:
    """Import each test by its path: those of two services in one repository have the same names."""
    config.option.importmode = "importlib"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the proof of state independence first: what other tests leave in a module would hide a mistake."""
    items.sort(key=lambda item: item.path.name != "test_state_independence.py")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this machine, of its `.env` too, out of every test; and the log out of their output."""
    for name in os.environ:
        if name.startswith((PREFIX, "LITESTAR_")):
            monkeypatch.delenv(name)
    settings = import_module(f"{PACKAGE}.settings").Settings
    monkeypatch.setitem(settings.model_config, "env_file", None)
    for name, value in settings_for_tests().items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    monkeypatch.setattr(plugin, "Logging", LoggingForTests)


@pytest.fixture
def settings() -> CoreSettings:
    """The settings of the service under test: the defaults, without a limit on the rate of messages."""
    return load_settings(max_messages_per_second=0)


@pytest.fixture
def app(settings: CoreSettings) -> Litestar:
    """The application under test."""
    return load_app(settings)


@pytest.fixture
def identify() -> Identify:
    """Return the headers with which clients of `connect` and of the proofs identify themselves, by user and path.

    Replace it where a guard asks for more: `return lambda user, path: credentials(user, roles=["admin"])`.
    """
    return lambda user, _: credentials(user)


@pytest.fixture
def dialogues() -> dict[str, list[list[Any]]]:
    """What the clients of the proof of state independence say besides what the annotations tell, by the path.

    Replace it where types alone do not lead far enough, or where a handler reads the socket itself:
    `return {"/ws/orders": [[Start(), Add(item="tea"), Pay()]]}`.
    """
    return {}


@pytest.fixture
def client(app: Litestar) -> Iterator[TestClient[Litestar]]:
    """A client for any number of sockets; closing it waits until all of them are cleaned up.

    A test fails if one of its sockets receives an undocumented message.
    """
    undocumented = UndocumentedMessages(app)
    with TestClient(app) as client:
        client.headers.update(credentials())
        yield client
    if undocumented.found:
        pytest.fail("\n".join(undocumented.found))


@pytest.fixture
def connect(client: TestClient[Litestar], identify: Identify) -> Iterator[Connect]:
    """Open a connection inside the process of the test; it is closed when the test ends."""
    with ExitStack() as stack:

        def connect(path: str, *, user: str = "ada", **parameters: object) -> Client:
            names = PARAMETER.findall(path)
            url = PARAMETER.sub(lambda match: quote(str(parameters[match[1]]), safe=""), path)
            query = {name: str(value) for name, value in parameters.items() if name not in names}
            session = client.websocket_connect(url, params=query or None, headers=identify(user, url))
            opened = Client(session.__enter__())
            stack.callback(opened.close)
            return opened

        yield connect


@pytest.fixture
def published(client: TestClient[Litestar]) -> Published:
    """Follow what is published on a channel."""
    return partial(Channel, client)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the service with some settings, in a process of its own; it is stopped when the test ends."""
    with ExitStack() as stack:

        def start(**settings: object) -> Service:
            service = Service(tmp_path, **settings)
            stack.callback(service.stop)
            return service

        yield start
