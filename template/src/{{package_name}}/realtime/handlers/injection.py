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


def bind_arguments(function: AnyCallable | None) -> Callable[[dict[str, Any], dict[str, Any] | None], Any] | None:
    """Return a function that calls `function` with those of the passed arguments that it names, and with the injected.

    Its signature is read once, and not for each connection.
    """
    if function is None:
        return None
    names = [name for name in inspect.signature(function).parameters if name in PASSED]

    def call(passed: dict[str, Any], injected: dict[str, Any] | None) -> Any:
        return function(**{name: passed[name] for name in names if name in passed}, **injected or {})

    return call


def request_arguments(function: AnyCallable | None) -> Callable[..., Awaitable[dict[str, Any]]] | None:
    """Return a dependency that takes what Litestar is to inject into `function`, and returns it; None for nothing."""
    if function is None:
        return None

    @wraps(function)
    async def arguments(**injected: Any) -> dict[str, Any]:
        return injected

    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in PASSED]
    vars(arguments)["__signature__"] = signature.replace(parameters=parameters)
    return arguments if parameters else None


def request_dependencies(names: Iterable[str]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Return a dependency that takes the socket and these dependencies, and returns them without `connection`."""

    async def arguments(*, connection: object = None, **injected: Any) -> dict[str, Any]:  # noqa: ARG001
        return injected

    annotations: dict[str, Any] = {"socket": Socket, **dict.fromkeys(names, INJECTED)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=each) for name, each in annotations.items()]
    vars(arguments)["__signature__"] = inspect.Signature(parameters)
    arguments.__annotations__ = annotations
    return arguments
