"""What is called around messages: the class `Connection`, hooks, lifespans, and the functions that `/ready` awaits."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, get_origin

from ..errors import ConfigurationError
from ..sessions.info import ConnectionInfo
from .injection import check_parameters, is_subclass, name_of, resolve_hints

HOOKS = {"on_accept": ("socket", "connection"), "on_disconnect": ("socket", "connection", "cause")}
"""The hooks of the service, each with what it is called with."""

OPTIONAL_HOOKS = {"on_authenticated": ("socket", "connection")}
"""Those that a service need not have."""

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


def check_connection_class(connection: Callable[[], Any]) -> None:
    """Refuse a class that cannot be called without arguments, or that does not inherit from `ConnectionInfo`.

    Raises:
        ConfigurationError: The class is wrong.
    """
    try:
        instance = connection()
    except TypeError as error:
        raise ConfigurationError(
            connection,
            f"cannot be made for a new connection: {error}",
            "give each of its fields a default, or a field(default_factory=...)",
        ) from None
    if not isinstance(instance, ConnectionInfo):
        raise ConfigurationError(
            connection,
            "is the state of a connection and not a ConnectionInfo, so it has no id",
            "let it inherit: class Connection(ConnectionInfo)",
        )
    for cls in type(instance).__mro__[: type(instance).__mro__.index(ConnectionInfo)]:
        for name in [*inspect.get_annotations(cls), *vars(cls)]:
            if not name.startswith("_") and hasattr(ConnectionInfo, name):
                raise ConfigurationError(
                    connection, f"has {name!r}, which hides what every connection has under that name", "rename it"
                )


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
        if close := get_close_matches(name, known, n=1, cutoff=0.8):
            raise ConfigurationError(
                function,
                "is never called",
                f"rename it to {close[0]}, or begin its name with an underscore; the hooks are {', '.join(known)}",
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
    """Refuse a hook that is not an async function, or that cannot be called with what it is given.

    Args:
        hook: The function.
        arguments: The names of the positional arguments, where they are fixed.

    Raises:
        ConfigurationError: The hook is wrong.
    """
    if not inspect.iscoroutinefunction(hook):
        raise ConfigurationError(hook, "is a hook and not an async function", "write `async def`")
    if arguments:
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise ConfigurationError(
                hook,
                f"cannot be called as {getattr(hook, '__name__', 'hook')}({', '.join(arguments)}): {error}",
                f"let it take exactly ({', '.join(arguments)})",
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
            "is given as ready= and is not an async function without arguments",
            "write `async def`, without parameters; let it raise while the service is not ready",
        )


def check_lifespan(lifespan: Callable[..., Any]) -> None:
    """Refuse a lifespan that is not an async context manager.

    A function that is annotated to return an object with `__aenter__` and `__aexit__` is right too.

    Raises:
        ConfigurationError: The lifespan is something else, or Litestar cannot inject into it.
    """
    target: Any = lifespan
    while isinstance(target, partial):
        target = target.func
    function = inspect.unwrap(target)
    if mistake := _mistake_in(target, function):
        fix = FIX_LIFESPAN.format(name=getattr(function, "__name__", "lifespan"))
        raise ConfigurationError(function, mistake, fix)
    if function is not target:
        _check_return_annotation(function)
    check_parameters(function, "lifespan")


def _mistake_in(target: Any, function: Any) -> str | None:
    """Say what is wrong with a lifespan, where `function` is what it decorates, or itself."""
    if inspect.isclass(function):
        return "is a class, and Litestar cannot inject into a class that is given as a lifespan"
    if function is target:
        if inspect.iscoroutinefunction(function):
            return "is a plain async function, and a lifespan is an async context manager"
        if inspect.isasyncgenfunction(function):
            return "is a lifespan without @asynccontextmanager"
        returned = resolve_hints(function, "lifespan").get("return")
        if not is_subclass(get_origin(returned) or returned, AbstractAsyncContextManager):
            return "is given as connection_lifespan and is not an async context manager"
    elif getattr(target, "__code__", None) is _SYNCHRONOUS or inspect.isgeneratorfunction(function):
        return "is a synchronous context manager, and a lifespan is an asynchronous one"
    elif not inspect.isasyncgenfunction(function):
        return "is a lifespan without `yield`"
    return None


def _check_return_annotation(function: Callable[..., Any]) -> None:
    returned = resolve_hints(function, "lifespan").get("return")
    if returned is None:
        raise ConfigurationError(function, "is a lifespan without a return annotation", FIX_RETURN)
    if (get_origin(returned) or returned) not in ITERATORS:
        raise ConfigurationError(
            function, f"is a lifespan annotated to return {name_of(returned)}, and it is an async generator", FIX_RETURN
        )


@contextmanager
def _synchronous() -> Generator[None]:
    yield


_SYNCHRONOUS = getattr(_synchronous, "__code__", None)
"""The code of every function under `@contextmanager`."""
