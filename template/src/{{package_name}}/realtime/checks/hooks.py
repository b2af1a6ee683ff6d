"""What `Realtime` is given: the class `Connection`, the hooks, and the functions that `/ready` awaits."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from ..errors import ConfigurationError, source_location
from ..sessions.info import ConnectionInfo

HOOKS = {"on_accept": ("socket", "connection"), "on_disconnect": ("socket", "connection", "cause")}
"""The hooks of the service, each with what it is called with."""

OPTIONAL_HOOKS = {"on_authenticated": ("socket", "connection")}
"""Those that a service need not have."""


def check_connection_class(connection: Callable[[], Any]) -> None:
    """Refuse a class that cannot be called without arguments, or that does not inherit from `ConnectionInfo`.

    Raises:
        ConfigurationError: The class is wrong.
    """
    try:
        instance = connection()
    except TypeError as error:
        raise ConfigurationError(
            source_location(connection),
            f"cannot be made for a new connection: {error}",
            "give each of its fields a default, or a field(default_factory=...)",
        ) from None
    if not isinstance(instance, ConnectionInfo):
        raise ConfigurationError(
            source_location(connection),
            "is the state of a connection and not a ConnectionInfo, so it has no id",
            "let it inherit: class Connection(ConnectionInfo)",
        )
    for cls in type(instance).__mro__[: type(instance).__mro__.index(ConnectionInfo)]:
        for name in [*inspect.get_annotations(cls), *vars(cls)]:
            if not name.startswith("_") and hasattr(ConnectionInfo, name):
                raise ConfigurationError(
                    source_location(connection),
                    f"has {name!r}, which hides what every connection has under that name",
                    "rename it",
                )


def check_hooks(hooks: Any) -> None:
    """Refuse hooks of the service that are missing, misspelt, or cannot be called.

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
                source_location(function),
                "is never called",
                f"rename it to {close[0]}, or begin its name with an underscore; the hooks are {', '.join(known)}",
            )
    for name, arguments in known.items():
        hook = getattr(hooks, name, None)
        if hook is None and name in OPTIONAL_HOOKS:
            continue
        if not callable(hook):
            fix = f"add `async def {name}({', '.join(arguments)}) -> None: ...`"
            raise ConfigurationError(source_location(hooks), f"has no function {name}", fix)
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
            source_location(function),
            "is given as ready= and is not an async function without arguments",
            "write `async def`, without parameters; let it raise while the service is not ready",
        )
