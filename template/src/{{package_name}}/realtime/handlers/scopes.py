"""`per_message`: what is made for each message, and undone before its answer is sent."""

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from litestar.exceptions import HTTPException, WebSocketException
from litestar.types import AnyCallable

from ..checks.listeners import order_scopes
from ..sessions.outbox import hold_publishes
from .injection import binder
from .messages import MessageError

log = structlog.get_logger(__name__)

Scope = Callable[..., AbstractAsyncContextManager[Any] | AsyncGenerator[Any, None]]
"""An async generator function that yields once, or a function under `@asynccontextmanager`."""


class MessageScopes:
    """Enters the scopes of a message, each after those that it takes.

    Args:
        function: The function of the listener.
        scopes: The scopes, by the names under which the function and other scopes take them.

    Raises:
        ConfigurationError: A scope is wrong.
    """

    def __init__(self, function: AnyCallable, scopes: Mapping[str, Scope]) -> None:
        self._name = function.__qualname__
        self._bind = binder(function)
        self._scopes: list[tuple[str, Callable[[Mapping[str, Any]], Callable[..., Any]]]] = []
        for name in order_scopes(function, scopes):
            factory: Any = scopes[name]
            is_plain = inspect.isasyncgenfunction(factory)
            self._scopes.append((name, binder(asynccontextmanager(factory) if is_plain else factory)))

    @asynccontextmanager
    async def enter(self, /, **arguments: Any) -> AsyncGenerator[Callable[[], Any], None]:
        """Enter the scopes, and yield the function, with what it takes of the arguments and of the scopes.

        Raises:
            MessageError: The function is through, and leaving a scope failed: its answer would be a lie.
        """
        is_through = False
        try:
            async with AsyncExitStack() as stack:
                for name, bind in self._scopes:
                    arguments[name] = await stack.enter_async_context(bind(arguments)())
                yield self._bind(arguments)
                is_through = True
        except Exception as error:
            if not is_through or isinstance(error, MessageError | HTTPException | WebSocketException):
                raise
            log.exception("commit failed", listener=self._name)
            raise MessageError("commit_failed", "the message was handled, and its changes could not be kept") from error

    async def call(self, /, **arguments: Any) -> Any:
        """Call the function in its scopes, and publish once they have been left."""
        with hold_publishes():
            async with self.enter(**arguments) as function:
                return await function()
