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
from inspect import isasyncgenfunction
from traceback import extract_tb
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

from hypothesis import find
from hypothesis import settings as hypothesis_settings
from litestar import Litestar
from litestar.routes import WebSocketRoute
from websockets.frames import Frame, Opcode

from ..fanout.broker import FanoutUnavailableError
from ..fanout.memory import MemoryBroker
from ..fanout.plugin import Fanout
from ..handlers import listener
from ..handlers.listener import ListenerRouteHandler
from ..handlers.messages import REFUSALS
from ..internals import lifespan_of
from ..server.drain import DrainingServer
from ..server.serve import configuration, listen
from ..sessions.cause import Cause, Reason
from ..sessions.lifespan import HookPair, connection_lifespan
from ..sessions.plugin import Sessions
from ..sessions.session import Session, Socket, State
from ..settings import CoreSettings
from .leftovers import find_growth, find_leftovers, until
from .process import TIMEOUT, Identify
from .strategies import OWNERS, Endpoint

SHORT_LIMITS: Final = {
    "drain_seconds": 0.0,
    "grace_seconds": 0.0,
    "hook_seconds": 1.0,
    "max_bytes_per_second_per_address": 0,
    "max_frames_per_second": 1.0,
    "max_messages_per_second_per_address": 0,
    "send_seconds": 0.05,
}
"""Settings with which a connection ends soon."""

SHORT_TIMEOUT: Final = 0.5
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
class Observed:
    """One connection, as its client, its hooks and its handler see it."""

    cleanup: "Cleanup"
    session: Session
    connection: Any
    writer: asyncio.StreamWriter = field(init=False)
    """Its client."""
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
        if self.held:
            await self.released.wait()
            if self.error:
                raise self.error

    def release(self, error: Exception | None = None) -> None:
        """Have what is held return, or raise."""
        self.error = error
        self.released.set()

    def lose_fanout(self) -> None:
        """Make the fan-out unavailable, whatever carries it, and have what is held ask for it."""
        self.cleanup.fanout.broker = self.cleanup.unavailable
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
    end: Callable[[Observed], Any]
    """Ends it; a coroutine that this returns is awaited."""
    cause: tuple[Reason, int]
    """What `on_disconnect` is to receive."""
    points: tuple[Point, ...] = (Point.FIRST, Point.HANDLER, Point.SCOPE, Point.STREAM, Point.TASK, Point.BETWEEN)
    settings: dict[str, float] = field(default_factory=lambda: SHORT_LIMITS)


def frame(opcode: Opcode, data: bytes = b"") -> bytes:
    """Return a frame of a client."""
    return Frame(opcode, data).serialize(mask=True)


def nothing(_: Observed) -> None:
    """Wait for the service to end it."""


ACCEPTING: Final = (Point.ACCEPT, Point.OWN_ACCEPT)
SILENT: Final = {"first_message_seconds": 0.02, "idle_seconds": 0.02}
HELD: Final = (Point.HANDLER, Point.SCOPE, Point.STREAM, Point.TASK)
IDLE: Final = (Point.FIRST, Point.BETWEEN)
RETURNS: Final = "the handler returns"
AT_ONCE: Final = "the hook raises at once"
AT_ITS_END: Final = "the hook raises at its end"
CANCELLED: Final = "the hook is cancelled"
FAILED: Final = Reason.INITIALIZATION_FAILED, 1011
CANCEL: Final = Reason.CANCELLED, 1011
LIMITED, LOST = Reason.LIMIT_EXCEEDED, (Reason.CONNECTION_LOST, 1006)
BIG: Final = b"\x81\xff" + b"\x01" * 8 + bytes(4)
INVALID: Final = b"\x83\x80" + bytes(4)
CLOSE: Final = frame(Opcode.CLOSE)

