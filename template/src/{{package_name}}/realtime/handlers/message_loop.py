"""`MessageLoop`: what a listener does with each message of a connection."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from litestar.exceptions import HTTPException
from litestar.types import AnyCallable

from ..sessions.session import Session, Socket
from .messages import MessageError, error_answer


class MessageLoop:
    """The function that Litestar calls for a connection: it calls that of the user for each message.

    Args:
        handler: The handler of the path.
        function: The function of the user.
    """

    def __init__(self, handler: Any, function: AnyCallable) -> None:
        self._fn = function  # as Litestar's own calls it; litestar-asyncapi reads it there
        self._handler = handler
        self._takes_socket = "socket" in inspect.signature(function).parameters

    async def __call__(self, socket: Socket, connection_lifespan_dependencies: dict[str, Any], **injected: Any) -> None:
        """Serve a connection until it ends."""
        receive = self._handler.resolve_receive_handler()
        if self._takes_socket:
            injected["socket"] = socket
        async with self._handler.default_connection_lifespan(**connection_lifespan_dependencies):
            await self._answer_in_order(socket, receive, injected)

    async def _answer_in_order(
        self, socket: Socket, receive: Callable[[Socket], Awaitable[Any]], injected: dict[str, Any]
    ) -> None:
        session = Session.of(socket)
        while True:
            data = await receive(socket)
            try:
                answer = await self._fn(data=data, **injected)
            except (MessageError, HTTPException) as error:
                answer = error_answer(error)
            if answer is not None:
                await session.send_message(answer, session.ref)
