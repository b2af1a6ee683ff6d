"""`Cleanup`: each way in which a connection ends, at each point of its lifecycle, and what is left of it."""

import asyncio
import gc
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from hypothesis import find
from hypothesis import settings as hypothesis_settings
from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.routes import WebSocketRoute
from websockets.frames import Frame, Opcode

from ..fanout.broker import FanoutUnavailableError
from ..fanout.plugin import Fanout
from ..handlers import route_handler
from ..handlers.messages import MessageError
from ..handlers.route_handler import ListenerRouteHandler
from ..internals import lifespan_of
from ..server.drain import DrainingServer
from ..server.serve import configuration, listen
from ..sessions.cause import Cause, Reason
from ..sessions.lifespan import HookPair, connection_lifespan
from ..sessions.plugin import Sessions
from ..sessions.session import Session, Socket, State
from ..settings import CoreSettings
from .leftovers import Loop, find_growth, find_leftovers
from .process import TIMEOUT, Identify
from .strategies import OWNERS, Endpoint

REFUSALS: Final = (MessageError, HTTPException)
"""What a handler raises to answer with an error: it is through then, as where it returns."""

SOON: Final = {
    "drain_seconds": 0.0,
    "grace_seconds": 0.0,
    "hook_seconds": 1.0,
    "max_bytes_per_second_per_address": 0,
    "max_frames_per_second": 1.0,
    "max_messages_per_second_per_address": 0,
    "send_seconds": 0.05,
}
"""Settings with which a connection ends soon."""

PATIENCE: Final = 0.5
"""Seconds in which a handler comes to its end, and what a connection has begun besides."""


class Point(StrEnum):
    """How far a connection has come when it ends."""

    ACCEPT = "in on_accept"
    OWN_ACCEPT = "in on_accept of the listener"
    FIRST = "before its first message"
    HANDLER = "while its handler awaits"
    SCOPE = "inside its per_message scope"
    STREAM = "while it streams"
    TASK = "while a task of it runs"
    BETWEEN = "between two messages"


@dataclass(slots=True, eq=False)
class Life:
    """One connection, as its hooks and its handler see it."""

    session: Session
    connection: Any
    server: DrainingServer
    fanout: Fanout
    events: list[str] = field(default_factory=list[str])
    """What of it was called, and what of that has returned, in order."""
    causes: list[tuple[Reason, int]] = field(default_factory=list[tuple[Reason, int]])
    problems: list[str] = field(default_factory=list[str])
    holds: bool = False
    """Its handler waits where it would return."""
    held: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def hold(self) -> None:
        """Wait until it is released, if it is to be held."""
        self.held = self.holds
        if self.holds:
            await self.released.wait()
            if self.error:
                raise self.error

    def release(self, error: Exception | None) -> None:
        """Have what is held return, or raise."""
        self.error = error
        self.released.set()

    async def cut(self) -> None:
        """Take the fan-out away, whatever carries it, and have what is held ask for it."""
        await self.fanout.broker.stop()
        self.release(FanoutUnavailableError())

    def flood(self) -> None:
        """Send to the client, which does not read, without an end."""

        async def send() -> None:
            while True:
                await self.connection.send("x" * 65536)

        self.connection.start(send())


@dataclass(frozen=True, slots=True)
class Ending:
    """A way in which a connection ends."""

    what: str
    end: Callable[[asyncio.StreamWriter, Life], Any]
    """Ends it; a coroutine that this returns is awaited."""
    causes: set[tuple[Reason, int]]
    """What `on_disconnect` is to receive."""
    points: tuple[Point, ...] = (Point.FIRST, Point.HANDLER, Point.SCOPE, Point.STREAM, Point.TASK, Point.BETWEEN)
    settings: dict[str, float] = field(default_factory=lambda: SOON)


def frame(opcode: Opcode, data: bytes = b"") -> bytes:
    """Return a frame of a client."""
    return Frame(opcode, data).serialize(mask=True)


