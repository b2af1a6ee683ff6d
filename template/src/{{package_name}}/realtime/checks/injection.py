"""Parameters of listeners, hooks and lifespans: Litestar reads their annotations to know what to inject into them."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_origin, get_type_hints

import msgspec
from litestar import WebSocket
from litestar.constants import RESERVED_KWARGS
from litestar.handlers import BaseRouteHandler
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from litestar.typing import FieldDefinition

from ..errors import ConfigurationError, innermost, is_allowed, opt_out_hint, source_location
from ..internals import (
    PACKAGE,
    fields_of,
    function_of,
    functions_of,
    has_decoder,
    injected_of,
    is_provided_by,
    providers_of,
)
from ..sessions.info import ConnectionInfo

NAMES: dict[str, type] = {"socket": WebSocket, "connection": ConnectionInfo}
"""What is injected by one name alone."""


def check_parameters(function: Callable[..., Any], kind: str, passed: Collection[str] = ()) -> None:
    """Refuse parameters into which nothing can be injected: without annotation or name, or a `socket` of another type.

    Args:
        function: The function whose parameters are checked.
        kind: What the function is, for the error: "listener", "hook" or "lifespan".
        passed: Names of parameters that this folder passes itself. They need no annotation.

    Raises:
        ConfigurationError: A parameter is wrong.
    """
    hints = resolve_hints(function, kind)
    for name, parameter in inspect.signature(function).parameters.items():
        if (name, kind) == ("self", "listener"):
            continue
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ConfigurationError(
                function,
                f"has a parameter {name!r} that cannot be passed by its name",
                "write it without `*` and `/`; where a decorator has it, give that functools.wraps",
            )
        if name not in hints:
            if name in passed:
                continue
            raise ConfigurationError(function, f"has a parameter {name!r} without an annotation", f"annotate {name}")
        annotation = get_origin(hints[name]) or hints[name]
        if name == "socket" and not (annotation is Any or is_subclass(annotation, WebSocket)):
            raise ConfigurationError(
                function,
                f"has its parameter 'socket' annotated as {name_of(hints[name])}",
                "annotate it as socket: Socket, which realtime exports; it is Litestar's WebSocket",
            )


def check_injection(handler: BaseRouteHandler, *, is_managed: bool) -> None:
    """Refuse what cannot be injected, and what all connections would share.

    Args:
        handler: A registered handler.
        is_managed: Whether it is in `connection_lifespan`.

    Raises:
        ConfigurationError: A parameter is wrong.
    """
    _check_connection(handler, is_managed=is_managed)
    if isinstance(handler, WebsocketRouteHandler):
        _check_state(handler)
        _check_caches(handler)
        for function, fields, types in injected_of(handler):
            for name, field in fields.items():
                where = _taking(name, handler) or function
                _check_name(where, field, handler)
                _check_type(where, name, types[name])


def check_replaced(given: Mapping[str, Any], dependencies: Mapping[str, Any]) -> None:
    """Refuse a dependency of the application that has the name of one of this folder.

    Args:
        given: The dependencies that the application and its other plugins give.
        dependencies: All dependencies, with those of this folder.

    Raises:
        ConfigurationError: One of the given is replaced.
    """
    for name, provider in given.items():
        if dependencies[name] is not provider:
            raise ConfigurationError(
                getattr(provider, "dependency", provider),
                f"is provided as {name!r}, which Realtime provides",
                "give it another name",
            )


def _check_connection(handler: BaseRouteHandler, *, is_managed: bool) -> None:
    where = _taking("connection", handler)
    provider = handler.resolve_dependencies().get("connection")
    is_ours = provider is not None and is_provided_by(provider, PACKAGE)
    if where is None or not is_ours or is_allowed(handler.opt, "connection"):
        return
    if not isinstance(handler, WebsocketRouteHandler):
        raise ConfigurationError(where, "asks for `connection` in an HTTP handler", "only a WebSocket has a Connection")
    if not is_managed:
        raise ConfigurationError(
            where,
            "asks for `connection` outside connection_lifespan, so there is none",
            "use @listener or Listener, or pass connection_lifespan=connection_lifespan. If its own lifespan enters "
            f"connection_lifespan, add {opt_out_hint('connection')}",
        )


def _check_state(handler: BaseRouteHandler) -> None:
    where = _taking("state", handler)
    if where and not is_allowed(handler.opt, "state"):
        raise ConfigurationError(
            where,
            "takes `state` by injection: that is the application's state, and every connection shares it",
            "take `connection: NamedDependency[Connection]` and add a field to Connection in state.py, or keep it with "
            f"{opt_out_hint('state')}",
        )


def _taking(name: str, handler: BaseRouteHandler) -> Callable[..., Any] | None:
    """Return the function, the lifespan or the hook of a handler that has a parameter; None where none of them has."""
    return next((each for each in functions_of(handler) if name in inspect.signature(each).parameters), None)


def _check_caches(handler: BaseRouteHandler) -> None:
    for name, provider in providers_of(handler).items():
        # Litestar's own plugins cache the plugin itself, which belongs to no connection.
        if provider.use_cache and not is_provided_by(provider, "litestar") and not is_allowed(handler.opt, name):
            raise ConfigurationError(
                function_of(handler),
                f"depends on {name!r}, provided by {source_location(provider.dependency)} with use_cache=True: "
                "the first connection's value goes to every later one",
                "leave use_cache out; one connection gets one value all the same. To share it, add "
                f"{opt_out_hint(name)}",
            )


def check_names(handler: BaseRouteHandler) -> None:
    """Refuse parameters of a listener and its hooks with another name than what is injected.

    Args:
        handler: A handler of which Litestar has not read the signature yet; its error would not say where.

    Raises:
        ConfigurationError: A parameter has a name under which nothing is injected.
    """
    for name, field in fields_of(handler).items():
        if where := _taking(name, handler):
            _check_name(where, field, handler)


def _check_name(where: Callable[..., Any], field: FieldDefinition, handler: BaseRouteHandler) -> None:
    """Refuse a parameter that Litestar would look for in the query, and that no query can hold."""
    if field.name in handler.resolve_dependencies() or field.name in RESERVED_KWARGS:
        return
    kinds = field.inner_types if field.is_union else [field]
    name = next((name for name, kind in NAMES.items() if any(each.is_subclass_of(kind) for each in kinds)), None)
    if name or (field.is_required and _is_opaque(field.annotation)):
        raise ConfigurationError(
            where,
            f"has a parameter {field.name!r} of a type that is not injected by that name",
            f"rename it to {name!r}" if name else f"provide it with dependencies={{{field.name!r}: Provide(...)}}",
        )


def _check_type(where: Callable[..., Any], name: str, annotation: Any) -> None:
    """Refuse a parameter whose type Litestar cannot validate: each handshake would fail."""
    try:
        msgspec.convert(object(), annotation, dec_hook=lambda _, value: value)
    except msgspec.ValidationError:
        pass
    except (TypeError, NameError) as error:
        raise ConfigurationError(
            where,
            f"has a parameter {name!r} that Litestar cannot validate: {error}",
            f"annotate it as {name}: SkipValidation[NamedDependency[...]] (litestar.params, litestar.di)",
        ) from None


def _is_opaque(annotation: Any) -> bool:
    """Return whether a type can be made of no text. Litestar marks those that have a decoder."""
    is_custom = isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    return is_custom and not has_decoder(annotation)


def resolve_hints(function: Callable[..., Any], kind: str) -> dict[str, Any]:
    """Return the annotations of a function.

    Raises:
        ConfigurationError: One of them names something that exists for type checkers only.
    """
    try:
        return get_type_hints(innermost(function), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            function,
            f"is a {kind} annotated with {error.name!r}, which does not exist at run time",
            f"import {error.name} outside of `if TYPE_CHECKING:`; Litestar reads the annotations",
        ) from None


def is_subclass(annotation: Any, parent: type) -> bool:
    """Return whether an annotation is a class that inherits from `parent`."""
    return inspect.isclass(annotation) and issubclass(annotation, parent)


def name_of(annotation: Any) -> str:
    """Return an annotation as an error names it."""
    return getattr(annotation, "__name__", None) or str(annotation)
