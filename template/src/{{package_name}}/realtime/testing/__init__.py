"""What the tests of the service are made of: fixtures, clients and credentials. The service itself never imports it.

`tests/conftest.py` takes the fixtures from here. A test takes `connect` to open any number of connections inside its
own process, or `start` where it needs a process of its own: for signals, ports and the network.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import structlog
from litestar import Litestar
from litestar.testing import TestClient
from litestar.types import GetLogger

from .. import plugin
from ..observability.logs import Logging
from ..parts import load_app, load_settings
from ..settings import PACKAGE, PREFIX, CoreSettings
from .client import Channel, Client, Connect, Published, connect_to
from .observation import UndocumentedMessages
from .process import TIMEOUT, Identify, Service, Start, credentials, run, settings_for_tests

__all__ = (
    "TIMEOUT",
    "Channel",
    "Client",
    "Connect",
    "Identify",
    "Published",
    "Service",
    "Start",
    "app",
    "client",
    "connect",
    "credentials",
    "dialogues",
    "environment",
    "identify",
    "published",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "run",
    "settings",
    "start",
)


class LoggingForTests(Logging):
    """Hands the log of the service to `logging`, so that pytest shows it for a test that fails, and for no other."""

    def configure(self) -> GetLogger:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
        return structlog.get_logger


def pytest_configure(config: pytest.Config) -> None:
    """Import each test by its path: those of two services in one repository have the same names."""
    config.option.importmode = "importlib"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the proof of state independence: what other tests leave in a module would hide a mistake from it."""
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
    """How the clients of `connect` and of the proofs identify themselves: the headers of a user at a path.

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
    """A client with any number of sockets; leaving it waits for the clean-up of all of them.

    What its sockets receive has to be documented: a test that receives anything else fails.
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
            opened = connect_to(client, path, partial(identify, user), parameters)
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
