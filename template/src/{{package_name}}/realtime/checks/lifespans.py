"""The lifespan of a listener: an async context manager. With anything else Litestar answers each handshake with 403."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, get_origin

from ..errors import ConfigurationError, source_location
from .injection import check_parameters, is_subclass, name_of, resolve_hints

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
        raise ConfigurationError(source_location(function), mistake, fix)
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
        raise ConfigurationError(source_location(function), "is a lifespan without a return annotation", FIX_RETURN)
    if (get_origin(returned) or returned) not in ITERATORS:
        raise ConfigurationError(
            source_location(function),
            f"is a lifespan annotated to return {name_of(returned)}, and it is an async generator",
            FIX_RETURN,
        )


@contextmanager
def _synchronous() -> Generator[None]:
    yield


_SYNCHRONOUS = getattr(_synchronous, "__code__", None)
"""The code of every function under `@contextmanager`."""
