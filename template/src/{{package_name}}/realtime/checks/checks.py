"""The mistakes with which the service does not start: what Litestar lets through in silence.

Each error names the function, its file and line, the mistake and the mend. Where what looks like a mistake is meant,
the handler says so, in one way, which the error shows: `opt={"allow": ["name"]}`, with the name it complains of.
"""

import collections
import collections.abc
import inspect
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

from litestar import WebSocket
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from msgspec import Struct

from ..errors import ConfigurationError, source_location
from ..internals import function_of, functions_of, lifespan_of, parameters_of
from ..sessions.info import ConnectionInfo

MUTABLE = (list, dict, set, bytearray, collections.deque)
ITERATORS = (collections.abc.AsyncGenerator, collections.abc.AsyncIterator, collections.abc.AsyncIterable)
MEND_RETURN = "annotate it -> AsyncGenerator[None, None]"
MEND_LIFESPAN = (
    "write it as\n"
    "    @asynccontextmanager\n"
    "    async def {name}(socket: Socket) -> AsyncGenerator[None, None]:\n"
    "        ...  # before the first message\n"
    "        try:\n"
    "            yield\n"
    "        finally:\n"
    "            ...  # after the last one"
)


def check_lifespan(lifespan: Callable[..., Any]) -> None:
    """Refuse what is no async context manager. Litestar answers every handshake with 403 then, and logs nothing.

    A function that returns an object with `__aenter__` and `__aexit__`, and says so, is right too.
    """
    target = _unpartial(lifespan)
    function = inspect.unwrap(target)
    where = source_location(function)
    mend = MEND_LIFESPAN.format(name=getattr(function, "__name__", "lifespan"))
    if inspect.isclass(function):
        raise ConfigurationError(
            where, "is a class, and Litestar cannot inject into one that is given as a lifespan", mend
        )
    if function is target:
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                where, "is a plain async function, and a lifespan is an async context manager", mend
            )
        if inspect.isasyncgenfunction(function):
            raise ConfigurationError(where, "is a lifespan without @asynccontextmanager", mend)
        returned = _hints(function, "lifespan").get("return")
        if not _is_subclass(get_origin(returned) or returned, AbstractAsyncContextManager):
            raise ConfigurationError(where, "is given as connection_lifespan and is no async context manager", mend)
    elif getattr(target, "__code__", None) is _SYNCHRONOUS or inspect.isgeneratorfunction(function):
        raise ConfigurationError(where, "is a synchronous context manager, and a lifespan is an asynchronous one", mend)
    elif not inspect.isasyncgenfunction(function):
        raise ConfigurationError(where, "is a lifespan without `yield`", mend)
    else:
        returned = _hints(function, "lifespan").get("return")
        if returned is None:
            raise ConfigurationError(where, "is a lifespan without a return annotation", MEND_RETURN)
        if (get_origin(returned) or returned) not in ITERATORS:
            raise ConfigurationError(
                where,
                f"is a lifespan annotated to return {_named(returned)}, and it is an async generator",
                MEND_RETURN,
            )
    check_parameters(function, "lifespan")


def check_parameters(function: Callable[..., Any], kind: str, given: Iterable[str] = ()) -> None:
    """Refuse parameters that Litestar could not inject into: without an annotation, or a `socket` that is none.

    Those that are `given` are not injected, so they need no annotation.
    """
    hints = _hints(function, kind)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} or name == "self":
            continue
        if name not in hints:
            if name in given:
                continue
            raise ConfigurationError(
                source_location(function), f"has a parameter {name!r} without an annotation", f"annotate {name}"
            )
        annotation = get_origin(hints[name]) or hints[name]
        if name == "socket" and not (annotation is Any or _is_subclass(annotation, WebSocket)):
            raise ConfigurationError(
                source_location(function),
                f"has its parameter 'socket' annotated as {_named(hints[name])}",
                "annotate it as socket: Socket, which connections exports; it is Litestar's WebSocket",
            )


