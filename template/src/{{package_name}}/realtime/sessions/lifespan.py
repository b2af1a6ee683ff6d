"""The lifecycle of a connection: accept, `on_accept`, messages and, whatever happens, `on_disconnect`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
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
    async with connection_context(socket):
        yield


@asynccontextmanager
async def connection_context(
    socket: Socket,
    hooks: Sequence[HookPair] = (),
    inner: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    *,
    client_speaks_first: bool = False,
) -> AsyncGenerator[None, None]:
    """Accept a socket, run the hooks of the service, then `hooks`, then `inner`; clean up in the reverse order.

    Args:
        socket: A socket that is not accepted yet.
        hooks: The hooks of its listener.
        inner: Makes the lifespan of its listener.
        client_speaks_first: Close it where no message comes within FIRST_MESSAGE_SECONDS.
    """
    session = Session.of(socket)
    connection = session.ensure_connection()
    structlog.contextvars.bind_contextvars(connection=connection.id)
    wanted, offered = socket.route_handler.opt.get("subprotocols", ()), socket.scope["subprotocols"]
    await socket.accept(next((each for each in wanted if each in offered), None))
    connection.accepted_at = datetime.now(UTC)
    log.info("connection accepted", path=session.path, client=session.client)
    exits = session.begin_lifespan(socket)
    exits.append(partial(_log_closed, session))
    error: BaseException | None = None
    try:
        for pair in (session.runtime.hooks, *hooks):
            exits.append(partial(_disconnect, pair, socket, session))
            await pair.on_accept(socket, connection)
        async with inner() if inner else nullcontext():
            session.begin_messages()
            first = session.settings.first_message_seconds if client_speaks_first else 0
            limit = SilenceLimit(session, first=first, idle=session.settings.idle_seconds)
            try:
                yield
            finally:
                limit.stop()
                await session.end_tasks()  # before what they use is left
    except BaseException as raised:  # noqa: BLE001
        error = raised
    while exits:  # an `AsyncExitStack` would take a kibibyte for as long as the connection lasts
        leave = exits.pop()
        try:
            cause = await session.end(error)
            if isinstance(error, Exception | BaseExceptionGroup):  # the connection has ended with it
                error = None
        except BaseException as raised:  # noqa: BLE001  it was cancelled once more, and is left all the same
            error, cause = raised, session.cause or LOST
        try:
            await leave(cause)
        except BaseException as raised:  # noqa: BLE001
            error = raised
    if error:  # a cancellation: the task is cancelled
        raise error
    if session.initializing:  # a context manager has to yield or raise
        raise WebSocketException(detail="initialization failed", code=CloseCode.INTERNAL_ERROR)


async def _disconnect(pair: HookPair, socket: Socket, session: Session, cause: Cause) -> None:
    """Run one `on_disconnect`, bounded in time. What it raises is logged and hides nothing."""
    limit = asyncio.timeout(session.settings.hook_seconds)
    try:
        async with limit:
            await pair.on_disconnect(socket, session.ensure_connection(), cause)
    except Exception as failure:
        if limit.expired():
            session.metrics.slow_disconnects += 1
            log.error("on_disconnect took too long", path=session.path, seconds=session.settings.hook_seconds)  # noqa: TRY400
        elif resolve_cause(failure).is_bug:
            log.exception("on_disconnect failed", path=session.path)
        else:
            log.debug("on_disconnect was refused what it wanted", path=session.path, error=repr(failure))


async def _log_closed(session: Session, cause: Cause) -> None:
    """Write the one log line about the end."""
    session.metrics.ended[cause.reason] += 1
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


class SilenceLimit:
    """Seconds until the first message, and seconds between one message and the next.

    It has one timer for each connection with such a limit. A message only leaves its time in the session. The timer
    looks at it when it is due, and is set again for the rest. While a message is handled, nothing is overdue.

    Args:
        session: A session whose `on_accept` hooks have returned.
        first: Seconds until its first message. 0 lifts the limit.
        idle: Seconds between messages. 0 lifts the limit.
    """

    __slots__ = ("_first", "_idle", "_session", "_timer")

    def __init__(self, session: Session, *, first: float, idle: float) -> None:
        self._session = session
        self._first = first
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        if limits := [seconds for seconds in (first, idle) if seconds]:
            self._wait(min(limits))

    def stop(self) -> None:
        """Count no further."""
        if self._timer:
            self._timer.cancel()

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
