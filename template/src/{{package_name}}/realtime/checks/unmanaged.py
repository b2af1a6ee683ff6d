"""WebSocket handlers without `connection_lifespan`: for their connections no hook runs."""

from collections.abc import Collection

from litestar.handlers import BaseRouteHandler

from ..errors import ConfigurationError, source_location
from ..internals import function_of
from .opt_out import is_allowed, opt_out_hint


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
        source_location(function_of(handler)),
        f"handles {path} without connection_lifespan, so no hook runs for its connections",
        "use @listener, or pass connection_lifespan=connection_lifespan. To go without, add "
        f"{opt_out_hint('unmanaged')}, or unmanaged=[{path!r}] to Realtime(...) where a plugin registers it",
    )
