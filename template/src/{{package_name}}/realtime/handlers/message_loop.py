"""`MessageLoop`: calls a listener for each message of a connection, inside the scopes of its `per_message`.

Messages that are published inside a scope are held back until the scope has been left.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from sys import maxsize
from time import monotonic
from typing import Any, Final

import structlog
from litestar.exceptions import HTTPException, WebSocketDisconnect, WebSocketException
from litestar.types import AnyCallable
from msgspec import UNSET

from ..checks.definitions import order_scopes
from ..sessions.cause import held_exceptions
from ..sessions.lifespan import ConnectionContext, MessagePhase
from ..sessions.session import Exchange, Session, Socket
from .messages import REFUSALS, End, ErrorMessage, MessageError, error_answer

log = structlog.get_logger(__name__)

MAX_BURST: Final = 32
"""Messages of a stream that are sent, and written together, before other tasks have their turn."""

Receive = Callable[[Session], Awaitable[Any]]
"""Waits for the next message."""

Scope = Callable[..., AbstractAsyncContextManager[Any] | AsyncGenerator[Any, None]]
"""An async generator function that yields once, or a function under `@asynccontextmanager`."""

Publish = Callable[[], asyncio.Future[int]]


class MessageLoop:
    """The function that Litestar calls for a connection. It calls the user's function for each message.

    Args:
        handler: The handler of the path.
        function: The function of the user.
        scopes: The scopes that are entered for each message, by name.
    """

    def __init__(self, handler: Any, function: AnyCallable, scopes: Mapping[str, Scope]) -> None:
        self._handler = handler
        self._scopes = MessageScopes(function, scopes)
        self._bind = None if scopes else binder(function)
        self._streams: bool = handler.streams
        self._cancels: bool = handler.streams or handler.cancel_on_disconnect
        """Nobody waits for an answer once the client is gone: what runs is cancelled, what is unread is not handled."""

    async def __call__(self, *controller: Any, socket: Socket, **injected: Any) -> None:
        """Serve a connection until it ends; for a method of a controller, with the controller."""
        handler = self._handler
        injected |= {"socket": socket, **dict(zip(["self"], controller, strict=False))}
        in_order = handler.concurrency == 1 and not self._cancels
        answer_all = self._answer_in_order if in_order else self._answer_in_tasks
        async with (
            ConnectionContext(socket, handler.hooks_with(injected)) as session,
            handler.lifespan_with(injected, session),
            MessagePhase(session, client_speaks_first=handler.client_speaks_first),
        ):
            await answer_all(session, handler.codec.receive, injected)

    def _caller(self, injected: dict[str, Any]) -> partial[Any]:
        """Return what calls the function with `data`, in its scopes."""
        return self._bind(injected) if self._bind else partial(self._scopes.call, **injected)

    async def _answer_in_order(self, session: Session, receive: Receive, injected: dict[str, Any]) -> None:
        call = self._caller(injected)
        function, arguments = call.func, call.keywords  # to call the partial itself takes longer
        while True:
            try:
                data = await receive(session)
                try:
                    answer = await function(data=data, **arguments)
                    if answer is not None:
                        await session.send_message(answer, session.ref)
                except REFUSALS as error:
                    await session.send_message(error_answer(error), session.ref)
            except WebSocketDisconnect:
                if not session.has_unread:
                    raise

    async def _answer_in_tasks(self, session: Session, receive: Receive, injected: dict[str, Any]) -> None:
        """Answer each message in a task, and read on for a `cancel` or a disconnect.

        Nothing more is read while `concurrency` messages are handled; with `cancel_on_disconnect`, one more message is.
        """
        call = partial(self._scopes.enter, **injected) if self._streams else self._caller(injected)
        slots = asyncio.Semaphore(maxsize if self._streams else self._handler.concurrency)  # MAX_STREAMS bounds streams
        while True:
            try:
                if not self._cancels:
                    await slots.acquire()
                    slots.release()
                data = await receive(session)
                ref, exchanges = session.ref, session.exchanges
                key = object() if ref is None else ref
                if session.has_unread and self._cancels:
                    continue
                if key in exchanges:
                    await session.send_message(ErrorMessage("duplicate_ref", "a message has it already"), ref)
                elif self._streams and len(exchanges) >= session.settings.max_streams:
                    await session.send_message(ErrorMessage("too_many_streams", "end or cancel one first"), ref)
                else:
                    await slots.acquire()
                    exchange = exchanges[key] = Exchange(key, self._cancels)
                    begin = partial(self._stream, exchange) if self._streams else self._answer
                    exchange.task = session.start(begin(session, partial(call, data=data), ref))
                    exchange.task.add_done_callback(partial(_end_exchange, session, exchange, slots))
            except WebSocketDisconnect:
                if session.has_unread:
                    continue
                if not self._cancels:
                    await session.wait_exchanges()  # half-done writes are worse
                raise

    async def _answer(self, session: Session, call: Callable[[], Any], ref: Any) -> None:
        try:
            await session.send_message(await call(), ref)
        except REFUSALS as error:
            await session.send_message(error_answer(error), ref)

    async def _stream(self, exchange: Exchange, session: Session, enter: Callable[[], Any], ref: Any) -> None:
        exchange.begun = True
        refusal: ErrorMessage | None = None
        try:
            async with enter() as function:
                await self._send_items(session, exchange, function(), ref)
        except asyncio.CancelledError:
            if not exchange.cancelled:
                raise
        except REFUSALS as error:
            refusal = error_answer(error)
        session.exchanges.pop(exchange.key, None)  # the client may use the `ref` again as soon as it receives the end
        end = None if ref is None else End(exchange.cancelled or UNSET)
        await session.send_message(refusal or end, ref)

    async def _send_items(
        self, session: Session, exchange: Exchange, stream: AsyncGenerator[Any, None], ref: Any
    ) -> None:
        burst = 0
        async with aclosing(stream) as items:
            if exchange.cancelled:  # before it began
                raise asyncio.CancelledError
            try:
                async for item in items:
                    if exchange.cancelled:  # the function has caught the cancellation
                        raise asyncio.CancelledError
                    await session.send_message(item, ref)
                    burst += 1
                    if burst == MAX_BURST:
                        burst = 0
                        await asyncio.sleep(0)
                        if session.writer:
                            session.writer.hold_frames()
            finally:
                exchange.closing = True


def _end_exchange(session: Session, exchange: Exchange, slots: asyncio.Semaphore, task: asyncio.Task[Any]) -> None:
    if task.cancelled() and not task.cancelling():  # by what it awaited
        try:
            task.result()
        except asyncio.CancelledError as error:
            log.exception("handler cancelled", path=session.path)
            session.fail(error)
    if session.exchanges.get(exchange.key) is exchange:
        del session.exchanges[exchange.key]
    session.last_received_at = monotonic()  # it was not idle until now
    slots.release()


def binder(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], partial[Any]]:
    """Return a function that binds to `function` those of the available arguments that it takes.

    The signature is read once, not for each connection.
    """
    names = tuple(inspect.signature(function).parameters)

    def bind(available: Mapping[str, Any]) -> partial[Any]:
        return partial(function, **{name: available[name] for name in names if name in available})

    return bind


class MessageScopes:
    """Enters the scopes of a message, each after the scopes that it takes.

    Args:
        function: The function of the listener.
        scopes: The scopes, by the names under which the function and other scopes take them.

    Raises:
        ConfigurationError: A scope is wrong.
    """

    def __init__(self, function: AnyCallable, scopes: Mapping[str, Scope]) -> None:
        self._name = function.__qualname__
        self._bind = binder(function)
        self._scopes = [(name, binder(scopes[name])) for name in order_scopes(function, scopes)]

    @asynccontextmanager
    async def enter(self, /, **arguments: Any) -> AsyncGenerator[Callable[[], Any], None]:
        """Enter the scopes, and yield the function, with what it takes of the arguments and of the scopes.

        An exception of the function is raised even if a scope swallows it: else the client would wait for an answer.

        Raises:
            MessageError: The function has returned, but leaving a scope failed, so its answer must not be sent.
        """
        is_through, raised = False, None
        try:
            async with AsyncExitStack() as stack:
                for name, bind in self._scopes:
                    made: AbstractAsyncContextManager[Any] | AsyncGenerator[Any, None] = bind(arguments)()
                    context = _context_of(made) if isinstance(made, AsyncGenerator) else made
                    arguments[name] = await stack.enter_async_context(context)
                try:
                    yield self._bind(arguments)
                    is_through = True
                except BaseException as error:
                    raised = error
                    raise
        except Exception as error:
            refusals = (MessageError, HTTPException, WebSocketException)
            if not is_through or all(isinstance(each, refusals) for each in held_exceptions(error)):
                raise
            log.exception("commit failed", listener=self._name)
            raise MessageError("commit_failed", "the message was handled, and its changes could not be kept") from error
        if raised:
            raise raised

    async def call(self, /, **arguments: Any) -> Any:
        """Call the function in its scopes, and publish once they have been left."""
        with Outbox():
            async with self.enter(**arguments) as function:
                return await function()


@asynccontextmanager
def _context_of(generator: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    return generator


class HeldPublish(asyncio.Future[int]):
    """The result of a `publish` that is held back. Awaiting it earlier raises, because it would wait forever."""

    held = True

    def __await__(self) -> Generator[Any, None, int]:
        """Wait for the result."""
        self._check()
        return super().__await__()

    __iter__ = __await__

    def add_done_callback(self, *args: Any, **options: Any) -> None:
        """Call a function with the result, as asyncio's `wait` and `gather` do."""
        self._check()
        super().add_done_callback(*args, **options)

    def _check(self) -> None:
        if self.held:
            raise RuntimeError(
                "publish() is awaited inside a per_message scope, but the message is sent only after the scope. "
                "Fix: call publish() without await"
            )