PLAIN: Final = Ending("the client closes", lambda it: it.writer.write(CLOSE), (Reason.CLIENT_CLOSED, 1005))
ENDINGS: Final = (
    PLAIN,
    Ending("the connection is lost", lambda it: it.writer.transport.abort(), LOST),
    Ending("the client half-closes", lambda it: it.writer.write_eof(), LOST),
    Ending("a frame is invalid", lambda it: it.writer.write(INVALID), (Reason.PROTOCOL_ERROR, 1002)),
    Ending("a message is too big", lambda it: it.writer.write(BIG), (LIMITED, 1009)),
    Ending("too many frames come", lambda it: it.writer.write(frame(Opcode.PING) * 99), (LIMITED, 1008)),
    Ending("the client reads nothing", Observed.flood, (LIMITED, 1013)),
    Ending("it is idle", nothing, (LIMITED, 1008), IDLE, SHORT_LIMITS | SILENT),
    Ending("it raises", lambda it: it.release(RuntimeError("a bug")), (Reason.HANDLER_FAILED, 1011), HELD),
    Ending("the fan-out is unavailable", Observed.lose_fanout, (Reason.SERVICE_CLOSED, 1013), HELD),
    Ending("it is cancelled", lambda it: it.session.cancel(), CANCEL),
    Ending(AT_ONCE, nothing, FAILED, ACCEPTING),
    Ending(AT_ITS_END, nothing, FAILED, ACCEPTING),
    Ending(CANCELLED, nothing, CANCEL, ACCEPTING),
    Ending("the service drains", lambda it: it.cleanup.server.drain(), (Reason.SERVICE_RESTARTS, 1012)),
)


