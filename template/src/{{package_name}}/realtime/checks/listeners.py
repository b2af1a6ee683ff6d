"""Listeners: function, `sends`, scopes, class, misspelled keywords, and handlers without `connection_lifespan`."""

import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping, Set
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args, get_origin

import structlog
from litestar.constants import RESERVED_KWARGS
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from msgspec import Struct
from msgspec.inspect import type_info

from ..errors import ConfigurationError, is_allowed, opt_out_hint, source_location
from ..internals import fields_of, function_of, yields
from .injection import check_parameters, is_subclass, name_of, resolve_hints

log = structlog.get_logger(__name__)

STREAMS = (AsyncGenerator, AsyncIterator, AsyncIterable)
MUTABLE = (list, dict, set, bytearray, deque)


def check_listener_function(function: Callable[..., Any], concurrency: int, sends: Any) -> None:
    """Refuse a function that cannot be a listener: synchronous, without `data`, or without annotations.

    Args:
        function: The function.
        concurrency: What it was given as such: 1 or more, and 1 for a function that yields.
        sends: What it was given as such: None, a Struct, or several with `|` between.

    Raises:
        ConfigurationError: The function is wrong, or one of the two.
    """
    if inspect.isasyncgenfunction(function):
        if get_origin(resolve_hints(function, "listener").get("return")) not in STREAMS:
            raise ConfigurationError(
                function,
                "is a listener that yields without saying what",
                "annotate it with the messages, as in: -> AsyncGenerator[Token, None]",
            )
    elif not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            function,
            "is a listener and not an async function; a synchronous one would take a thread for each message",
            "write `async def`, and call what blocks through asyncio.to_thread",
        )
    check_parameters(function, "listener")
    if "data" not in inspect.signature(function).parameters:
        raise ConfigurationError(
            function,
            "is a listener without a parameter 'data'",
            "add `data: Say`, annotated with the type of its messages",
        )
    if concurrency < 1:
        raise ConfigurationError(function, f"has concurrency={concurrency}", "give it 1 or more")
    if concurrency > 1 and inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            function,
            f"yields and has concurrency={concurrency}; streams run side by side as they are",
            "leave concurrency out; the setting MAX_STREAMS bounds the streams of a connection",
        )
    if sends is not None and not all(is_subclass(kind, Struct) for kind in get_args(sends) or [sends]):
        raise ConfigurationError(
            function,
            f"has sends={name_of(sends)}, which is not a message",
            "name a Struct, or several with | between, as in: sends=Joined | Left",
        )


def check_reserved(function: Callable[..., Any], kind: Any, tags: Set[str], fields: Set[str]) -> None:
    """Refuse a message with a tag that the protocol of the service needs, or a field that the service adds.

    Args:
        function: The listener.
        kind: The type of one of its messages.
        tags: The tags that are reserved.
        fields: The names of fields that are reserved.

    Raises:
        ConfigurationError: The message has one of them.
    """
    if not is_subclass(kind, Struct):
        return
    info: Any = type_info(kind)
    if info.tag_field == "type" and info.tag in tags:
        raise ConfigurationError(kind, f"has the tag {info.tag!r}, which the service itself uses", "choose another tag")
    for name in fields & {info.tag_field, *(field.encode_name for field in info.fields)}:
        raise ConfigurationError(
            kind,
            f"is a message of {function.__name__} and has a field {name!r}, which the service itself adds",
            "rename the field",
        )


def check_listener_class(handler: BaseRouteHandler) -> None:
    """Refuse a listener class with a misspelled method, or with something mutable that all connections would share.

    Args:
        handler: A registered handler. One that is made of a function has nothing to check.

    Raises:
        ConfigurationError: An attribute of the class is wrong.
    """
    listener: object = getattr(function_of(handler), "__self__", None)
    cls = type(listener)
    if not issubclass(cls, WebsocketListener):
        return
    known = [name for parent in cls.__mro__[1:] for name in vars(parent) if not name.startswith("_")]
    for name, value in vars(cls).items():
        if name.startswith("_") or name in known or is_allowed(handler.opt, name):
            continue
        if close := get_close_matches(name, known, n=1, cutoff=0.8):
            is_method = inspect.isfunction(value)
            raise ConfigurationError(
                value if is_method else cls,
                "is never called" if is_method else f"has {name!r}, which is never read",
                f"rename it to {close[0]}, or keep the name with {opt_out_hint(name)}",
            )
        kind = value.__class__
        if issubclass(kind, MUTABLE):
            raise ConfigurationError(
                cls,
                f"has {name!r}, a {kind.__name__} that every connection would share",
                "make it a field of Connection in state.py, or a tuple, frozenset or Mapping if nothing changes it, "
                f"or keep it with {opt_out_hint(name)}",
            )


