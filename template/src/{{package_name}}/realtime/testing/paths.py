"""A path for each listener of an application, whichever its user has written."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Litestar
from litestar.routes import WebSocketRoute

from ..handlers.route_handler import ListenerRouteHandler
from ..internals import lifespan_of, query_of
from ..sessions.lifespan import connection_lifespan

EXAMPLES: dict[Any, str] = {
    str: "example",
    int: "1",
    float: "1.5",
    bool: "true",
    Decimal: "1.5",
    UUID: "00000000-0000-4000-8000-000000000001",
    Path: "example",
    date: "2000-01-01",
    datetime: "2000-01-01T00:00:00",
    time: "00:00:00",
    timedelta: "P1D",
}
"""A value of each type that a path parameter may have; of any other type, a query parameter is given that of `str`."""


def example_paths(app: Litestar) -> list[str]:
    """Return a path for each listener, with examples in place of its parameters, those that its query must have too."""
    paths: list[str] = []
    for route in app.routes:
        if not isinstance(route, WebSocketRoute):
            continue
        handler = route.route_handler
        if isinstance(handler, ListenerRouteHandler) or lifespan_of(handler) is connection_lifespan:
            parts = {name: EXAMPLES[each.type] for name, each in route.path_parameters.items()}
            query = {
                name: EXAMPLES.get(field.annotation, EXAMPLES[str])
                for name, field, is_required in query_of(route)
                if is_required
            }
            paths.append(route.path_format.format_map(parts) + ("?" + urlencode(query) if query else ""))
    return paths
