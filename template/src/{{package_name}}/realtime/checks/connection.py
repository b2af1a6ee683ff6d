"""The class `Connection`, of which each connection gets an instance of its own."""

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError, source_location
from ..sessions.info import ConnectionInfo


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
