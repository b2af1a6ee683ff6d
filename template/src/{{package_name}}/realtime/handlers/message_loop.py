"""`MessageLoop`: what a listener does with each message of a connection."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any, Final

from litestar.exceptions import WebSocketDisconnect
from litestar.types import AnyCallable

from ..sessions.session import Exchange, Session, Socket
from .injection import MessageScopes, Scope, binder
from .messages import REFUSALS, End, ErrorMessage, error_answer

MAX_BURST: Final = 32
"""Messages of a stream that are sent, and written together, before other tasks have their turn."""

Receive = Callable[[Session], Awaitable[Any]]
"""Waits for the next message."""


class MessageLoop:
    """The function that Litestar calls for a connection: it calls that of the user for each message.

    Args:
        handler: The handler of the path.
        function: The function of the user.
        scopes: What is entered for each message, by name.
    """

    def __init__(self, handler: Any, function: AnyCallable, scopes: Mapping[str, Scope]) -> None:
        self._handler = handler
        self._scopes = MessageScopes(function, scopes)
        self._bind = None if scopes else binder(function)
        self._streams: bool = handler.streams
        self._cancels: bool = handler.cancel_on_disconnect

    async def __call__(self, *controller: Any, socket: Socket, **injected: Any) -> None:
        """Serve a connection until it ends; for a method of a controller, with the controller."""
        handler = self._handler
        injected |= {"socket": socket, **dict(zip(["self"], controller, strict=False))}
        in_order = not self._streams and handler.concurrency == 1 and not self._cancels
        answer_all = self._answer_in_order if in_order else self._answer_in_tasks
        async with handler.lifespan(injected):
            await answer_all(Session.of(socket), handler.codec.receive, injected)

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
                except REFUSALS as error:
                    answer = error_answer(error)
                if answer is not None:
                    await session.send_message(answer, session.ref)
            except WebSocketDisconnect:
                if not session.has_unread:
                    raise

    async def _answer_in_tasks(self, session: Session, receive: Receive, injected: dict[str, Any]) -> None:
        """Answer each message in a task, and read on: for a `cancel`, or the end of the client.

        No more is read while `concurrency` messages are handled, but for one where that is to cancel them.
        """
        slots = asyncio.Semaphore(self._handler.concurrency)
        call = partial(self._scopes.enter, **injected) if self._streams else self._caller(injected)
        begin, release = (self._stream, None) if self._streams else (self._answer, slots.release)
        while True:
            try:
                if release and not self._cancels:
                    await slots.acquire()
                    slots.release()
                data = await receive(session)
                ref, exchanges = session.ref, session.exchanges
                key = object() if ref is None else ref
                if session.has_unread and (self._streams or self._cancels):
                    continue  # nobody waits for an answer
                if key in exchanges:
                    await session.send_message(ErrorMessage("duplicate_ref", "a message has it already"), ref)
                elif self._streams and len(exchanges) >= session.settings.max_streams:
                    await session.send_message(ErrorMessage("too_many_streams", "end or cancel one first"), ref)
                else:
                    if release:
                        await slots.acquire()
                    exchange = exchanges[key] = Exchange(key, self._streams or self._cancels)
                    exchange.task = session.start(begin(session, exchange, partial(call, data=data), ref))
                    exchange.task.add_done_callback(partial(_end_exchange, session, exchange, release))
            except WebSocketDisconnect:
                if session.has_unread:
                    continue
                if not self._streams and not self._cancels:
                    await session.wait_exchanges()  # half-done writes are worse
                raise

    async def _answer(self, session: Session, exchange: Exchange, call: Callable[[], Any], ref: Any) -> None:
        exchange.begun = True
        try:
            answer = await call()
        except REFUSALS as error:
            answer = error_answer(error)
        await session.send_message(answer, ref)

    async def _stream(self, session: Session, exchange: Exchange, enter: Callable[[], Any], ref: Any) -> None:
        exchange.begun = True
        last: End | ErrorMessage | None = None if ref is None else End()
        try:
            async with enter() as function:
                await self._send_items(session, exchange, function(), ref)
        except asyncio.CancelledError:
            if not exchange.cancelled:
                raise
            last = End(cancelled=True)
        except REFUSALS as error:
            last = error_answer(error)
        session.exchanges.pop(exchange.key, None)  # the client may use the `ref` again as soon as it receives the end
        await session.send_message(last, ref)

    async def _send_items(
        self, session: Session, exchange: Exchange, stream: AsyncGenerator[Any, None], ref: Any
    ) -> None:
        burst = 0
        writer = session.writer
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
                        if writer:
                            writer.hold_frames()
            finally:
                exchange.closing = True


def _end_exchange(
    session: Session, exchange: Exchange, release: Callable[[], None] | None, _: asyncio.Task[Any]
) -> None:
    if session.exchanges.get(exchange.key) is exchange:
        del session.exchanges[exchange.key]
    session.last_received_at = monotonic()  # it was not idle until now
    if release:
        release()
