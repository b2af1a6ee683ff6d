"""Listeners: the function that takes a message, what `sends` names, and the attributes of a listener class."""

import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from litestar.handlers import BaseRouteHandler, WebsocketListener
from msgspec import Struct

from ..errors import ConfigurationError, source_location
from ..internals import function_of
from .opt_out import is_allowed, opt_out_hint
from .parameters import check_parameters, is_subclass, name_of, resolve_hints, unwrap_partial

STREAMS = (AsyncGenerator, AsyncIterator, AsyncIterable)
MUTABLE = (list, dict, set, bytearray, deque)


def check_listener_function(function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be a listener: synchronous, without `data`, or without annotations.

    Raises:
        ConfigurationError: The function is wrong.
    """
    target = unwrap_partial(function)
    if inspect.isasyncgenfunction(target):
        returned = resolve_hints(function, "listener").get("return")
        if get_origin(returned) not in STREAMS:
            raise ConfigurationError(
                source_location(function),
                "is a listener that yields without saying what",
                "annotate it with the messages, as in: -> AsyncGenerator[Token, None]",
            )
    elif not inspect.iscoroutinefunction(target):
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


def check_concurrency(concurrency: int, listener: Callable[..., Any]) -> None:
    """Refuse a concurrency that is no positive number, or that of a function that yields.

    Raises:
        ConfigurationError: It is wrong.
    """
    if concurrency < 1:
        raise ConfigurationError(source_location(listener), f"has concurrency={concurrency}", "give it 1 or more")
    if concurrency > 1 and inspect.isasyncgenfunction(unwrap_partial(listener)):
        raise ConfigurationError(
            source_location(listener),
            f"yields and has concurrency={concurrency}; streams run side by side as they are",
            "leave concurrency out; the setting MAX_STREAMS bounds the streams of a connection",
        )


def check_sends(sends: Any, listener: Callable[..., Any]) -> None:
    """Refuse `sends` unless it is a Struct, or several with `|` between.

    Raises:
        ConfigurationError: It is something else.
    """
    if not all(is_subclass(kind, Struct) for kind in get_args(sends) or [sends]):
        raise ConfigurationError(
            source_location(listener),
            f"has sends={name_of(sends)}, which is not a message",
            "name a Struct, or several with | between, as in: sends=Joined | Left",
        )


def check_listener_class(handler: BaseRouteHandler) -> None:
    """Refuse a listener class with a misspelt method, or with something mutable that all connections would share.

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
                source_location(value if is_method else cls),
                "is never called" if is_method else f"has {name!r}, which is never read",
                f"rename it to {close[0]}, or keep the name with {opt_out_hint(name)}",
            )
        kind = value.__class__
        if issubclass(kind, MUTABLE):
            raise ConfigurationError(
                source_location(cls),
                f"has {name!r}, a {kind.__name__} that every connection would share",
                "make it a field of Connection in state.py, or a tuple, frozenset or Mapping if nothing changes it, "
                f"or keep it with {opt_out_hint(name)}",
            )