def nothing(_: asyncio.StreamWriter, __: Life) -> None:
    """Wait for the service to end it."""


ACCEPTING: Final = (Point.ACCEPT, Point.OWN_ACCEPT)
SILENT: Final = {"first_message_seconds": 0.02, "idle_seconds": 0.02}
HELD: Final = (Point.HANDLER, Point.SCOPE, Point.STREAM, Point.TASK)
IDLE: Final = (Point.FIRST, Point.BETWEEN)
AT_ONCE: Final = "the hook raises at once"
AT_ITS_END: Final = "the hook raises at its end"
CUT: Final = "the fan-out is unavailable"
CANCELLED: Final = "the hook is cancelled"
FAILED: Final = {(Reason.INITIALIZATION_FAILED, 1011)}
LOST: Final = {(Reason.CONNECTION_LOST, 1006)}
TOO_BIG: Final = {(Reason.LIMIT_EXCEEDED, 1009)}

PLAIN: Final = Ending("the client closes", lambda to, _: to.write(frame(Opcode.CLOSE)), {(Reason.CLIENT_CLOSED, 1005)})
ENDINGS: Final = (
    PLAIN,
    Ending("the connection is lost", lambda to, _: to.transport.abort(), LOST),
    Ending("the client half-closes", lambda to, _: to.write_eof(), LOST),
    Ending("a frame is invalid", lambda to, _: to.write(b"\x83\x80" + bytes(4)), {(Reason.PROTOCOL_ERROR, 1002)}),
    Ending("a message is too big", lambda to, _: to.write(b"\x81\xff" + b"\x01" * 8 + bytes(4)), TOO_BIG),
    Ending("too many frames come", lambda to, _: to.write(frame(Opcode.PING) * 99), {(Reason.LIMIT_EXCEEDED, 1008)}),
    Ending(
        "the client reads nothing",
        lambda _, life: life.flood(),
        {(Reason.LIMIT_EXCEEDED, 1013)},
    ),
    Ending("it is idle", nothing, {(Reason.LIMIT_EXCEEDED, 1008)}, IDLE, SOON | SILENT),
    Ending("it raises", lambda _, life: life.release(RuntimeError("a bug")), {(Reason.HANDLER_FAILED, 1011)}, HELD),
    Ending(
        CUT,
        lambda _, life: life.cut(),
        {(Reason.SERVICE_CLOSED, 1013)},
        HELD,
    ),
    Ending("it is cancelled", lambda _, life: life.session.cancel(), {(Reason.CANCELLED, 1011)}),
    Ending(AT_ONCE, nothing, FAILED, ACCEPTING),
    Ending(AT_ITS_END, nothing, FAILED, ACCEPTING),
    Ending(CANCELLED, nothing, {(Reason.CANCELLED, 1011)}, ACCEPTING),
    Ending("the service drains", lambda _, life: life.server.drain(), {(Reason.SERVICE_RESTARTS, 1012)}),
)

CURRENT: ContextVar[Life] = ContextVar("life")
"""The connection whose hooks and handler run."""


class RefusedError(Exception):
    """The service rejects the handshake of this client."""


