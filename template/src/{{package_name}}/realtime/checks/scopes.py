"""`per_message`: the scopes of a message."""

import inspect
from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from litestar.constants import RESERVED_KWARGS
from litestar.handlers import BaseRouteHandler

from ..errors import ConfigurationError, is_allowed, opt_out_hint, source_location
from .injection import check_parameters


def order_scopes(function: Callable[..., Any], scopes: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return the names of scopes in an order in which they can be entered.

    Raises:
        ConfigurationError: One is not a scope, has the name of something else, or needs itself.
    """
    for name, factory in scopes.items():
        if not inspect.isasyncgenfunction(inspect.unwrap(factory)):
            raise ConfigurationError(
                source_location(factory),
                f"is given as per_message={{{name!r}: ...}} and is not an async generator function",
                f"write `async def {getattr(factory, '__name__', name)}() -> AsyncGenerator[...]`, with one `yield`",
            )
        check_parameters(factory, "scope")
        if name in {"data", "connection", *RESERVED_KWARGS}:
            raise ConfigurationError(
                source_location(function), f"has per_message={{{name!r}: ...}}, a name that is taken", "rename it"
            )
    needs = {name: inspect.signature(factory).parameters.keys() & scopes.keys() for name, factory in scopes.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ConfigurationError(
            source_location(function),
            f"has scopes of a message that need each other: {' -> '.join(error.args[1])}",
            "let one of them take what it needs another way",
        ) from None


def check_scopes(handler: BaseRouteHandler, function: Callable[..., Any], scopes: Mapping[str, Any]) -> None:
    """Refuse scopes that hide a dependency, or that take one that lives as long as the connection.

    Args:
        handler: A registered handler.
        function: Its function.
        scopes: Its scopes, by name.

    Raises:
        ConfigurationError: A scope is wrong.
    """
    provided = handler.resolve_dependencies()
    for name, factory in scopes.items():
        if name in provided:
            place = source_location(provided[name].dependency)
            raise ConfigurationError(
                source_location(function),
                f"has per_message={{{name!r}: ...}}, and a dependency of that name: {place}",
                "rename one of them",
            )
        for each in inspect.signature(factory).parameters:
            if each in provided and _yields(handler, each) and not is_allowed(handler.opt, each):
                raise ConfigurationError(
                    source_location(factory),
                    f"is a scope of one message and takes {each!r}, a dependency that yields, so it lives as long as "
                    "the connection",
                    f"make it a scope too, as per_message={{{each!r}: ...}}, or keep it with {opt_out_hint(each)}",
                )


def _yields(handler: BaseRouteHandler, name: str) -> bool:
    """Return whether a dependency yields, or takes one that does."""
    provided = handler.resolve_dependencies()
    provider = provided[name]
    if inspect.isasyncgenfunction(provider.dependency) or inspect.isgeneratorfunction(provider.dependency):
        return True
    return any(each in provided and _yields(handler, each) for each in provider.parsed_fn_signature.parameters)
