"""The life of a connection: register, accept, `on_accept`, messages, and whatever happens, `on_disconnect`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

import structlog
from litestar.exceptions import HTTPException, ServiceUnavailableException, WebSocketDisconnect, WebSocketException

from .cause import INTERNAL_ERROR, NORMAL, POLICY_VIOLATION, SERVICE_RESTART, TRY_AGAIN_LATER, Cause, Reason, valid_code
from .info import ConnectionInfo
from .limits import SilenceLimit
from .registry import OpenSocket, Socket

log = structlog.get_logger(__name__)


class Stage(NamedTuple):
    """A pair of hooks: when the first has begun, the second runs, whatever happens."""

    on_accept: Callable[[Socket, Any], Awaitable[None]]
    on_disconnect: Callable[[Socket, Any, Cause], Awaitable[None]]


@asynccontextmanager
async def connection_lifespan(socket: Socket) -> AsyncGenerator[None, None]:
    """The async context manager in which a connection lives.

    It is inside every `@listener` and `Listener`. A plain handler takes it as
    `@websocket_listener("/", connection_lifespan=connection_lifespan)`.

    Raises:
        WebSocketException: The initialization failed; 1011, with which Litestar closes the socket.
        asyncio.CancelledError: The task was cancelled; the clean-up has run.
    """
    async with live(socket):
        yield


@asynccontextmanager
async def live(
    socket: Socket,
    stages: Sequence[Stage] = (),
    inner: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    *,
    client_speaks_first: bool = False,
) -> AsyncGenerator[None, None]:
    """Live through the hooks of the service, then through `stages`, then `inner`; clean up in the reverse order."""
    entry = OpenSocket.of(socket)
    connection = connection_of(entry)
    structlog.contextvars.bind_contextvars(connection=connection.id)
    await socket.accept()
    entry.find_short_way(socket)
    connection.accepted_at = datetime.now(UTC)
    log.info("connection accepted", path=entry.path, client=entry.client)
    async with AsyncExitStack() as life:
        entry.life = life
        life.push_async_exit(partial(_end, entry))
        for stage in (entry.connections.stage, *stages):
            life.push_async_exit(partial(_clean_up, stage, socket, entry, connection))
            await stage.on_accept(socket, connection)
        if inner:
            await life.enter_async_context(inner())
        entry.initialized = True
        settings = entry.connections.settings
        first = settings.first_message_seconds if client_speaks_first else 0
        silence = SilenceLimit(entry, first=first, idle=settings.idle_seconds)
        silence.start()
        life.callback(silence.stop)
        yield


def connection_of(entry: OpenSocket) -> ConnectionInfo:
    """Return the one `Connection` of a socket; make it where it is asked for first."""
    if entry.connection is None:
        entry.connection = entry.connections.make_connection()
        entry.connection.client = entry.client
        entry.connection.user = entry.user
        entry.scope["state"]["connection"] = entry.connection
    return entry.connection


async def _clean_up(
    stage: Stage,
    socket: Socket,
    entry: OpenSocket,
    connection: ConnectionInfo,
    _: type[BaseException] | None,
    error: BaseException | None,
    __: TracebackType | None,
) -> None:
    """Run one `on_disconnect`, bounded in time. What it raises is logged and hides nothing."""
    entry.ending = True
    cause = await settle(entry, error)
    seconds = entry.connections.settings.hook_seconds
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await stage.on_disconnect(socket, connection, cause)
    except WebSocketDisconnect:
        log.debug("on_disconnect wanted to send, but the client is gone", path=entry.path)
    except ServiceUnavailableException:
        log.debug("on_disconnect wanted what is away", path=entry.path)
    except Exception:
        if limit.expired():
            entry.connections.metrics.slow_disconnects += 1
            log.error("on_disconnect took too long", path=entry.path, seconds=seconds)  # noqa: TRY400
        else:
            log.exception("on_disconnect failed", path=entry.path)


async def _end(
    entry: OpenSocket, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
) -> bool:
    """Write the one line about the end; say whether the exception behind it is thereby dealt with."""
    cause = await settle(entry, error)
    entry.connections.metrics.ended[cause.reason] += 1
    log.info(
        "connection closed",
        path=entry.path,
        client=entry.client,
        reason=cause.reason.value,
        code=cause.code,
        seconds=round(monotonic() - entry.since, 3),
        messages_in=entry.messages_in,
        messages_out=entry.messages_out,
    )
    if not entry.initialized and not isinstance(error, asyncio.CancelledError):
        # A context manager has to yield or raise; the socket is closed, so Litestar's own close is dropped.
        raise WebSocketException(detail="initialization failed", code=INTERNAL_ERROR) from None
    return isinstance(error, Exception)


async def settle(entry: OpenSocket, error: BaseException | None) -> Cause:
    """Decide why a connection ended, once, and close it if it is still open.

    A failure is logged here, with its traceback; an ordinary end is not a failure.
    """
    if entry.cause is not None and error is entry.settled is not None:
        return entry.cause  # as another clean-up has found
    await entry.read_cause()
    entry.message_handled()
    if error is None or isinstance(error, WebSocketDisconnect) or error is entry.settled:
        pass
    elif isinstance(error, asyncio.CancelledError):
        restarts = entry.connections.registry.draining
        reason, code = (Reason.SERVICE_RESTARTS, SERVICE_RESTART) if restarts else (Reason.CANCELLED, INTERNAL_ERROR)
        await entry.close(reason, code, "service restarts" if restarts else "cancelled", error)
    elif isinstance(error, WebSocketException) and valid_code(error.code):
        await entry.close(Reason.SERVICE_CLOSED, error.code, error.detail)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        await entry.close(Reason.SERVICE_CLOSED, POLICY_VIOLATION, error.detail)
    elif isinstance(error, ServiceUnavailableException):  # said on purpose, and no bug
        await entry.close(Reason.SERVICE_CLOSED, TRY_AGAIN_LATER, error.detail)
    else:
        reason = Reason.HANDLER_FAILED if entry.initialized else Reason.INITIALIZATION_FAILED
        log.error(reason.value.replace("_", " "), path=entry.path, exc_info=error)
        await entry.close(reason, INTERNAL_ERROR, "internal error", error)
    entry.settled = error
    return await entry.close(Reason.SERVICE_CLOSED, NORMAL)  # it is still open where the handler just returned
