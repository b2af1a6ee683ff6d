"""An application under observation: its hooks are called as always, and each call is recorded."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any
from unittest.mock import patch

from ..plugin import Realtime
from ..sessions.cause import Cause
from ..sessions.info import ConnectionInfo
from ..sessions.session import Socket


def do_nothing(_: Socket, __: Any) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Observation:
    """What happens to the connections of an application."""

    accepted: Queue[Any] = field(default_factory=Queue[Any])
    """The `Connection` of each that was accepted, as it happens: `get(timeout=20)` waits for the next."""
    ended: Queue[tuple[Any, Cause]] = field(default_factory=Queue[tuple[Any, Cause]])
    """The `Connection` and the cause of each that has ended, as it happens."""
    on_accept: Callable[[Socket, Any], None] = do_nothing
    """Called before `on_accept` of the service; it may raise."""
    on_disconnect: Callable[[Socket, Any], None] = do_nothing
    """Called before `on_disconnect` of the service."""


class ObservedHooks:
    """The hooks of the service, which report to an observation."""

    def __init__(self, hooks: Any, observation: Observation) -> None:
        self._hooks = hooks
        self._observation = observation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hooks, name)

    async def on_accept(self, socket: Socket, connection: Any) -> None:
        self._observation.accepted.put(connection)
        self._observation.on_accept(socket, connection)
        await self._hooks.on_accept(socket, connection)

    async def on_disconnect(self, socket: Socket, connection: Any, cause: Cause) -> None:
        self._observation.ended.put((connection, cause))
        self._observation.on_disconnect(socket, connection)
        await self._hooks.on_disconnect(socket, connection, cause)


@contextmanager
def observing(connection: Callable[[], ConnectionInfo] | None = None) -> Generator[Observation]:
    """Observe the applications that are built inside.

    Args:
        connection: A class that takes the place of their `Connection`.
    """
    observation = Observation()
    begin = Realtime.__init__

    def begin_observed(plugin: Realtime, settings: Any, its_own: Any, hooks: Any, **options: Any) -> None:
        begin(plugin, settings, connection or its_own, ObservedHooks(hooks, observation), **options)

    with patch.object(Realtime, "__init__", begin_observed):
        yield observation
