"""The lifecycle of a connection: accept, `on_accept`, messages and, whatever happens, `on_disconnect`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import structlog
from litestar.exceptions import WebSocketException
from websockets.frames import CloseCode

from .cause import LOST, Cause, resolve_cause
from .session import Session, Socket

log = structlog.get_logger(__name__)


class HookPair(NamedTuple):
    """A pair of hooks: once the first has begun, the second runs, whatever happens."""

    on_accept: Callable[[Socket, Any], Awaitable[None]]
    on_disconnect: Callable[[Socket, Any, Cause], Awaitable[None]]


@asynccontextmanager
async def connection_lifespan(socket: Socket) -> AsyncGenerator[None, None]:
    """The async context manager in which a connection lives.

    It is inside every `@listener` and `Listener`. A plain handler takes it as
    `@websocket_listener("/", connection_lifespan=connection_lifespan)`.

    Args:
        socket: A socket that is not accepted yet.

    Raises:
        WebSocketException: `on_accept` failed; 1011, with which Litestar closes the socket.
        asyncio.CancelledError: The task was cancelled; the clean-up has run.
    """
    async with ConnectionContext(socket) as session, MessagePhase(session):
        yield


class ConnectionContext:
    """Accept a socket, and run the hooks of the service, then `hooks`. Clean up in the reverse order.

    It is an async context manager. A generator would take a kibibyte for as long as the connection lasts, and so would
    an `AsyncExitStack`.

    Args:
        socket: A socket that is not accepted yet.
        hooks: The hooks of the listener.
    """

    __slots__ = ("_hooks", "_session", "_socket")

    def __init__(self, socket: Socket, hooks: Sequence[HookPair] = ()) -> None:
        self._session = Session.of(socket)
        self._socket = socket
        self._hooks = hooks

    async def __aenter__(self) -> Session:
        session, socket = self._session, self._socket
        connection = session.ensure_connection()
        structlog.contextvars.bind_contextvars(connection=connection.id)
        wanted, offered = socket.route_handler.opt.get("subprotocols", ()), socket.scope["subprotocols"]
        await socket.accept(next((each for each in wanted if each in offered), None))
        connection.accepted_at = datetime.now(UTC)
        log.info("connection accepted", path=session.path, client=session.client)
        exits = session.begin_lifespan(socket)
        exits.append(_log_closed)
        try:
            for pair in (session.runtime.hooks, *self._hooks):
                exits.append(partial(_disconnect, pair, socket))
                await pair.on_accept(socket, connection)
        except BaseException as error:  # noqa: BLE001
            await self._leave(error)
        else:
            return session
        raise WebSocketException(detail="initialization failed", code=CloseCode.INTERNAL_ERROR)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> bool:
        await self._leave(error)
        return True

    async def _leave(self, error: BaseException | None) -> None:
        """End the session, and exit what was entered in reverse order; raise only what ends the task or the process."""
        session, cause, told = self._session, None, None
        while session.exits:
            leave = session.exits.pop()
            try:
                if error or cause is None:
                    cause = await session.end(error)
                told, error = error or told, None  # the connection has ended with it
            except BaseException as raised:  # noqa: BLE001  it was cancelled once more, and is left all the same
                error, cause = raised, session.cause or LOST
            try:
                await leave(session, cause)
            except BaseException as raised:  # noqa: BLE001
                error = raised
        session.exits = None  # what would be left later is refused
        if isinstance(error := error or told, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
            raise error


async def _disconnect(pair: HookPair, socket: Socket, session: Session, cause: Cause) -> None:
    """Run one `on_disconnect`, bounded in time. An exception is logged, and does not replace the cause."""
    limit = asyncio.timeout(session.settings.hook_seconds)
    try:
        async with limit:
            await pair.on_disconnect(socket, session.ensure_connection(), cause)
    except Exception as failure:
        if limit.expired():
            session.runtime.metrics.slow_disconnects += 1
            log.error("on_disconnect took too long", path=session.path, seconds=session.settings.hook_seconds)  # noqa: TRY400
        elif resolve_cause(failure).is_bug:
            log.exception("on_disconnect failed", path=session.path)
        else:
            log.debug("on_disconnect was refused what it wanted", path=session.path, error=repr(failure))


async def _log_closed(session: Session, cause: Cause) -> None:
    """Log the end of the connection, in one line."""
    session.runtime.metrics.ended[cause.reason] += 1
    log.info(
        "connection closed",
        path=session.path,
        client=session.client,
        reason=cause.reason.value,
        code=cause.code,
        seconds=round(monotonic() - session.opened_at, 3),
        messages_received=session.messages_received,
        messages_sent=session.messages_sent,
        **({"limit": session.exceeded_limit} if session.exceeded_limit else {}),
    )


class MessagePhase:
    """The messages of a connection, with bounds on the seconds until the first, and from one message to the next.

    It is an async context manager. A connection with such a limit has one timer, which no message sets again: a message
    only stores its time in the session. When the timer is due it reads that time, and waits for the rest. While a
    message is handled, no limit is exceeded.

    Args:
        session: A session whose `on_accept` hooks have returned.
        client_speaks_first: Close the connection if no message arrives within FIRST_MESSAGE_SECONDS.
    """

    __slots__ = ("_first", "_idle", "_session", "_timer")

    def __init__(self, session: Session, *, client_speaks_first: bool = False) -> None:
        self._session = session
        self._first = session.settings.first_message_seconds if client_speaks_first else 0
        self._idle = session.settings.idle_seconds
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        self._session.begin_messages()
        if limits := [seconds for seconds in (self._first, self._idle) if seconds]:
            self._wait(min(limits))

    async def __aexit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()
        await self._session.end_tasks()  # before what they use is left

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        session = self._session
        setting, seconds, detail = "idle_seconds", self._idle, "idle for too long"
        if self._first and not session.messages_received:
            setting, seconds, detail = "first_message_seconds", self._first, "no message came in time"
        waits = session.awaiting_message and not session.exchanges
        silent = monotonic() - session.last_received_at if waits else 0.0
        if silent < seconds:
            self._wait(seconds - silent)
        elif seconds:
            session.close_soon(session.close_for_limit(setting, detail))
