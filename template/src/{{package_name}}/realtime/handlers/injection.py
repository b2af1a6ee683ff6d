"""What the hooks and the lifespan of a listener are called with: what is passed by name, and what Litestar injects."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any

from litestar.di import NamedDependency
from litestar.types import AnyCallable

from ..sessions.session import Socket

PASSED = ("socket", "connection", "cause")
"""The names of what is passed here; Litestar injects everything else."""

INJECTED: Any = NamedDependency[Any]  # type: ignore[misc]  # mypy takes it for no generic class


def bind_arguments(function: AnyCallable) -> Callable[..., Any]:
    """Return a function of what is injected, the socket, the connection and the cause, with which it calls `function`.

    Of the last three it passes those that `function` names. Its signature is read once, and not for each connection.
    """
    names = inspect.signature(function).parameters.keys()

    def call(injected: dict[str, Any] | None, *passed: Any) -> Any:
        named = {name: value for name, value in zip(PASSED, passed, strict=False) if name in names}
        return function(**named, **injected or {})

    return call


def request_arguments(function: AnyCallable) -> Callable[..., Awaitable[dict[str, Any]]] | None:
    """Return a dependency that takes what Litestar is to inject into `function`, and returns it; None for nothing."""

    @wraps(function)
    async def request(**injected: Any) -> dict[str, Any]:
        return injected

    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in PASSED]
    vars(request)["__signature__"] = signature.replace(parameters=parameters)
    return request if parameters else None


def request_dependencies(names: Iterable[str]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Return a dependency that takes the socket and these dependencies, and returns them without `connection`."""

    async def request(*, connection: object = None, **injected: Any) -> dict[str, Any]:  # noqa: ARG001
        return injected

    annotations: dict[str, Any] = {"socket": Socket, **dict.fromkeys(names, INJECTED)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=each) for name, each in annotations.items()]
    vars(request)["__signature__"] = inspect.Signature(parameters)
    request.__annotations__ = annotations
    return request
