"""Checks of registered handlers: their options, their injected parameters, and state that connections would share."""

import inspect
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Set
from difflib import get_close_matches
from typing import Any

import msgspec
import structlog
from litestar import WebSocket
from litestar.constants import RESERVED_KWARGS
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from litestar.typing import FieldDefinition
from msgspec import Struct

from ..errors import ConfigurationError, opt_out_hint, source_location
from ..internals import (
    PACKAGE,
    fields_of,
    function_of,
    functions_of,
    has_decoder,
    injected_of,
    is_provided_by,
    providers_of,
    yields,
)
from ..sessions.cause import Cause
from ..sessions.info import ConnectionInfo
from .definitions import is_subclass, nearest_method

log = structlog.get_logger(__name__)

NAMES: dict[str, type] = {"socket": WebSocket, "connection": ConnectionInfo, "cause": Cause}
"""The types that are injected under one name only."""

MUTABLE = (list, dict, set, bytearray, deque)


def check_options(handler: WebsocketRouteHandler) -> None:
    """Refuse a key in `opt` that looks like a misspelled keyword of the decorator.

    Args:
        handler: A handler that is not registered yet; registration adds the keys of its routers to `opt`.

    Raises:
        ConfigurationError: A key resembles a keyword.
    """
    names = [name for name in inspect.signature(type(handler)).parameters if name not in {"opt", "kwargs", "options"}]
    for key in handler.opt or {}:
        close = _resembles(key, names)
        if close and not _is_allowed(handler, key):
            raise ConfigurationError(
                function_of(handler),
                f"passes {key!r} to {type(handler).__name__}, which has no such keyword and stores it in `opt`, unused",
                f"write {close!r}, or keep the key with {opt_out_hint(key)}",
            )


def check_names(handler: BaseRouteHandler) -> None:
    """Refuse parameters of a listener or its hooks if nothing is injected under their names.

    Args:
        handler: A handler whose signature Litestar has not read yet; Litestar's own error would not name the place.

    Raises:
        ConfigurationError: Nothing is injected under the name of a parameter.
    """
    for name, field in fields_of(handler).items():
        if where := _taking(name, handler):
            _check_name(where, field, handler)


def check_injection(handler: BaseRouteHandler, *, is_managed: bool) -> None:
    """Refuse parameters that cannot be injected, dependencies that all connections would share, and a wrong `opt`.

    Args:
        handler: A registered handler.
        is_managed: Whether it runs inside `connection_lifespan`.

    Raises:
        ConfigurationError: A parameter or `opt` is wrong.
    """
    _check_connection(handler, is_managed=is_managed)
    if isinstance(handler, WebsocketRouteHandler):
        for key in ("allow", "subprotocols"):
            _names_in_opt(handler, key)
        _check_state(handler)
        _check_caches(handler)
        for function, fields, types in injected_of(handler):
            for name, field in fields.items():
                where = _taking(name, handler) or function
                _check_name(where, field, handler)
                _check_type(where, name, types[name])


def _check_connection(handler: BaseRouteHandler, *, is_managed: bool) -> None:
    where = _taking("connection", handler)
    provider = handler.resolve_dependencies().get("connection")
    is_ours = provider is not None and is_provided_by(provider, PACKAGE)
    if where is None or not is_ours or _is_allowed(handler, "connection"):
        return
    if not isinstance(handler, WebsocketRouteHandler):
        fix = "remove the parameter; only WebSocket handlers have a Connection"
        raise ConfigurationError(where, "asks for `connection` in an HTTP handler", fix)
    if not is_managed:
        raise ConfigurationError(
            where,
            "asks for `connection` but runs without connection_lifespan, which creates it",
            "use @listener or Listener, or @websocket_listener with connection_lifespan=connection_lifespan. If its "
            f"own lifespan enters connection_lifespan, add {opt_out_hint('connection')}",
        )


def _check_state(handler: BaseRouteHandler) -> None:
    where = _taking("state", handler)
    if where and not _is_allowed(handler, "state"):
        raise ConfigurationError(
            where,
            "takes `state`, which is the application's state and shared by all connections",
            "take `connection: NamedDependency[Connection]` and add a field to Connection in state.py, or keep `state` "
            f"with {opt_out_hint('state')}",
        )


