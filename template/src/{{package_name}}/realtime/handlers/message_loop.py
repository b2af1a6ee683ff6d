"""`MessageLoop`: what a listener does with each message of a connection."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any, Final

from litestar.exceptions import HTTPException, WebSocketDisconnect
from litestar.types import AnyCallable

from ..sessions.session import Exchange, Session, Socket
from .messages import End, ErrorMessage, MessageError, error_answer
from .scopes import MessageScopes

MAX_BURST: Final = 32
"""Messages of a stream that are sent before other tasks have their turn."""

Injected = dict[str, Any]
"""What Litestar injects into the function and into the scopes, by name."""


class MessageLoop:
    """The function that Litestar calls for a connection: it calls that of the user for each message.

    Args:
        handler: The handler of the path.
        function: The function of the user.
        scopes: What is entered for each message; None for nothing.
        concurrency: Messages that are handled at once.
        cancel_on_disconnect: Cancel the function when the client is gone.
    """

    def __init__(
        self,
        handler: Any,
        function: AnyCallable,
        scopes: MessageScopes | None,
        *,
        concurrency: int,
        cancel_on_disconnect: bool,
    ) -> None:
        self._function = function
        self._handler = handler
        self._scopes = scopes
        self._concurrency = concurrency
        self._cancels = cancel_on_disconnect
        self._streams: bool = handler.streams
        self._call: Callable[..., Awaitable[Any]] = scopes.call if scopes else function

    async def __call__(self, socket: Socket, connection_lifespan_dependencies: Injected, **injected: Any) -> None:
        """Serve a connection until it ends."""
        if self._handler.takes_socket:
            injected["socket"] = socket
        in_order = not self._streams and self._concurrency == 1 and not self._cancels
        answer_all = self._answer_in_order if in_order else self._answer_in_tasks
        async with self._handler.default_connection_lifespan(**connection_lifespan_dependencies):
            await answer_all(Session.of(socket), self._handler.codec.receive, injected)

    async def _answer_in_order(
        self, session: Session, receive: Callable[[Session], Awaitable[Any]], injected: Injected
    ) -> None:
        call = self._call
        while True:
            data = await receive(session)
            try:
                answer = await call(data=data, **injected)
            except (MessageError, HTTPException) as error:
                answer = error_answer(error)
            if answer is not None:
                await session.send_message(answer, session.ref)

    async def _answer_in_tasks(
        self, session: Session, receive: Callable[[Session], Awaitable[Any]], injected: Injected
    ) -> None:
        """Answer each message in a task, and read on: for a `cancel`, or the end of the client.

        No more is read while `concurrency` messages are handled, but for one where that is to cancel them.
        """
        slots = asyncio.Semaphore(self._concurrency)
        begin, release = (self._stream, None) if self._streams else (self._answer, slots.release)
        try:
            while True:
                if release and not self._cancels:
                    await slots.acquire()
                    slots.release()
                data = await receive(session)
                ref, exchanges = session.ref, session.exchanges
                key = object() if ref is None else ref
                if key in exchanges:
                    await session.send_message(ErrorMessage("duplicate_ref", "a message has it already"), ref)
                elif self._streams and len(exchanges) >= session.settings.max_streams:
                    await session.send_message(ErrorMessage("too_many_streams", "end or cancel one first"), ref)
                else:
                    if release:
                        await slots.acquire()
                    exchange = exchanges[key] = Exchange(key, self._streams or self._cancels)
                    exchange.task = session.start(begin(session, exchange, data, ref, injected))
                    exchange.task.add_done_callback(partial(_end_exchange, session, exchange, release))
        except WebSocketDisconnect:
            if not self._streams and not self._cancels:
                await session.wait_exchanges()  # half-done writes are worse
            raise

    async def _answer(self, session: Session, exchange: Exchange, data: Any, ref: Any, injected: Injected) -> None:
        exchange.begun = True
        try:
            answer = await self._call(data=data, **injected)
        except (MessageError, HTTPException) as error:
            answer = error_answer(error)
        await session.send_message(answer, ref)

    async def _stream(self, session: Session, exchange: Exchange, data: Any, ref: Any, injected: Injected) -> None:
        exchange.begun = True
        last: End | ErrorMessage | None = None if ref is None else End()
        try:
            if self._scopes:
                async with self._scopes.enter(data=data, **injected) as arguments:
                    await self._send_items(session, exchange, ref, arguments)
            else:
                await self._send_items(session, exchange, ref, {"data": data, **injected})
        except asyncio.CancelledError:
            if not exchange.cancelled:
                raise
            last = End(cancelled=True)
        except (MessageError, HTTPException) as error:
            last = error_answer(error)
        session.exchanges.pop(exchange.key, None)  # the client may use the `ref` again as soon as it receives the end
        await session.send_message(last, ref)

    async def _send_items(self, session: Session, exchange: Exchange, ref: Any, arguments: Injected) -> None:
        if exchange.cancelled:  # before it began
            raise asyncio.CancelledError
        burst = 0
        async with aclosing(self._function(**arguments)) as items:
            try:
                async for item in items:
                    if exchange.cancelled:  # the function has caught the cancellation
                        raise asyncio.CancelledError
                    await session.send_message(item, ref)
                    burst += 1
                    if burst == MAX_BURST:
                        burst = 0
                        await asyncio.sleep(0)
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
