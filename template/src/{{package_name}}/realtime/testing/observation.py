"""An application under observation: its hooks, what it sends, and a path to each of its listeners."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from queue import Queue
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Litestar
from litestar.routes import WebSocketRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import source_location
from ..handlers.messages import RESERVED_FIELDS
from ..handlers.route_handler import ListenerRouteHandler
from ..internals import function_of, lifespan_of, query_of
from ..plugin import Realtime
from ..sessions.cause import Cause
from ..sessions.fast_path import split_fields
from ..sessions.info import ConnectionInfo
from ..sessions.lifespan import connection_lifespan
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


class UndocumentedMessages:
    """Listens to what an application sends.

    Args:
        app: The application; from now on it answers through this.
    """

    def __init__(self, app: Litestar) -> None:
        self.found: list[str] = []
        """A line for each message that no listener has declared."""
        self._next_app: ASGIApp = app.asgi_handler
        app.asgi_handler = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: Any = scope  # its types are partly unknown

        async def send_and_look(message: Message) -> None:
            handler = found.get("route_handler")
            if message["type"] == "websocket.send" and isinstance(handler, ListenerRouteHandler):
                frame = message["text"] if message.get("text") is not None else message["bytes"]
                if not any(_is(frame, declared.raw, handler) for declared in handler.sent_types()):
                    self.found.append(
                        f"{source_location(function_of(handler))} lets clients receive {frame!r} and does not declare "
                        "it.\nFix: return it, or name its Struct, as in sends=Joined | Left."
                    )
            await send(message)

        await self._next_app(scope, receive, send_and_look)


def _is(frame: str | bytes | None, kind: Any, handler: ListenerRouteHandler) -> bool:
    """Say whether a frame holds a message of this type, and nothing more."""
    if kind in {str, bytes}:
        return isinstance(frame, kind)
    try:
        if frame and frame[:1] in {"{", b"{"}:
            fields = split_fields(frame)
            frame = msgspec.json.encode({name: fields[name] for name in fields if name not in RESERVED_FIELDS})
        message = msgspec.json.decode(frame or "", type=kind, dec_hook=handler.default_deserializer)
    except msgspec.DecodeError:
        return False
    again = msgspec.json.decode(msgspec.json.encode(message, enc_hook=handler.default_serializer))
    return bool(again == msgspec.json.decode(frame or ""))


EXAMPLES: dict[Any, str] = {
    str: "example",
    int: "1",
    float: "1.5",
    bool: "true",
    Decimal: "1.5",
    UUID: "00000000-0000-4000-8000-000000000001",
    Path: "example",
    date: "2000-01-01",
    datetime: "2000-01-01T00:00:00",
    time: "00:00:00",
    timedelta: "P1D",
}
"""A value of each type that a path parameter may have; of any other type, a query parameter is given that of `str`."""


def example_paths(app: Litestar) -> list[str]:
    """Return a path for each listener, with examples in place of its parameters, those that its query must have too."""
    paths: list[str] = []
    for route in app.routes:
        if not isinstance(route, WebSocketRoute):
            continue
        handler = route.route_handler
        if isinstance(handler, ListenerRouteHandler) or lifespan_of(handler) is connection_lifespan:
            parts = {name: EXAMPLES[each.type] for name, each in route.path_parameters.items()}
            query = {
                name: EXAMPLES.get(field.annotation, EXAMPLES[str])
                for name, field, is_required in query_of(route)
                if is_required
            }
            paths.append(route.path_format.format_map(parts) + ("?" + urlencode(query) if query else ""))
    return paths
