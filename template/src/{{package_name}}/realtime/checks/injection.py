"""What Litestar injects into a handler, its hooks, its lifespan and their dependencies."""

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import WebSocket
from litestar.constants import RESERVED_KWARGS
from litestar.handlers import BaseRouteHandler
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from litestar.typing import FieldDefinition

from ..errors import ConfigurationError, source_location
from ..internals import (
    PACKAGE,
    function_of,
    functions_of,
    has_decoder,
    injected_of,
    is_provided_by,
    parameters_of,
    providers_of,
)
from ..sessions.info import ConnectionInfo
from .opt_out import is_allowed, opt_out_hint

NAMES: dict[str, type] = {"socket": WebSocket, "connection": ConnectionInfo}
"""What is injected by one name alone."""


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
                where = source_location(function)
                _check_type(where, name, types[name])
                _check_name(where, field, handler)


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
                source_location(getattr(provider, "dependency", provider)),
                f"is provided as {name!r}, which Realtime provides",
                "give it another name",
            )


def _check_connection(handler: BaseRouteHandler, *, is_managed: bool) -> None:
    provider = parameters_of(handler).get("connection")
    if provider is None or not is_provided_by(provider, PACKAGE) or is_allowed(handler.opt, "connection"):
        return
    where = source_location(function_of(handler))
    if not isinstance(handler, WebsocketRouteHandler):
        raise ConfigurationError(where, "asks for `connection` in an HTTP handler", "only a WebSocket has a Connection")
    if not is_managed:
        raise ConfigurationError(
            where,
            "asks for `connection` outside connection_lifespan, so there is none",
            "use @listener, or pass connection_lifespan=connection_lifespan. If its own lifespan enters "
            f"connection_lifespan, add {opt_out_hint('connection')}",
        )


def _check_state(handler: BaseRouteHandler) -> None:
    if "state" not in parameters_of(handler) or is_allowed(handler.opt, "state"):
        return
    where = next(source_location(fn) for fn in functions_of(handler) if "state" in inspect.signature(fn).parameters)
    raise ConfigurationError(
        where,
        "takes `state` by injection: that is the application's state, and every connection shares it",
        "take `connection: NamedDependency[Connection]` and add a field to Connection in state.py, or keep it with "
        f"{opt_out_hint('state')}",
    )


def _check_caches(handler: BaseRouteHandler) -> None:
    for name, provider in providers_of(handler).items():
        # Litestar's own plugins cache the plugin itself, which belongs to no connection.
        if provider.use_cache and not is_provided_by(provider, "litestar") and not is_allowed(handler.opt, name):
            raise ConfigurationError(
                source_location(function_of(handler)),
                f"depends on {name!r}, provided by {source_location(provider.dependency)} with use_cache=True: "
                "the first connection's value goes to every later one",
                "leave use_cache out; one connection gets one value all the same. To share it, add "
                f"{opt_out_hint(name)}",
            )


def _check_name(where: str, field: FieldDefinition, handler: BaseRouteHandler) -> None:
    """Refuse a parameter that Litestar would look for in the query, and that no query can hold."""
    if field.name in handler.resolve_dependencies() or field.name in RESERVED_KWARGS or not field.is_required:
        return
    name = next((name for name, kind in NAMES.items() if field.is_subclass_of(kind)), None)
    if name or _is_opaque(field.annotation):
        raise ConfigurationError(
            where,
            f"has a parameter {field.name!r} of a type that is not injected by that name",
            f"rename it to {name!r}" if name else f"provide it with dependencies={{{field.name!r}: Provide(...)}}",
        )


def _check_type(where: str, name: str, annotation: Any) -> None:
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