def order_scopes(function: Callable[..., Any], scopes: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return the names of scopes in an order in which they can be entered.

    Raises:
        ConfigurationError: One is not a scope, has the name of something else, or needs itself.
    """
    for name, factory in scopes.items():
        if not inspect.isasyncgenfunction(inspect.unwrap(factory)):
            raise ConfigurationError(
                factory,
                f"is given as per_message={{{name!r}: ...}} and is not an async generator function",
                f"write `async def {getattr(factory, '__name__', name)}() -> AsyncGenerator[...]`, with one `yield`",
            )
        check_parameters(factory, "scope")
        if name in {"data", "connection", *RESERVED_KWARGS}:
            raise ConfigurationError(function, f"has per_message={{{name!r}: ...}}, a name that is taken", "rename it")
    needs = {name: inspect.signature(factory).parameters.keys() & scopes.keys() for name, factory in scopes.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ConfigurationError(
            function,
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
            mistake = f"has per_message={{{name!r}: ...}}, and a dependency of that name: {place}"
            raise ConfigurationError(function, mistake, "rename one of them")
        for each in inspect.signature(factory).parameters:
            if each in provided and yields(handler, each) and not is_allowed(handler.opt, each):
                raise ConfigurationError(
                    factory,
                    f"is a scope of one message and takes {each!r}, a dependency that yields, so it lives as long as "
                    "the connection",
                    f"make it a scope too, as per_message={{{each!r}: ...}}, or keep it with {opt_out_hint(each)}",
                )


def warn_of_sessions(handler: BaseRouteHandler) -> None:
    """Warn of a dependency that looks like the session of a database, and lives as long as the connection."""
    for name, field in fields_of(handler).items():
        kind = getattr(field.annotation, "__name__", "")
        if not kind.endswith("Session") or is_allowed(handler.opt, name):
            continue
        if name in handler.resolve_dependencies() and yields(handler, name):
            log.warning(
                "a dependency that yields lives as long as the connection",
                listener=source_location(function_of(handler)),
                dependency=name,
                fix=f"make it for each message, with per_message={{{name!r}: ...}}, or add {opt_out_hint(name)}",
            )


def check_keywords(keywords: Iterable[str], known: Collection[str], function: Callable[..., Any]) -> None:
    """Refuse keywords that `@listener` does not have.

    Args:
        keywords: The keywords that it was called with.
        known: Those that it has.
        function: The function that it decorates.

    Raises:
        ConfigurationError: There is an unknown one.
    """
    for keyword in keywords:
        if keyword not in known:
            close = get_close_matches(keyword, known, n=1)
            raise ConfigurationError(
                function,
                f"passes {keyword!r} to listener(), which has no such keyword",
                f"write {close[0]!r}" if close else f"the keywords are {', '.join(known)}",
            )


def check_options(handler: WebsocketRouteHandler) -> None:
    """Refuse a key in `opt` that looks like a misspelled keyword of the decorator.

    Args:
        handler: A handler before Litestar registers it, which adds the keys of the routers around it to `opt`.

    Raises:
        ConfigurationError: There is such a key.
    """
    names = [name for name in inspect.signature(type(handler)).parameters if name not in {"opt", "kwargs", "options"}]
    for key in handler.opt or {}:
        close = _resembles(key, names)
        if close and not is_allowed(handler.opt, key):
            raise ConfigurationError(
                function_of(handler),
                f"passes {key!r} to {type(handler).__name__}, which has no such keyword, so it ends in `opt`, unused",
                f"write {close!r}, or keep the key with {opt_out_hint(key)}",
            )


def check_unmanaged(handler: BaseRouteHandler, path: str, unmanaged: Collection[str]) -> None:
    """Refuse a WebSocket handler without `connection_lifespan`, unless somebody says that it is meant.

    Args:
        handler: A registered handler that does not have the lifespan.
        path: Its path.
        unmanaged: The paths of handlers that are meant to go without.

    Raises:
        ConfigurationError: Nobody says that it is meant.
    """
    if path in unmanaged or is_allowed(handler.opt, "unmanaged") or is_allowed(handler.opt, "connection"):
        return
    raise ConfigurationError(
        function_of(handler),
        f"handles {path} without connection_lifespan, so no hook runs for its connections",
        "use @listener or Listener, or pass connection_lifespan=connection_lifespan. To go without, add "
        f"{opt_out_hint('unmanaged')}, or unmanaged=[{path!r}] to Realtime(...) where a plugin registers it",
    )


def _resembles(key: str, names: list[str]) -> str | None:
    """Return the keyword that `key` may stand for: one that is alike, or one that ends in it."""
    close = get_close_matches(key, names, n=1, cutoff=0.75)
    return close[0] if close else next((name for name in names if name.endswith(f"_{key}")), None)