def _check_caches(handler: BaseRouteHandler) -> None:
    for name, provider in providers_of(handler).items():
        # Litestar's own plugins cache the plugin itself, which belongs to no connection.
        if provider.use_cache and not is_provided_by(provider, "litestar") and not _is_allowed(handler, name):
            raise ConfigurationError(
                function_of(handler),
                f"depends on {name!r}, provided by {source_location(provider.dependency)} with use_cache=True, "
                "so all connections get the value of the first one",
                "remove use_cache; each connection still gets only one value. To share the value, add "
                f"{opt_out_hint(name)}",
            )


def _check_name(where: Callable[..., Any], field: FieldDefinition, handler: BaseRouteHandler) -> None:
    """Refuse a parameter that Litestar would read from the query although a query cannot hold its type."""
    if field.name in handler.resolve_dependencies() or field.name in RESERVED_KWARGS:
        return
    kinds = field.inner_types if field.is_union else [field]
    name = next((name for name, kind in NAMES.items() if any(each.is_subclass_of(kind) for each in kinds)), None)
    if name or (field.is_required and _is_opaque(field.annotation)):
        fix = f"rename it to {name!r}" if name else f"provide it with dependencies={{{field.name!r}: Provide(...)}}"
        if name == "cause":
            fix = "take it as `cause` in on_disconnect, and read connection.cause elsewhere"
        raise ConfigurationError(
            where, f"has a parameter {field.name!r}, but no value of its type is injected under this name", fix
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


def _taking(name: str, handler: BaseRouteHandler) -> Callable[..., Any] | None:
    """Return the function, lifespan or hook of a handler that has a parameter, or None."""
    return next((each for each in functions_of(handler) if name in inspect.signature(each).parameters), None)


def _is_opaque(annotation: Any) -> bool:
    """Return whether a type cannot be decoded from text. Litestar marks the types that have a decoder."""
    is_custom = isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    return is_custom and not has_decoder(annotation)


def check_replaced(given: Mapping[str, Any], dependencies: Mapping[str, Any]) -> None:
    """Refuse a dependency of the application with a name that this framework provides.

    Args:
        given: The dependencies of the application and its other plugins.
        dependencies: All dependencies, including those of this framework.

    Raises:
        ConfigurationError: A dependency of the application would be replaced.
    """
    for name, provider in given.items():
        if dependencies[name] is not provider:
            raise ConfigurationError(
                getattr(provider, "dependency", provider),
                f"is provided as {name!r}, a name that Realtime itself provides",
                "give it another name",
            )


def check_listener_class(handler: BaseRouteHandler) -> None:
    """Refuse a listener class with a misspelled method, or a mutable attribute that all connections would share.

    Args:
        handler: A registered handler. Nothing is checked if it was made from a function.

    Raises:
        ConfigurationError: An attribute of the class is wrong.
    """
    listener: object = getattr(function_of(handler), "__self__", None)
    cls = type(listener)
    if not issubclass(cls, WebsocketListener):
        return
    known = [name for parent in cls.__mro__[1:] for name in vars(parent) if not name.startswith("_")]
    for name, value in vars(cls).items():
        if name.startswith("_") or name in known or _is_allowed(handler, name):
            continue
        if close := nearest_method(name, known):
            is_method = inspect.isfunction(value)
            raise ConfigurationError(
                value if is_method else cls,
                "is never called" if is_method else f"has {name!r}, which is never read",
                f"rename it to {close}, or keep the name with {opt_out_hint(name)}",
            )
        kind = value.__class__
        if issubclass(kind, MUTABLE):
            raise ConfigurationError(
                cls,
                f"has {name!r}, a {kind.__name__} that every connection would share",
                "make it a field of Connection in state.py, make it a tuple, frozenset or Mapping if it never changes, "
                f"or keep it with {opt_out_hint(name)}",
            )


def check_reserved(function: Callable[..., Any], kind: Any, tags: Set[str], fields: Set[str]) -> None:
    """Refuse a message with a reserved tag, or with a field that the service adds.

    Args:
        function: The listener.
        kind: The type of one of its messages.
        tags: The tags that are reserved.
        fields: The names of fields that are reserved.

    Raises:
        ConfigurationError: The message uses a reserved tag or field.
    """
    if not is_subclass(kind, Struct):
        return
    info: Any = msgspec.inspect.type_info(kind)
    if info.tag_field == "type" and info.tag in tags:
        raise ConfigurationError(kind, f"has the tag {info.tag!r}, which the service itself uses", "choose another tag")
    for name in fields & {info.tag_field, *(field.encode_name for field in info.fields)}:
        raise ConfigurationError(
            kind,
            f"is a message of {function.__name__} and has a field {name!r}, which the service itself adds",
            "rename the field",
        )


def check_scopes(handler: BaseRouteHandler, function: Callable[..., Any], scopes: Mapping[str, Any]) -> None:
    """Refuse scopes that hide a dependency, or that take one with the lifetime of the connection.

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
            mistake = f"has per_message={{{name!r}: ...}} and a dependency of the same name: {place}"
            raise ConfigurationError(function, mistake, "rename one of them")
        for each in inspect.signature(factory).parameters:
            if each in provided and yields(handler, each) and not _is_allowed(handler, each):
                raise ConfigurationError(
                    factory,
                    f"is a scope of one message but takes {each!r}, a dependency that yields and therefore lives as "
                    "long as the connection",
                    f"make {each!r} a scope too, with per_message={{{each!r}: ...}}, or keep it with "
                    f"{opt_out_hint(each)}",
                )


def warn_of_sessions(handler: BaseRouteHandler) -> None:
    """Warn about a dependency that looks like a database session and lives as long as the connection."""
    for name, field in fields_of(handler).items():
        kind = getattr(field.annotation, "__name__", "")
        if not kind.endswith("Session") or _is_allowed(handler, name):
            continue
        if name in handler.resolve_dependencies() and yields(handler, name):
            log.warning(
                "a dependency that yields lives as long as the connection",
                listener=source_location(function_of(handler)),
                dependency=name,
                fix=f"create it for each message with per_message={{{name!r}: ...}}, or add {opt_out_hint(name)}",
            )


def check_unmanaged(handler: BaseRouteHandler, path: str, unmanaged: Collection[str]) -> None:
    """Refuse a WebSocket handler without `connection_lifespan`, unless it is declared as unmanaged.

    Args:
        handler: A registered handler that does not have the lifespan.
        path: Its path.
        unmanaged: The paths of handlers that intentionally run without it.

    Raises:
        ConfigurationError: The handler is not declared as unmanaged.
    """
    if path in unmanaged or _is_allowed(handler, "unmanaged") or _is_allowed(handler, "connection"):
        return
    raise ConfigurationError(
        function_of(handler),
        f"handles {path} without connection_lifespan, so no hook runs for its connections",
        "use @listener or Listener, or @websocket_listener with connection_lifespan=connection_lifespan. To run "
        f"without it, add {opt_out_hint('unmanaged')} or, for the handler of a plugin, pass unmanaged=[{path!r}] to "
        "Realtime(...)",
    )


def check_path(handler: BaseRouteHandler, path: str, earlier: dict[str, BaseRouteHandler]) -> None:
    """Refuse a WebSocket handler whose path an earlier one has: Litestar would call the later one only.

    Args:
        handler: A registered handler.
        path: Its path.
        earlier: The handlers of the application so far, by path; the handler is added.

    Raises:
        ConfigurationError: An earlier handler has the path, whatever its parameters are called.
    """
    other = earlier.setdefault(re.sub(r"\{.*?\}", "{}", path), handler)
    if other is not handler:
        raise ConfigurationError(
            function_of(handler),
            f"handles {path}, and so does {source_location(function_of(other))}, which would never be called",
            "give one of them another path",
        )


def _is_allowed(handler: BaseRouteHandler, name: str) -> bool:
    """Return whether the `opt` of a handler, or of a router around it, turns off the check of a name."""
    return name in _names_in_opt(handler, "allow")


def _names_in_opt(handler: BaseRouteHandler, key: str) -> Collection[Any]:
    names: Collection[Any] = (handler.opt or {}).get(key, ())
    if isinstance(names, str) or not is_subclass(type(names), Collection):
        example = names if isinstance(names, str) else "name"
        raise ConfigurationError(
            function_of(handler),
            f"has opt={{{key!r}: {names!r}}}, which is not a list",
            f'write opt={{"{key}": ["{example}"]}}',
        )
    return names


def _resembles(key: str, names: list[str]) -> str | None:
    """Return the keyword that `key` may stand for: one with a similar spelling, or one that ends with it."""
    close = get_close_matches(key, names, n=1, cutoff=0.75)
    return close[0] if close else next((name for name in names if name.endswith(f"_{key}")), None)
