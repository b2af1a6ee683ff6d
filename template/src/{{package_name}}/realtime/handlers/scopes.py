"""`per_message`: what is made for each message, and undone before its answer is sent."""

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, get_args

import structlog
from litestar.exceptions import HTTPException, WebSocketException
from litestar.types import AnyCallable

from ..checks.injection import resolve_hints
from ..checks.listeners import order_scopes
from ..sessions.outbox import hold_publishes
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
        self._function = function
        self._wanted = tuple(inspect.signature(function).parameters)
        self._scopes: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = []
        for name in order_scopes(function, scopes):
            factory: Any = scopes[name]
            names = tuple(inspect.signature(factory).parameters)
            is_plain = inspect.isasyncgenfunction(factory)
            self._scopes.append((name, asynccontextmanager(factory) if is_plain else factory, names))

    @asynccontextmanager
    async def enter(self, **injected: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Enter the scopes, and yield the arguments for the function.

        Raises:
            MessageError: The function is through, and leaving a scope failed: its answer would be a lie.
        """
        is_through = False
        try:
            async with AsyncExitStack() as stack:
                for name, factory, names in self._scopes:
                    arguments = {each: injected[each] for each in names if each in injected}
                    injected[name] = await stack.enter_async_context(factory(**arguments))
                yield {name: injected[name] for name in self._wanted if name in injected}
                is_through = True
        except Exception as error:
            if not is_through or isinstance(error, MessageError | HTTPException | WebSocketException):
                raise
            log.exception("commit failed", listener=self._function.__qualname__)
            raise MessageError("commit_failed", "the message was handled, and its changes could not be kept") from error

    async def call(self, **injected: Any) -> Any:
        """Call the function in its scopes, and publish once they have been left."""
        with hold_publishes():
            async with self.enter(**injected) as arguments:
                return await self._function(**arguments)


def injectable(function: AnyCallable, scopes: Mapping[str, Scope]) -> AnyCallable:
    """Return a function with the signature that Litestar is to see.

    It takes what Litestar injects into `function` and into the scopes, and returns one item of a stream.
    """
    hints: dict[str, Any] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for each in (function, *scopes.values()):
        target = inspect.unwrap(each)
        each_hints = resolve_hints(target, "listener")
        for name, parameter in inspect.signature(each).parameters.items():
            if name not in scopes and name not in parameters:
                hints[name] = each_hints[name]
                keyword = inspect.Parameter.KEYWORD_ONLY
                parameters[name] = parameter.replace(kind=keyword, annotation=hints[name])
    returned = resolve_hints(function, "listener").get("return", Any)
    hints["return"] = get_args(returned)[0] if inspect.isasyncgenfunction(function) else returned

    async def signature(**_: Any) -> None: ...

    signature.__annotations__ = hints
    signature.__name__ = function.__name__
    signature.__doc__ = function.__doc__
    vars(signature)["__signature__"] = inspect.Signature([*parameters.values()], return_annotation=hints["return"])
    return signature
