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
from websockets.frames import CloseCode

from .cause import Cause, Reason, is_sendable
from .info import ConnectionInfo
from .limits import SilenceLimit
from .session import Session, Socket

log = structlog.get_logger(__name__)


class HookPair(NamedTuple):
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
    stages: Sequence[HookPair] = (),
    inner: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    *,
    client_speaks_first: bool = False,
) -> AsyncGenerator[None, None]:
    """Live through the hooks of the service, then through `stages`, then `inner`; clean up in the reverse order."""
    session = Session.of(socket)
    connection = connection_of(session)
    structlog.contextvars.bind_contextvars(connection=connection.id)
    await socket.accept()
    session.enable_fast_path(socket)
    connection.accepted_at = datetime.now(UTC)
    log.info("connection accepted", path=session.path, client=session.client)
    async with AsyncExitStack() as life:
        session.exit_stack = life
        life.push_async_exit(partial(_end, session))
        for stage in (session.connections.stage, *stages):
            life.push_async_exit(partial(_clean_up, stage, socket, session, connection))
            await stage.on_accept(socket, connection)
        if inner:
            await life.enter_async_context(inner())
        session.initialized = True
        settings = session.connections.settings
        first = settings.first_message_seconds if client_speaks_first else 0
        silence = SilenceLimit(session, first=first, idle=settings.idle_seconds)
        silence.start()
        life.callback(silence.stop)
        yield


def connection_of(session: Session) -> ConnectionInfo:
    """Return the one `Connection` of a socket; make it where it is asked for first."""
    if session.connection is None:
        session.connection = session.connections.make_connection()
        session.connection.client = session.client
        session.connection.user = session.user
        session.scope["state"]["connection"] = session.connection
    return session.connection


async def _clean_up(
    stage: HookPair,
    socket: Socket,
    session: Session,
    connection: ConnectionInfo,
    _: type[BaseException] | None,
    error: BaseException | None,
    __: TracebackType | None,
) -> None:
    """Run one `on_disconnect`, bounded in time. What it raises is logged and hides nothing."""
    session.closing = True
    cause = await settle(session, error)
    seconds = session.connections.settings.hook_seconds
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await stage.on_disconnect(socket, connection, cause)
    except WebSocketDisconnect:
        log.debug("on_disconnect wanted to send, but the client is gone", path=session.path)
    except ServiceUnavailableException:
        log.debug("on_disconnect wanted what is away", path=session.path)
    except Exception:
        if limit.expired():
            session.connections.metrics.slow_disconnects += 1
            log.error("on_disconnect took too long", path=session.path, seconds=seconds)  # noqa: TRY400
        else:
            log.exception("on_disconnect failed", path=session.path)


async def _end(
    session: Session, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
) -> bool:
    """Write the one line about the end; say whether the exception behind it is thereby dealt with."""
    cause = await settle(session, error)
    session.connections.metrics.ended[cause.reason] += 1
    log.info(
        "connection closed",
        path=session.path,
        client=session.client,
        reason=cause.reason.value,
        code=cause.code,
        seconds=round(monotonic() - session.opened_at, 3),
        messages_in=session.messages_in,
        messages_out=session.messages_out,
    )
    if not session.initialized and not isinstance(error, asyncio.CancelledError):
        # A context manager has to yield or raise; the socket is closed, so Litestar's own close is dropped.
        raise WebSocketException(detail="initialization failed", code=CloseCode.INTERNAL_ERROR) from None
    return isinstance(error, Exception)


async def settle(session: Session, error: BaseException | None) -> Cause:
    """Decide why a connection ended, once, and close it if it is still open.

    A failure is logged here, with its traceback; an ordinary end is not a failure.
    """
    if session.cause is not None and error is session.handled_error is not None:
        return session.cause  # as another clean-up has found
    await session.read_cause()
    session.message_handled()
    if error is None or isinstance(error, WebSocketDisconnect) or error is session.handled_error:
        pass
    elif isinstance(error, asyncio.CancelledError):
        restarts = session.connections.registry.draining
        reason, code = (
            (Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART)
            if restarts
            else (Reason.CANCELLED, CloseCode.INTERNAL_ERROR)
        )
        await session.close(reason, code, "service restarts" if restarts else "cancelled", error)
    elif isinstance(error, WebSocketException) and is_sendable(error.code):
        await session.close(Reason.SERVICE_CLOSED, error.code, error.detail)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        await session.close(Reason.SERVICE_CLOSED, CloseCode.POLICY_VIOLATION, error.detail)
    elif isinstance(error, ServiceUnavailableException):  # said on purpose, and no bug
        await session.close(Reason.SERVICE_CLOSED, CloseCode.TRY_AGAIN_LATER, error.detail)
    else:
        reason = Reason.HANDLER_FAILED if session.initialized else Reason.INITIALIZATION_FAILED
        log.error(reason.value.replace("_", " "), path=session.path, exc_info=error)
        await session.close(reason, CloseCode.INTERNAL_ERROR, "internal error", error)
    session.handled_error = error
    return await session.close(
        Reason.SERVICE_CLOSED, CloseCode.NORMAL_CLOSURE
    )  # it is still open where the handler just returned