def check_function(function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be a listener: synchronous, without `data`, or without annotations."""
    if not inspect.iscoroutinefunction(_unpartial(function)):
        raise ConfigurationError(
            source_location(function),
            "is a listener and not an async function; a synchronous one would take a thread for each message",
            "write `async def`, and call what blocks through asyncio.to_thread",
        )
    check_parameters(function, "listener")
    if "data" not in inspect.signature(function).parameters:
        raise ConfigurationError(
            source_location(function),
            "is a listener without a parameter 'data'",
            "add `data: Say`, annotated with the type of its messages",
        )


def check_sends(heard: Any, listener: Callable[..., Any]) -> None:
    """Refuse `sends` where it is no message, nor several with `|` between."""
    if not all(_is_subclass(kind, Struct) for kind in get_args(heard) or [heard]):
        raise ConfigurationError(
            source_location(listener),
            f"says that clients hear {_named(heard)}, which is no message",
            "name a Struct, or several with | between, as in: sends=Joined | Left",
        )


def check_hook(hook: Callable[..., Any], *arguments: str) -> None:
    """Refuse a hook that cannot be awaited, or not be called with what it is given."""
    if not inspect.iscoroutinefunction(_unpartial(hook)):
        raise ConfigurationError(source_location(hook), "is a hook and not an async function", "write `async def`")
    if arguments:
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise ConfigurationError(
                source_location(hook),
                f"cannot be called as {getattr(hook, '__name__', 'hook')}({', '.join(arguments)}): {error}",
                f"let it take exactly ({', '.join(arguments)})",
            ) from None


def check_factory(connection: Callable[[], Any]) -> None:
    """Refuse a class of the state that cannot be made without arguments, or that is no `ConnectionInfo`."""
    try:
        made = connection()
    except TypeError as error:
        raise ConfigurationError(
            source_location(connection),
            f"cannot be made for a new connection: {error}",
            "give each of its fields a default, or a field(default_factory=...)",
        ) from None
    if not isinstance(made, ConnectionInfo):
        raise ConfigurationError(
            source_location(connection),
            "is the state of a connection and no ConnectionInfo, so it has no id",
            "let it inherit: class Connection(ConnectionInfo)",
        )


def check_keywords(keywords: Iterable[str], known: Callable[..., Any], where: Callable[..., Any]) -> None:
    """Refuse keywords that a function does not have."""
    names = [name for name in inspect.signature(known).parameters if name != "unknown"]
    for keyword in keywords:
        close = get_close_matches(keyword, names, n=1)
        raise ConfigurationError(
            source_location(where),
            f"passes {keyword!r} to {known.__name__}(), which has no such keyword",
            f"did you mean {close[0]!r}?" if close else f"the keywords are {', '.join(names)}",
        )


def check_unregistered(handler: WebsocketRouteHandler) -> None:
    """Check what Litestar itself would stumble over, or swallow, when it registers a handler."""
    if lifespan := lifespan_of(handler):
        check_lifespan(lifespan)
    names = [name for name in inspect.signature(type(handler)).parameters if name not in {"opt", "kwargs", "options"}]
    for key in handler.opt or {}:
        close = _resembles(key, names)
        if close and not _allowed(handler, key):
            raise ConfigurationError(
                source_location(function_of(handler)),
                f"passes {key!r} to {type(handler).__name__}, which has no such keyword, so it ends in `opt`, unused",
                f"did you mean {close!r}? {_say_so(key)}",
            )


def check_listener_class(cls: type[WebsocketListener]) -> None:
    """Refuse a listener class with a unknown method, or with something mutable that all connections would share."""
    known = [name for parent in cls.__mro__[1:] for name in vars(parent) if not name.startswith("_")]
    allowed = (cls.opt or {}).get("allow", ())
    for name, value in vars(cls).items():
        if name.startswith("_") or name in known or name in allowed:
            continue
        if close := get_close_matches(name, known, n=1, cutoff=0.8):
            raise ConfigurationError(
                source_location(cls),
                f"has {name!r}, which nothing calls",
                f"did you mean {close[0]!r}? {_say_so(name)}",
            )
        kind = value.__class__
        if issubclass(kind, MUTABLE):
            raise ConfigurationError(
                source_location(cls),
                f"has {name!r}, a {kind.__name__} that every connection would share",
                f"make it a field of Connection in state.py, or a tuple, frozenset or Mapping if nothing changes it. "
                f"{_say_so(name)}",
            )


def check_registered(handler: BaseRouteHandler, provides_connection: Provide, *, has_connection: bool) -> None:
    """Check what is injected into a handler, its lifespan and its hooks.

    Args:
        handler: A handler that Litestar has registered.
        provides_connection: The provider of `connection`.
        has_connection: The handler lives in `connection_lifespan`.
    """
    parameters = parameters_of(handler)
    where = source_location(function_of(handler))
    is_websocket = isinstance(handler, WebsocketRouteHandler)
    if parameters.get("connection") is provides_connection and not _allowed(handler, "connection"):
        if not is_websocket:
            raise ConfigurationError(
                where, "asks for `connection` in an HTTP handler", "only a WebSocket has a Connection"
            )
        if not has_connection:
            raise ConfigurationError(
                where,
                "asks for `connection` outside connection_lifespan, so there is none",
                "use @listener, or pass connection_lifespan=connection_lifespan. If its own lifespan enters "
                f"connection_lifespan, say so: {_allow('connection')}",
            )
    if not is_websocket:
        return
    if "state" in parameters and not _allowed(handler, "state"):
        where = next(source_location(fn) for fn in functions_of(handler) if "state" in inspect.signature(fn).parameters)
        raise ConfigurationError(
            where,
            "takes `state` by injection: that is the application's state, and every connection shares it",
            "take `connection: NamedDependency[Connection]` and add a field to Connection in state.py. "
            f"{_say_so('state')}",
        )
    for name, provider in _providers(parameters, handler.resolve_dependencies()).items():
        if provider.use_cache and not _of_litestar(provider) and not _allowed(handler, name):
            raise ConfigurationError(
                where,
                f"depends on {name!r}, provided by {source_location(provider.dependency)} with use_cache=True: "
                "the first connection's value goes to every later one",
                f"leave use_cache out; one connection gets one value all the same. {_say_so(name)}",
            )


def _providers(names: Iterable[str], providers: dict[str, Provide]) -> dict[str, Provide]:
    """Follow the names through the providers to all that they depend on."""
    found: dict[str, Provide] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in providers and name not in found:
            found[name] = providers[name]
            pending += providers[name].parsed_fn_signature.parameters
    return found


def _unpartial(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _resembles(key: str, names: list[str]) -> str | None:
    """Return the keyword that somebody who wrote `key` may have meant: one alike, or one that ends in it."""
    close = get_close_matches(key, names, n=1, cutoff=0.75)
    return close[0] if close else next((name for name in names if name.endswith(f"_{key}")), None)


def _allowed(handler: BaseRouteHandler, name: str) -> bool:
    return name in (handler.opt or {}).get("allow", ())


def _allow(name: str) -> str:
    return f'opt={{"allow": ["{name}"]}}'


def _say_so(name: str) -> str:
    return f"If it is meant, say so: {_allow(name)}"


def _of_litestar(provider: Provide) -> bool:
    """Litestar's own plugins cache the plugin itself, which is no connection's."""
    return (getattr(provider.dependency, "__module__", None) or "").partition(".")[0] == "litestar"


def _hints(function: Callable[..., Any], kind: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            source_location(function),
            f"is a {kind} annotated with {error.name!r}, which does not exist at run time",
            f"import {error.name} outside of `if TYPE_CHECKING:`; Litestar reads the annotations",
        ) from None


def _named(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _is_subclass(annotation: Any, parent: type) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, parent)


@contextmanager
def _synchronous() -> Generator[None]:
    yield


_SYNCHRONOUS = getattr(_synchronous, "__code__", None)
