"""Hooks that record, an application that is nothing but sessions and handlers, and a loop that does not wait."""

import asyncio
import json
import selectors
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import structlog
from litestar import Litestar
from litestar.testing import TestClient
from structlog.testing import LogCapture
from structlog.typing import EventDict
from websockets.sync.client import ClientConnection

from my_service.realtime import Cause, ConnectionInfo, Socket
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.testing import TIMEOUT
from my_service.settings import Settings

Serve = Callable[..., AbstractContextManager[TestClient[Litestar]]]
"""Serve handlers, with settings as keywords: `with serve(handler) as client`."""


def do_nothing(_: Socket) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Hooks:
    """Hooks that record what they are called with, and then do what the test sets."""

    accepted: list[ConnectionInfo] = field(default_factory=list[ConnectionInfo])
    ended: Queue[tuple[ConnectionInfo, Cause]] = field(default_factory=Queue[tuple[ConnectionInfo, Cause]])
    """The clean-ups, as they happen: `get(timeout=20)` waits for the next."""
    during_accept: Callable[[Socket], None] = do_nothing
    during_disconnect: Callable[[Socket], None] = do_nothing

    async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None:
        self.accepted.append(connection)
        self.during_accept(socket)

    async def on_disconnect(self, socket: Socket, connection: ConnectionInfo, cause: Cause) -> None:
        self.ended.put((connection, cause))
        self.during_disconnect(socket)


def build(hooks: Hooks, *handlers: Any, **limits: Any) -> Litestar:
    """Build an application without any limit but those given."""
    settings = Settings.load(**({"max_messages_per_second": 0, "hook_seconds": 1} | limits))
    sessions = Sessions(settings, ConnectionInfo, hooks)
    return Litestar(list(handlers), plugins=[sessions], logging_config=None, openapi_config=None)


@contextmanager
def capture_logs() -> Generator[list[EventDict]]:
    """Collect what is logged. Unlike that of structlog, it may begin and end while another thread logs."""
    capture, processors = LogCapture(), structlog.get_config()["processors"]
    structlog.configure([capture])
    try:
        yield capture.entries
    finally:
        structlog.configure(processors)


def receive(client: ClientConnection) -> dict[str, Any]:
    """Return the next message of a service in a process of its own."""
    message: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
    return message


class SkippingSelector(selectors.DefaultSelector):
    """Does not wait for a time, but has it pass at once."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.skipped += timeout or 0
        return super().select(timeout and 0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs ahead whenever there is nothing to do."""

    def __init__(self) -> None:
        self._skipping = SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return super().time() + self._skipping.skipped
