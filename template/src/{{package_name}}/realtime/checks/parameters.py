"""The parameters of listeners, hooks and lifespans: Litestar reads their annotations to know what to inject."""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, get_origin, get_type_hints

from litestar import WebSocket

from ..errors import ConfigurationError, source_location


def check_parameters(function: Callable[..., Any], kind: str, passed: Collection[str] = ()) -> None:
    """Refuse parameters into which Litestar cannot inject: without an annotation, or a `socket` of another type.

    Args:
        function: The function whose parameters are checked.
        kind: What the function is, for the error: "listener", "hook" or "lifespan".
        passed: Names of parameters that this folder passes itself. They need no annotation.

    Raises:
        ConfigurationError: A parameter is wrong.
    """
    hints = resolve_hints(function, kind)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} or name == "self":
            continue
        if name not in hints:
            if name in passed:
                continue
            raise ConfigurationError(
                source_location(function), f"has a parameter {name!r} without an annotation", f"annotate {name}"
            )
        annotation = get_origin(hints[name]) or hints[name]
        if name == "socket" and not (annotation is Any or is_subclass(annotation, WebSocket)):
            raise ConfigurationError(
                source_location(function),
                f"has its parameter 'socket' annotated as {name_of(hints[name])}",
                "annotate it as socket: Socket, which realtime exports; it is Litestar's WebSocket",
            )


def resolve_hints(function: Callable[..., Any], kind: str) -> dict[str, Any]:
    """Return the annotations of a function.

    Raises:
        ConfigurationError: One of them names something that exists for type checkers only.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            source_location(function),
            f"is a {kind} annotated with {error.name!r}, which does not exist at run time",
            f"import {error.name} outside of `if TYPE_CHECKING:`; Litestar reads the annotations",
        ) from None


def unwrap_partial(function: Any) -> Any:
    """Return the function inside any number of `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


def is_subclass(annotation: Any, parent: type) -> bool:
    """Return whether an annotation is a class that inherits from `parent`."""
    return inspect.isclass(annotation) and issubclass(annotation, parent)


def name_of(annotation: Any) -> str:
    """Return an annotation as an error names it."""
    return getattr(annotation, "__name__", None) or str(annotation)
