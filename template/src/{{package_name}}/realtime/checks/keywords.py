"""Misspelt keywords. Litestar puts what it does not know into `opt`, in silence."""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from litestar.handlers.websocket_handlers import WebsocketRouteHandler

from ..errors import ConfigurationError, source_location
from ..internals import function_of
from .opt_out import is_allowed, opt_out_hint


def check_keywords(keywords: Iterable[str], known: Callable[..., Any], where: Callable[..., Any]) -> None:
    """Refuse keywords that a function of this folder does not have.

    Args:
        keywords: The unknown keywords that it was called with.
        known: The function.
        where: What the error points at: the function that is decorated.

    Raises:
        ConfigurationError: There is such a keyword.
    """
    names = [name for name in inspect.signature(known).parameters if name != "unknown"]
    for keyword in keywords:
        close = get_close_matches(keyword, names, n=1)
        raise ConfigurationError(
            source_location(where),
            f"passes {keyword!r} to {known.__name__}(), which has no such keyword",
            f"did you mean {close[0]!r}?" if close else f"the keywords are {', '.join(names)}",
        )


def check_options(handler: WebsocketRouteHandler) -> None:
    """Refuse a key in `opt` that looks like a misspelt keyword of the decorator.

    Args:
        handler: A handler before Litestar registers it, which adds the keys of the routers around it to `opt`.

    Raises:
        ConfigurationError: There is such a key.
    """
    names = [name for name in inspect.signature(type(handler)).parameters if name not in {"opt", "kwargs", "options"}]
    for key in handler.opt or {}:
        close = _resembles(key, names)
        if close and not is_allowed(handler.opt, key):
            raise ConfigurationError(
                source_location(function_of(handler)),
                f"passes {key!r} to {type(handler).__name__}, which has no such keyword, so it ends in `opt`, unused",
                f"did you mean {close!r}? To keep the key, add {opt_out_hint(key)}",
            )


def _resembles(key: str, names: list[str]) -> str | None:
    """Return the keyword that `key` may stand for: one that is alike, or one that ends in it."""
    close = get_close_matches(key, names, n=1, cutoff=0.75)
    return close[0] if close else next((name for name in names if name.endswith(f"_{key}")), None)
