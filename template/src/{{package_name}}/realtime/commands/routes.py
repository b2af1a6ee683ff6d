"""List each path with its handler, messages, query parameters and guards; and the limits of every connection.

The messages are those that the handler takes, answers with, and sends in addition.
"""

import argparse
import sys
from collections.abc import Iterable
from typing import Any, Final, cast

from litestar.routes import WebSocketRoute

from ..handlers.listener import ListenerRouteHandler
from ..handlers.messages import OWN_MESSAGES
from ..internals import function_of, query_of
from ..parts import load_app, load_settings

LIMITS: Final = ("max_message_size", "max_messages_per_second", "message_burst", "max_streams", "max_connections")


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add no arguments: the command has none."""


def run(_: argparse.Namespace) -> None:
    """Write the list.

    Raises:
        ConfigurationError: A setting is wrong, or the application does not start.
    """
    settings = load_settings()
    routes = [route for route in load_app(settings).routes if isinstance(route, WebSocketRoute)]
    for route in sorted(routes, key=lambda route: route.path_format):
        sys.stdout.write(f"{route.path_format}\n")
        for name, value in _describe(route).items():
            if value:
                sys.stdout.write(f"  {name:<8} {value}\n")
    limits = ", ".join(f"{name.upper()} {getattr(settings, name)}" for name in LIMITS)
    sys.stdout.write(f"\nLimits: {limits}\n")


def _describe(route: WebSocketRoute) -> dict[str, str]:
    """Return the description of a path, by label."""
    handler = route.route_handler
    function = function_of(handler)
    described = {"handler": f"{function.__module__}.{function.__qualname__}"}
    if isinstance(handler, ListenerRouteHandler):
        answers = handler.answer_types()
        besides = [kind for kind in handler.sent_types() if kind not in answers and kind.annotation not in OWN_MESSAGES]
        described["takes"] = _names(kind.annotation for kind in handler.taken_types())
        described["streams" if handler.streams else "answers"] = _names(kind.annotation for kind in answers)
        described["sends"] = _names(kind.annotation for kind in besides)
    described["query"] = ", ".join(name for name, _, _ in query_of(route))
    described["guards"] = _names(cast("Any", handler).resolve_guards())
    return described


def _names(things: Iterable[Any]) -> str:
    return ", ".join(getattr(thing, "__name__", type(thing).__name__) for thing in things)