class Outbox:
    """Holds back what is published inside, and publishes it in order at the end. An exception drops it."""

    def __init__(self) -> None:
        self._held: list[tuple[HeldPublish, Publish]] = []
        self.is_open = True

    def hold(self, publish: Publish) -> asyncio.Future[int]:
        """Keep a call that publishes a message, and return its future."""
        future = HeldPublish()
        self._held.append((future, publish))
        return future

    def __enter__(self) -> None:
        self._token = _outbox.set(self)

    def __exit__(self, kind: object, *_: object) -> None:
        _outbox.reset(self._token)
        self.is_open = False
        for future, publish in self._held:
            future.held = False
            if kind:
                future.cancel()
            else:
                publish().add_done_callback(partial(_copy, future))


def current_outbox() -> Outbox | None:
    """Return the outbox that holds back messages in the current scope; None outside of one."""
    outbox = _outbox.get()
    return outbox if outbox and outbox.is_open else None


def _copy(future: HeldPublish, done: asyncio.Future[int]) -> None:
    """Give a future the result of another."""
    if future.done():
        return
    if error := done.exception():
        future.set_exception(error)
        future.exception()  # else asyncio logs it where nobody awaits the future
    else:
        future.set_result(done.result())


_outbox: ContextVar[Outbox | None] = ContextVar("outbox", default=None)
