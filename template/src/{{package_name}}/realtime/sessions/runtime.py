"""What the sessions of an application share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from litestar import WebSocket
from litestar.handlers import BaseRouteHandler

from ..settings import CoreSettings
from .cause import Cause
from .info import ConnectionInfo
from .metrics import Metrics
from .registry import Registry


class HookPair(NamedTuple):
    """A pair of hooks: once the first has begun, the second runs, whatever happens."""

    on_accept: Callable[[WebSocket[Any, Any, Any], Any], Awaitable[None]]
    on_disconnect: Callable[[WebSocket[Any, Any, Any], Any, Cause], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The one object that every session of an application refers to."""

    settings: CoreSettings
    make_connection: Callable[[], ConnectionInfo]
    hooks: HookPair
    """The hooks of the service, for every connection."""
    registry: Registry[Any] = field(default_factory=Registry[Any])
    metrics: Metrics = field(default_factory=Metrics)
    direct: dict[BaseRouteHandler, bool] = field(default_factory=dict[BaseRouteHandler, bool])
    """For each handler that had a connection, whether nothing stands between it and the session."""