CURRENT: ContextVar[Observed] = ContextVar("observed")
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
        self.server: DrainingServer = server
        self.fanout = app.plugins.get(Fanout)
        self.unavailable = MemoryBroker(cast("Any", settings))
        """What takes the place of the broker of the fan-out; it is never started."""
        self._registry, self._settings = app.plugins.get(Sessions).registry, settings
        self._begun: list[Observed] = []
        self._timeout = SHORT_TIMEOUT
        self._ending, self._point = PLAIN, Point.BETWEEN
        self._address, self._subprotocols = _example(endpoint.addresses(OWNERS[0]))
        self._headers = identify(OWNERS[0], self._address.partition("?")[0])
        self._frame = b""
        with suppress(TypeError):  # without an example of its messages
            message = endpoint.frame(_example(endpoint.messages(OWNERS[0])), 1)
            opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
            self._frame = frame(opcode, data)

    async def run(self) -> None:
        """End a connection in each way, at each point that this listener has."""
        with ExitStack() as patches:
            for target, name, value in self._observers():
                patches.enter_context(patch.object(target, name, value))
            try:
                await self._connect(PLAIN, Point.BETWEEN)  # what the first one makes for all is there from now on
            except RefusedError as error:
                self.refused = str(error)
                return
            for ending in ENDINGS:
                for point in [each for each in ending.points if each in self._points()]:
                    seconds = SHORT_TIMEOUT / 10 if self.problems else SHORT_TIMEOUT
                    self._note(await find_leftovers(seconds, partial(self._connect, ending, point)))
            if not self.problems:
                self._note(await find_growth(partial(self._connect, PLAIN, Point.BETWEEN)))

    def _points(self) -> set[Point]:
        handler = self.endpoint.handler
        has_scopes = bool(getattr(handler, "_per_message", None))
        points = {Point.ACCEPT, Point.FIRST, Point.TASK}
        if isinstance(handler, ListenerRouteHandler) and self._frame:
            points |= {Point.BETWEEN} if self._timeout == SHORT_TIMEOUT else set()
            points |= {Point.STREAM if handler.streams else Point.SCOPE if has_scopes else Point.HANDLER}
            points |= {Point.OWN_ACCEPT} if handler.hooks else set()
        return points

    def _note(self, problems: Iterable[str]) -> None:
        for problem in problems:
            line = f"{self._ending.what} {self._point}: {problem}"
            self.problems.setdefault(re.sub(r"[0-9a-f]{8,}|\d+", "", problem), line)

    async def _connect(self, ending: Ending, point: Point) -> Any:
        """Have a connection begin, come to a point, and end; return its `Connection`.

        Raises:
            RefusedError: The service rejects the handshake.
        """
        self._ending, self._point, before = ending, point, self.fanout.channels
        self._registry.runtime.draining = False  # after a drain
        shortened = self._settings.model_copy(update={**ending.settings})
        with (
            patch.object(self._registry.runtime, "settings", shortened),
            patch.object(self.fanout, "broker", self.fanout.broker),
        ):
            status, writer = await self._shake_hands()
            try:
                if " 101 " not in status:
                    raise RefusedError(status)
                if not await until(lambda: self._begun):
                    raise RuntimeError(f"the connection after this did not begin: {self.problems}")
                observed = self._begun.pop()
                observed.writer = writer
                if await self._reach(observed):
                    await self._end(observed)
                else:
                    observed.session.cancel()
            finally:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()
            joined = self.fanout.channels - before
            forgotten = await until(lambda: not (self._registry.clients or self._registry.lingering))
        self._note([*observed.problems, *([] if forgotten else ["it is still registered"])])
        self._note(f"it is still in the channel {each!r}" for each in self.fanout.channels - before)
        for channel in joined:
            self._note(f"{each!r} is still present in {channel!r}" for each in await self.fanout.present(channel))
        return observed.connection

    async def _shake_hands(self) -> tuple[str, asyncio.StreamWriter]:
        """Make a handshake, as no library does: the client may break every rule. Return the status line."""
        host, port = self.server.servers[0].sockets[0].getsockname()[:2]
        told = {"Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        told |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} | self._headers
        told |= {"Sec-WebSocket-Protocol": ", ".join(self._subprotocols)} if self._subprotocols else {}
        request = [f"GET {self._address} HTTP/1.1", *map(": ".join, told.items()), "", ""]
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write("\r\n".join(request).encode())
            return (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")[0], writer

    async def _reach(self, observed: Observed) -> bool:
        """Have a connection come to the point; return whether it does."""
        session, point = observed.session, self._point
        if point in ACCEPTING:
            return True
        await until(lambda: not session.initializing or session.cause)
        observed.holds = point in HELD
        if point is Point.TASK and not session.cause:
            observed.connection.start(observed.hold())
        elif point is not Point.FIRST:
            observed.writer.write(self._frame)
            await until(lambda: session.messages_received or session.cause or not self._frame)
            if not await until(lambda: observed.held or RETURNS in observed.events or session.cause, self._timeout):
                self._timeout = 0.01  # it awaits something, which is as good
        await until(lambda: session.awaiting_message or observed.held or session.cause, self._timeout)
        if session.cause and session.cause.error:
            observed.problems.append(f"it ended before, because of {session.cause.error!r}")
        return session.cause is None and (observed.held or self._ending.points != HELD)

    async def _end(self, observed: Observed) -> None:
        """End the connection, and look at how its hooks were called."""
        self.ended += 1
        session = observed.session
        if (ends := self._ending.end(observed)) is not None:
            await ends
        busy = self._point in {Point.HANDLER, Point.SCOPE, Point.BETWEEN} and not session.awaiting_message
        if busy or (observed.held and self._point in {Point.HANDLER, Point.SCOPE}):  # nothing cancels it
            await until(lambda: session.cause or session.noticed_cause or observed.released.is_set())
            observed.released.set() if observed.held else session.cancel()
        if not await until(lambda: session.state is State.CLOSED):
            observed.problems.append("it does not end")
            session.cancel()  # for those after it
        if len(observed.causes) != 1:
            observed.problems.append(f"on_disconnect was called {len(observed.causes)} times")
        elif observed.causes[0] != self._ending.cause:
            observed.problems.append(f"on_disconnect received the cause {observed.causes[0]}")
        if observed.events[-1] != "on_disconnect of the service returns":
            observed.problems.append(f"after on_disconnect, {observed.events[-1]}")

    def _observers(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what is replaced while this runs: an object, the name of its attribute, and the new value."""
        hooks = self._registry.runtime.hooks
        service = self._observed(Point.ACCEPT, hooks.on_accept, hooks.on_disconnect)
        others = {"on_authenticated": getattr(hooks, "on_authenticated", None)}
        watched = SimpleNamespace(on_accept=service.on_accept, on_disconnect=service.on_disconnect, **others)
        yield self._registry.runtime, "hooks", watched
        yield listener, "HookPair", partial(self._observed, Point.OWN_ACCEPT)
        if isinstance(self.endpoint.handler, ListenerRouteHandler):
            loop: Any = self.endpoint.handler.fn
            for each in [each for each in (loop, loop._scopes) if each._bind]:
                yield each, "_bind", partial(_held, each._bind)

    def _observed(self, point: Point, on_accept: Any, on_disconnect: Any) -> HookPair:
        owner = "the service" if point is Point.ACCEPT else "the listener"

        async def accept(socket: Socket, connection: Any) -> None:
            if point is Point.ACCEPT:
                CURRENT.set(Observed(self, Session.of(socket), connection))
                self._begun.append(CURRENT.get())
            observed, how = CURRENT.get(), self._ending.what if self._point is point else ""
            observed.events.append(f"on_accept of {owner}")
            if how == AT_ONCE:
                raise RuntimeError(how)
            if how == CANCELLED:
                asyncio.get_running_loop().call_soon(observed.session.cancel)
            await on_accept(socket, connection)
            if how == AT_ITS_END:
                raise RuntimeError(how)

        async def disconnect(socket: Socket, connection: Any, cause: Cause) -> None:
            observed = CURRENT.get()
            if point is Point.ACCEPT:
                observed.causes.append((cause.reason, int(cause.code)))
            try:
                await on_disconnect(socket, connection, cause)
            except BaseException as error:
                place = extract_tb(error.__traceback__, limit=2)[-1]
                line = f"on_disconnect of {owner} raised {error!r} in {place.filename}, line {place.lineno}"
                observed.problems.append(line)
                raise
            finally:
                observed.events.append(f"on_disconnect of {owner} returns")

        return HookPair(accept, disconnect)


def _held(bind: Callable[..., partial[Any]], arguments: Any) -> partial[Any]:
    """Bind the function of a listener, which is held where it would return; a stream is after its first item."""
    call, observed = bind(arguments), CURRENT.get()

    @asynccontextmanager
    async def holding() -> AsyncGenerator[None]:
        try:
            yield
            await observed.hold()
        except REFUSALS:
            await observed.hold()
            raise
        finally:
            observed.events.append(RETURNS)

    async def held(**arguments: Any) -> Any:
        async with holding():
            return await call.func(**arguments)

    async def held_stream(**arguments: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(call.func(**arguments)) as items, holding():
            async for item in items:
                yield item
                break

    return partial(held_stream if isasyncgenfunction(call.func) else held, **call.keywords)


def _example(values: Any) -> Any:
    """Return the simplest value of a strategy."""
    return find(values, lambda _: True, settings=hypothesis_settings(database=None, derandomize=True))


@asynccontextmanager
async def serving(app: Litestar, settings: CoreSettings) -> AsyncGenerator[DrainingServer]:
    """Serve an application in this event loop, on any free port."""
    settings = settings.model_copy(update=SHORT_LIMITS)
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
            routes = [route for route in app.routes if isinstance(route, WebSocketRoute)]
            found = [
                Cleanup(Endpoint(route), app, server, settings, identify)
                for route in routes
                if isinstance(route.route_handler, ListenerRouteHandler)
                or lifespan_of(route.route_handler) is connection_lifespan
            ]
            for each in found:
                await each.run()
            return found

    logging.disable()  # what is logged keeps the frames of what was raised, and those keep the connection
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # the others have timers of their own
            return runner.run(run())
    finally:
        logging.disable(logging.NOTSET)
        gc.unfreeze()