class Cleanup:
    """Ends connections of one listener in every way, and looks for what is left of them.

    Args:
        endpoint: The listener, at one of its paths.
        app: The application.
        server: The server that serves it.
        settings: The settings of the service.
        identify: The headers of the client.
    """

    def __init__(
        self, endpoint: Endpoint, app: Litestar, server: DrainingServer, settings: CoreSettings, identify: Identify
    ) -> None:
        self.endpoint = endpoint
        self.problems: dict[str, str] = {}
        """What is left, with the first ending after which it is."""
        self.ended = 0
        """Connections that were ended."""
        self.refused = ""
        """The status with which the service rejects this client."""
        self._fanout, self._registry = app.plugins.get(Fanout), app.plugins.get(Sessions).registry
        self._server, self._settings = server, settings
        self._lives: list[Life] = []
        self._patience = PATIENCE
        self._ending, self._point = PLAIN, Point.BETWEEN
        self._address, self._subprotocols = _example(endpoint.addresses(OWNERS[0]))
        self._headers = identify(OWNERS[0], self._address.partition("?")[0])
        self._frame = b""
        with suppress(TypeError):  # without an example of its messages
            message = endpoint.frame(_example(endpoint.messages(OWNERS[0])), 1)
            self._frame = (
                frame(Opcode.TEXT, message.encode()) if isinstance(message, str) else frame(Opcode.BINARY, message)
            )

    async def run(self, loop: Loop) -> None:
        """End a connection in each way, at each point that this listener has."""
        with ExitStack() as patches:
            for target, name, value in self._observers():
                patches.enter_context(patch.object(target, name, value))
            try:
                await self._live(PLAIN, Point.BETWEEN)  # what the first connection makes for all is there from now on
            except RefusedError as error:
                self.refused = str(error)
                return
            for ending in ENDINGS:
                for point in [each for each in ending.points if each in self._points()]:
                    patience = PATIENCE / 10 if self.problems else PATIENCE
                    self._note(await find_leftovers(loop, patience, partial(self._live, ending, point)))
            if not self.problems:
                self._note(await find_growth(partial(self._live, PLAIN, Point.BETWEEN)))

    def _points(self) -> set[Point]:
        handler = self.endpoint.handler
        has_scopes = bool(getattr(handler, "_per_message", None))
        points = {Point.ACCEPT, Point.FIRST, Point.TASK}
        if isinstance(handler, ListenerRouteHandler) and self._frame:
            points |= {Point.BETWEEN} if self._patience == PATIENCE else set()
            points |= {Point.STREAM if handler.streams else Point.SCOPE if has_scopes else Point.HANDLER}
            points |= {Point.OWN_ACCEPT} if handler.hooks else set()
        return points

    def _note(self, problems: Iterable[str]) -> None:
        for problem in problems:
            line = f"{self._ending.what} {self._point}: {problem}"
            self.problems.setdefault(re.sub(r"[0-9a-f]{8,}|\d+", "", problem), line)

    async def _live(self, ending: Ending, point: Point) -> Any:
        """Have a connection begin, come to a point, and end; return its `Connection`.

        Raises:
            RefusedError: The service rejects the handshake.
        """
        self._ending, self._point, before = ending, point, self._fanout.channels
        self._registry.runtime.draining = False  # after a drain
        with patch.object(self._registry.runtime, "settings", self._settings.model_copy(update={**ending.settings})):
            status, writer = await _connect(self._server, self._address, self._headers, self._subprotocols)
            try:
                if " 101 " not in status:
                    raise RefusedError(status)
                if not await _until(lambda: self._lives):
                    raise RuntimeError(f"the connection after this did not begin: {self.problems}")
                life = self._lives.pop()
                if await self._reach(writer, life):
                    await self._end(writer, life)
                else:
                    life.session.cancel()
            finally:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()
        joined = self._fanout.channels - before
        await _until(lambda: not (self._registry.clients or self._registry.lingering))
        if ending.what == CUT:
            fanout: Any = self._fanout
            dispatcher = fanout._dispatcher
            await self._fanout.broker.start(dispatcher.dispatch)
            for channel in dispatcher.channels:
                self._fanout.broker.subscribe(channel)
        self._note([*life.problems, *(["it is still registered"] if self._registry.clients else [])])
        self._note(f"it is still in the channel {each!r}" for each in self._fanout.channels - before)
        for channel in joined:
            self._note(f"{each!r} is still present in {channel!r}" for each in await self._fanout.present(channel))
        return life.connection

    async def _reach(self, writer: asyncio.StreamWriter, life: Life) -> bool:
        """Have a connection come to the point; return whether it does."""
        session, point = life.session, self._point
        if point in ACCEPTING:
            return True
        await _until(lambda: not session.initializing or session.cause)
        life.holds = point in HELD
        if point is Point.TASK and not session.cause:
            life.connection.start(life.hold())
        elif point is not Point.FIRST:
            writer.write(self._frame)
            returned = "the handler returns"
            if not await _until(lambda: life.held or returned in life.events or session.cause, self._patience):
                self._patience = 0.01  # it awaits something, which is as good
        await _until(lambda: session.awaiting_message or life.held or session.cause, self._patience)
        if session.cause and session.cause.error:
            life.problems.append(f"it ended before, because of {session.cause.error!r}")
        return session.cause is None and (life.held or self._ending.points != HELD)

    async def _end(self, writer: asyncio.StreamWriter, life: Life) -> None:
        """End the connection, and look at how its hooks were called."""
        self.ended += 1
        session = life.session
        if (ends := self._ending.end(writer, life)) is not None:
            await ends
        busy = self._point in {Point.HANDLER, Point.SCOPE, Point.BETWEEN} and not session.awaiting_message
        if busy or (life.held and self._point in {Point.HANDLER, Point.SCOPE}):  # what nothing cancels runs to its end
            await _until(lambda: session.cause or session.noticed_cause or life.released.is_set())
            life.released.set() if life.held else session.cancel()
        if not await _until(lambda: session.state is State.CLOSED):
            life.problems.append("it does not end")
        if len(life.causes) != 1:
            life.problems.append(f"on_disconnect was called {len(life.causes)} times")
        elif life.causes[0] not in self._ending.causes:
            life.problems.append(f"on_disconnect received the cause {life.causes[0]}")
        if life.events[-1] != "on_disconnect of the service returns":
            life.problems.append(f"after on_disconnect, {life.events[-1]}")

    def _observers(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what is replaced while this runs: an object, the name of its attribute, and the new value."""
        runtime = self._registry.runtime
        service = self._observed(Point.ACCEPT, runtime.hooks.on_accept, runtime.hooks.on_disconnect)
        others = {"on_authenticated": getattr(runtime.hooks, "on_authenticated", None)}
        hooks = SimpleNamespace(on_accept=service.on_accept, on_disconnect=service.on_disconnect, **others)
        yield runtime, "hooks", hooks
        yield route_handler, "HookPair", partial(self._observed, Point.OWN_ACCEPT)
        broker = self._fanout.broker
        kept: Any = getattr(broker, "_settings", self._settings)
        yield broker, "_settings", kept.model_copy(update={"history": 0, "history_seconds": 0})  # else memory grows
        if isinstance(self.endpoint.handler, ListenerRouteHandler):
            loop: Any = self.endpoint.handler.fn
            hold = _held_stream if loop._streams else _held
            for each in [each for each in (loop, loop._scopes) if each._bind]:
                yield each, "_bind", partial(_bound, hold, each._bind)

    def _observed(self, point: Point, on_accept: Any, on_disconnect: Any) -> HookPair:
        owner = "the service" if point is Point.ACCEPT else "the listener"

        async def accept(socket: Socket, connection: Any) -> None:
            if point is Point.ACCEPT:
                CURRENT.set(Life(Session.of(socket), connection, self._server, self._fanout))
                self._lives.append(CURRENT.get())
            life, how = CURRENT.get(), self._ending.what if self._point is point else ""
            life.events.append(f"on_accept of {owner}")
            if how == AT_ONCE:
                raise RuntimeError(how)
            if how == CANCELLED:
                asyncio.get_running_loop().call_soon(life.session.cancel)
            await on_accept(socket, connection)
            if how == AT_ITS_END:
                raise RuntimeError(how)

        async def disconnect(socket: Socket, connection: Any, cause: Cause) -> None:
            life = CURRENT.get()
            if point is Point.ACCEPT:
                life.causes.append((cause.reason, int(cause.code)))
            elif "on_disconnect of the listener returns" in life.events:
                life.problems.append("on_disconnect of the listener was called again")
            try:
                await on_disconnect(socket, connection, cause)
            except BaseException as error:
                line = error.__traceback__.tb_next if error.__traceback__ else None
                place = f" in {line.tb_frame.f_code.co_filename}, line {line.tb_lineno}" if line else ""
                life.problems.append(f"on_disconnect of {owner} raised {error!r}{place}")
                raise
            finally:
                life.events.append(f"on_disconnect of {owner} returns")

        return HookPair(accept, disconnect)


def _held(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a listener that is held where it would return."""

    async def held(**arguments: Any) -> Any:
        life = CURRENT.get()
        try:
            answer = await function(**arguments)
            await life.hold()
        except REFUSALS:
            await life.hold()
            raise
        else:
            return answer
        finally:
            life.events.append("the handler returns")

    return held


def _held_stream(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that yields one item, and is held there."""

    async def held(**arguments: Any) -> AsyncGenerator[Any, None]:
        life = CURRENT.get()
        try:
            async with aclosing(function(**arguments)) as items:
                async for item in items:
                    yield item
                    break
                await life.hold()
        finally:
            life.events.append("the handler returns")

    return held


def _bound(hold: Callable[..., Any], bind: Callable[..., partial[Any]], arguments: Any) -> partial[Any]:
    call = bind(arguments)
    return partial(hold(call.func), **call.keywords)


async def _until(condition: Callable[[], Any], seconds: float = TIMEOUT) -> bool:
    """Wait until a condition is met; return whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for turn in count():
                if condition():
                    break
                await asyncio.sleep(0 if turn < 20 else 0.001)
    return bool(condition())


async def _connect(
    server: DrainingServer, path: str, headers: dict[str, str], subprotocols: tuple[str, ...]
) -> tuple[str, asyncio.StreamWriter]:
    """Make a handshake, as no library does: the client may break every rule. Return the status line."""
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    reader, writer = await asyncio.open_connection(host, port)
    told = {"Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    told |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} | headers
    told |= {"Sec-WebSocket-Protocol": ", ".join(subprotocols)} if subprotocols else {}
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", *map(": ".join, told.items()), "", ""]).encode())
    return (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")[0], writer


def _example(values: Any) -> Any:
    """Return the simplest value of a strategy."""
    return find(values, lambda _: True, settings=hypothesis_settings(database=None, derandomize=True))


@asynccontextmanager
async def serving(app: Litestar, settings: CoreSettings) -> AsyncGenerator[DrainingServer]:
    """Serve an application in this event loop, on any free port."""
    settings = settings.model_copy(update=SOON)
    with listen("127.0.0.1", 0) as listening:
        config = configuration(app, settings)
        config.load()
        server = DrainingServer(config, app.plugins.get(Sessions).registry, settings)
        server.lifespan = config.lifespan_class(config)
        await server.startup([listening])
        try:
            yield server
        finally:
            for each in server.servers:
                each.close()
            await server.lifespan.shutdown()


def clean_up(app: Litestar, settings: CoreSettings, identify: Identify) -> list[Cleanup]:
    """End connections in every way, at each listener of an application.

    Args:
        app: The application; it is served in this process, on a free port.
        settings: Its settings.
        identify: The headers of the clients.

    Returns:
        What was found, for each listener.
    """

    async def run() -> list[Cleanup]:
        async with serving(app, settings) as server:
            endpoints = [
                Endpoint(route)
                for route in app.routes
                if isinstance(route, WebSocketRoute)
                and (
                    isinstance(route.route_handler, ListenerRouteHandler)
                    or lifespan_of(route.route_handler) is connection_lifespan
                )
            ]
            found = [Cleanup(endpoint, app, server, settings, identify) for endpoint in endpoints]
            for each in found:
                await each.run(loop)
            return found

    logging.disable()  # what is logged keeps the frames of what was raised, and those keep the connection
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            loop: Any = runner.get_loop()
            return runner.run(run())
    finally:
        logging.disable(logging.NOTSET)
        gc.unfreeze()
