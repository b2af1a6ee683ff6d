"""Checks of one definition: a listener with its options and scopes, a hook, a lifespan, `Connection`."""

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args, get_origin, get_type_hints

from litestar import WebSocket
from litestar.constants import RESERVED_KWARGS
from msgspec import Struct

from ..errors import ConfigurationError, innermost
from ..sessions.info import ConnectionInfo

HOOKS = {"on_accept": ("socket", "connection"), "on_disconnect": ("socket", "connection", "cause")}
"""The hooks of the service, each with the names of its arguments."""

OPTIONAL_HOOKS = {"on_authenticated": ("socket", "connection")}
"""The hooks that a service may omit."""

ABSENT = {
    "listener": {"request", "body"},
    "scope": {"request", "body"},
    "on_accept": {"request", "body", "data", "cause"},
    "on_disconnect": {"request", "body", "data"},
    "lifespan": {"request", "body", "data", "cause"},
}
"""Parameters that are not available in a WebSocket's functions, by the kind of function."""

ITERATORS = (AsyncGenerator, AsyncIterator, AsyncIterable)
FIX_RETURN = "annotate it -> AsyncGenerator[None, None]"
FIX_LIFESPAN = (
    "write it as\n"
    "    @asynccontextmanager\n"
    "    async def {name}(socket: Socket) -> AsyncGenerator[None, None]:\n"
    "        ...  # before the first message\n"
    "        try:\n"
    "            yield\n"
    "        finally:\n"
    "            ...  # after the last one"
)


def check_listener_function(function: Callable[..., Any], concurrency: Any, sends: Any) -> None:
    """Refuse a function that cannot be a listener: a partial, synchronous, without `data`, or not annotated.

    Args:
        function: The function.
        concurrency: Its option `concurrency`: at least 1, and exactly 1 for a function that yields.
        sends: Its option `sends`: None, a Struct, or a union of Structs.

    Raises:
        ConfigurationError: The function or one of its two options is wrong.
    """
    if isinstance(function, partial):
        raise ConfigurationError(
            function,
            "is passed to listener() as a functools.partial, which has no name and no docstring",
            "write an `async def` that calls it",
        )
    if inspect.isasyncgenfunction(function):
        returned = resolve_hints(function).get("return")
        if get_origin(returned) not in ITERATORS or not get_args(returned):
            raise ConfigurationError(
                function,
                "is a listener that yields messages without an annotation of their type",
                "annotate what it returns, for example: -> AsyncGenerator[Token, None]",
            )
    elif not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            function,
            "is a listener but not an async function; a synchronous function would need a thread for each message",
            "declare it with `async def`, and call blocking code with asyncio.to_thread",
        )
    check_parameters(function, "listener")
    if "data" not in inspect.signature(function).parameters:
        raise ConfigurationError(
            function,
            "is a listener without a parameter 'data'",
            "add a parameter such as `data: Say`, annotated with the type of its messages",
        )
    if type(concurrency) is not int or concurrency < 1:  # True is an int too
        raise ConfigurationError(function, f"has concurrency={concurrency!r}", "set it to an integer of at least 1")
    if concurrency > 1 and inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            function,
            f"yields and has concurrency={concurrency}, but streams always run concurrently",
            "remove concurrency; the setting MAX_STREAMS limits the streams of a connection",
        )
    if sends is not None and not all(is_subclass(kind, Struct) for kind in get_args(sends) or [sends]):
        raise ConfigurationError(
            function,
            f"has sends={name_of(sends)}, which is not a message",
            "pass a Struct or a union of Structs, for example: sends=Joined | Left",
        )


def check_keywords(keywords: Collection[str], known: Collection[str], function: Callable[..., Any]) -> None:
    """Refuse keywords that `@listener` does not have.

    Args:
        keywords: The keywords in the call.
        known: The keywords of `@listener`.
        function: The decorated function.

    Raises:
        ConfigurationError: A keyword is unknown.
    """
    for keyword in keywords:
        if keyword not in known:
            close = get_close_matches(keyword, known, n=1)
            raise ConfigurationError(
                function,
                f"passes {keyword!r} to listener(), which has no such keyword",
                f"write {close[0]!r}" if close else f"the keywords are {', '.join(known)}",
            )


