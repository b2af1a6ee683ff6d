"""What a listener is called with: what Litestar injects, and the scopes of `per_message`, made for each message."""

import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, get_args

import structlog
from litestar.exceptions import HTTPException, WebSocketException
from litestar.types import AnyCallable

from ..checks.injection import resolve_hints
from ..checks.listeners import order_scopes
from ..sessions.cause import held_exceptions
from ..sessions.outbox import hold_publishes
from .messages import MessageError

log = structlog.get_logger(__name__)

PASSED = ("socket", "connection", "cause")
"""The names of what hooks and lifespans are called with; Litestar injects everything else."""

Scope = Callable[..., AbstractAsyncContextManager[Any] | AsyncGenerator[Any, None]]
"""An async generator function that yields once, or a function under `@asynccontextmanager`."""


def binder(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], partial[Any]]:
    """Return a function that binds to `function` what it takes of the arguments that there are.

    Its signature is read once, and not for each connection.
    """
    names = tuple(inspect.signature(function).parameters)

    def bind(available: Mapping[str, Any]) -> partial[Any]:
        return partial(function, **{name: available[name] for name in names if name in available})

    return bind


def injectable(
    function: AnyCallable, scopes: Mapping[str, AnyCallable], others: Iterable[AnyCallable | None]
) -> AnyCallable:
    """Return a function with the signature that Litestar is to see.

    It takes what Litestar injects into `function`, into its scopes, and into the others: the hooks and the lifespan. It
    returns one item of a stream.
    """
    hints: dict[str, Any] = {}
    parameters: dict[str, inspect.Parameter] = {}
    takers = [(each, tuple(scopes)) for each in (function, *scopes.values())]
    for each, passed in [*takers, *((other, PASSED) for other in others if other)]:
        each_hints = resolve_hints(each, "listener")
        for name, parameter in inspect.signature(each).parameters.items():
            if name in each_hints and name not in passed and name not in parameters:
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
            refusals = (MessageError, HTTPException, WebSocketException)
            if not is_through or all(isinstance(each, refusals) for each in held_exceptions(error)):
                raise
            log.exception("commit failed", listener=self._name)
            raise MessageError("commit_failed", "the message was handled, and its changes could not be kept") from error

    async def call(self, /, **arguments: Any) -> Any:
        """Call the function in its scopes, and publish once they have been left."""
        with hold_publishes():
            async with self.enter(**arguments) as function:
                return await function()