def order_scopes(function: Callable[..., Any], scopes: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return the names of scopes in an order in which they can be entered.

    Raises:
        ConfigurationError: A scope is not an async generator function, has no name or a reserved one, or depends on
            itself.
    """
    if not hasattr(scopes, "items"):
        raise ConfigurationError(
            function,
            f"has a {type(scopes).__name__} as per_message",
            'pass a dict that maps parameter names to scopes, for example per_message={"session": session}',
        )
    for name, factory in scopes.items():
        if not inspect.isasyncgenfunction(inspect.unwrap(factory)) or inspect.iscoroutinefunction(factory):
            raise ConfigurationError(
                factory,
                f"is passed as per_message={{{name!r}: ...}} but is not an async generator function",
                f"write `async def {getattr(factory, '__name__', name)}() -> AsyncGenerator[...]`, with one `yield`",
            )
        check_parameters(factory, "scope")
        if name in {"data", "connection", *RESERVED_KWARGS}:
            mistake = f"has per_message={{{name!r}: ...}}, but this name is reserved"
            raise ConfigurationError(function, mistake, "rename the scope")
    needs = {name: inspect.signature(factory).parameters.keys() & scopes.keys() for name, factory in scopes.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ConfigurationError(
            function,
            f"has per_message scopes that depend on each other: {' -> '.join(error.args[1])}",
            "remove one of these dependencies",
        ) from None


def check_connection_class(connection: Callable[[], Any]) -> None:
    """Refuse a class that cannot be called without arguments, or that does not inherit from `ConnectionInfo`.

    Attributes that hide one of `ConnectionInfo`, and defaults that all connections would share, are refused too.

    Raises:
        ConfigurationError: The class is wrong.
    """
    try:
        instance = connection()
    except TypeError as error:
        raise ConfigurationError(
            connection,
            f"cannot be created for a new connection: {error}",
            "give every field a default or a default_factory",
        ) from None
    if not isinstance(instance, ConnectionInfo) or not hasattr(instance, "id"):
        raise ConfigurationError(
            connection,
            "is the state of a connection but has no id, which ConnectionInfo sets",
            "inherit from ConnectionInfo, and call super().__init__() if the class has an __init__ of its own",
        )
    for cls in type(instance).__mro__[: type(instance).__mro__.index(ConnectionInfo)]:
        values: Mapping[str, Any] = vars(cls)
        if "__init__" in values:  # a dataclass; without it, the values are attributes of the class only
            values = {each.name: each.default for each in fields(cls) if each not in fields(ConnectionInfo)}
        for name in [each for each in {**vars(cls), **values} if not each.startswith("__")]:
            if hasattr(ConnectionInfo, name):
                raise ConfigurationError(
                    connection, f"has {name!r}, which hides the attribute of ConnectionInfo", "rename it"
                )
            if name in values and _is_mutable(values[name]):
                raise ConfigurationError(
                    cls,
                    f"has {name!r}, a {type(values[name]).__name__} that every connection would share",
                    "declare it with field(default_factory=...) in a @dataclass, or annotate it as a ClassVar if "
                    "connections are to share it",
                )


def _is_mutable(value: Any) -> bool:
    """Return whether a default can change: it is unhashable, or has attributes and is equal only to itself."""
    kind: Any = value.__class__
    if value is MISSING or callable(value) or hasattr(value, "__get__"):
        return False
    try:
        hash(value)
    except TypeError:
        return True
    return kind is Field or (kind.__hash__ is object.__hash__ and hasattr(value, "__dict__"))


def nearest_method(name: str, known: Collection[str]) -> str | None:
    """Return the method that a name resembles. `on_connect` stands for `on_accept`, not for `on_disconnect`."""
    close = get_close_matches(name, [*known, "on_connect"], n=1, cutoff=0.8)
    return close[0].replace("on_connect", "on_accept") if close else None


def check_hooks(hooks: Any) -> None:
    """Refuse hooks of the service that are missing, misspelled, or cannot be called.

    Args:
        hooks: The module or the object that holds them.

    Raises:
        ConfigurationError: A hook is wrong.
    """
    known = HOOKS | OPTIONAL_HOOKS
    for name, function in inspect.getmembers(hooks, inspect.isroutine):
        is_imported = inspect.ismodule(hooks) and function.__module__ != hooks.__name__
        if name in known or name.startswith("_") or is_imported:
            continue
        if close := nearest_method(name, known):
            raise ConfigurationError(
                function,
                "is never called",
                f"rename it to {close}, or begin its name with an underscore; the hooks are {', '.join(known)}",
            )
    for name, arguments in known.items():
        hook = getattr(hooks, name, None)
        if hook is None and name in OPTIONAL_HOOKS:
            continue
        if not callable(hook):
            fix = f"add `async def {name}({', '.join(arguments)}) -> None: ...`"
            raise ConfigurationError(hooks, f"has no function {name}", fix)
        check_hook(hook, *arguments)


def check_hook(hook: Callable[..., Any], *arguments: str) -> None:
    """Refuse a hook that is not an async function, or that does not take the arguments of its call.

    Args:
        hook: The function.
        arguments: The names of the positional arguments, where they are fixed.

    Raises:
        ConfigurationError: The hook is wrong.
    """
    if not inspect.iscoroutinefunction(hook):
        raise ConfigurationError(hook, "is a hook but not an async function", "declare it with `async def`")
    if arguments:
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise ConfigurationError(
                hook,
                f"cannot be called as {getattr(hook, '__name__', 'hook')}({', '.join(arguments)}): {error}",
                f"declare exactly the parameters ({', '.join(arguments)})",
            ) from None


def check_ready(function: Callable[..., Any]) -> None:
    """Refuse a function for `/ready` that is not async, or that takes an argument.

    Raises:
        ConfigurationError: The function is wrong.
    """
    try:
        is_right = inspect.iscoroutinefunction(function) and inspect.signature(function).bind()
    except TypeError:
        is_right = False
    if not is_right:
        raise ConfigurationError(
            function,
            "is passed in ready= but is not an async function without parameters",
            "declare it with `async def` and without parameters; raise an exception while the service is not ready",
        )


def check_list(name: str, value: Any, kind: type, example: str) -> tuple[Any, ...]:
    """Refuse an argument of `Realtime` that is not a list, or has a wrong member.

    Args:
        name: The name of the argument.
        value: The argument.
        kind: The type of its members.
        example: A right argument, for the error.

    Returns:
        The members.

    Raises:
        ConfigurationError: The argument is wrong.
    """
    is_list = is_subclass(type(value), Iterable) and not isinstance(value, str)
    members: tuple[Any, ...] = tuple(value) if is_list else ()
    if not is_list or not all(isinstance(each, kind) for each in members):
        raise ConfigurationError("Realtime(...)", f"is called with {name}={value!r}", f"pass a list, as in {example}")
    return members


def check_lifespan(lifespan: Callable[..., Any]) -> None:
    """Refuse a lifespan that is not an async context manager.

    A function annotated to return an object with `__aenter__` and `__aexit__` is accepted too.

    Raises:
        ConfigurationError: It is not an async context manager, or Litestar cannot inject into it.
    """
    target: Any = lifespan
    while isinstance(target, partial):
        target = target.func
    if is_subclass(type(target), AbstractAsyncContextManager):
        raise ConfigurationError(
            getattr(target, "func", target),
            "is called where it is passed as a lifespan, so all connections would share one context manager",
            "pass the function itself; it is called for each connection",
        )
    function = inspect.unwrap(target)
    if mistake := _mistake_in(target, function):
        fix = FIX_LIFESPAN.format(name=getattr(function, "__name__", "lifespan"))
        raise ConfigurationError(function, mistake, fix)
    if function is not target:
        _check_return_annotation(function)
    check_parameters(lifespan, "lifespan")


def _mistake_in(target: Any, function: Any) -> str | None:
    """Return the mistake in a lifespan, or None; `function` is the decorated function or the lifespan itself."""
    if inspect.isclass(function):
        return "is a class, but Litestar cannot inject into a class that is passed as a lifespan"
    if function is target:
        if inspect.iscoroutinefunction(function):
            return "is a plain async function, but a lifespan must be an async context manager"
        if inspect.isasyncgenfunction(function):
            return "is a lifespan without @asynccontextmanager"
        returned = inspect.isroutine(function) and resolve_hints(function).get("return")
        if not is_subclass(get_origin(returned) or returned, AbstractAsyncContextManager):
            return "is passed as connection_lifespan but is not an async context manager"
    elif getattr(target, "__code__", None) is _SYNCHRONOUS or inspect.isgeneratorfunction(function):
        return "is a synchronous context manager, but a lifespan must be an async one"
    elif not inspect.isasyncgenfunction(function):
        return "is a lifespan without `yield`"
    return None


def _check_return_annotation(function: Callable[..., Any]) -> None:
    returned = resolve_hints(function).get("return")
    if returned is None:
        raise ConfigurationError(function, "is a lifespan without a return annotation", FIX_RETURN)
    if (get_origin(returned) or returned) not in ITERATORS:
        raise ConfigurationError(
            function, f"is a lifespan annotated to return {name_of(returned)}, but it is an async generator", FIX_RETURN
        )


def check_parameters(function: Callable[..., Any], kind: str, passed: Collection[str] = ()) -> None:
    """Refuse parameters that cannot be injected: not annotated, positional-only, or a `socket` of another type.

    Args:
        function: The function whose parameters are checked.
        kind: What the function is, for the error: a key of ABSENT.
        passed: Names of parameters that this framework passes itself. They need no annotation.

    Raises:
        ConfigurationError: A parameter is wrong.
    """
    hints = resolve_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if (name, kind) == ("self", "listener"):
            continue
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ConfigurationError(
                function,
                f"has a parameter {name!r} that cannot be passed by keyword",
                "declare it without `*` and `/`; if a decorator adds it, use functools.wraps in the decorator",
            )
        if name not in hints:
            if name in passed:
                continue
            raise ConfigurationError(function, f"has a parameter {name!r} without an annotation", f"annotate {name}")
        if name in ABSENT[kind]:
            raise ConfigurationError(
                function,
                f"has a parameter {name!r}, which is not available in the {kind} of a WebSocket",
                "remove it; `socket: Socket` has the data of the handshake",
            )
        annotation = get_origin(hints[name]) or hints[name]
        if name == "socket" and not (annotation is Any or is_subclass(annotation, WebSocket)):
            raise ConfigurationError(
                function,
                f"has a parameter 'socket' annotated as {name_of(hints[name])}",
                "annotate it as socket: Socket, imported from realtime; Socket is a WebSocket of Litestar",
            )


def resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function.

    Raises:
        ConfigurationError: An annotation uses a name that exists only for type checkers.
    """
    try:
        return get_type_hints(innermost(function), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            function,
            f"is annotated with {error.name!r}, which does not exist at run time",
            f"import {error.name} outside `if TYPE_CHECKING:`; Litestar reads annotations at run time",
        ) from None


def is_subclass(annotation: Any, parent: type) -> bool:
    """Return whether an annotation is a class that inherits from `parent`."""
    return inspect.isclass(annotation) and issubclass(annotation, parent)


def name_of(annotation: Any) -> str:
    """Return the name of an annotation for an error message."""
    return getattr(annotation, "__name__", None) or str(annotation)


@contextmanager
def _synchronous() -> Generator[None]:
    yield


_SYNCHRONOUS = getattr(_synchronous, "__code__", None)
"""The code object that all functions under `@contextmanager` share."""
