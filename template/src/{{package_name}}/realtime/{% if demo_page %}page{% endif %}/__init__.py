"""The live page at `/`: an ordinary client, which shows how connections work.

There is no build step: the browser loads the files of this folder, and `client.js` from `client/`.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from litestar import Litestar, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import inspect

from ..handlers.listener import listener_routes

MEDIA_TYPES: Final = {
    "index.html": "text/html",
    "style.css": "text/css",
    "client.js": "text/javascript",
    "page.js": "text/javascript",
    "timeline.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

FOLDERS: Final = {"client.js": Path(__file__).parents[1] / "client"}
CONTENTS: Final = {name: (FOLDERS.get(name, Path(__file__).parent) / name).read_bytes() for name in MEDIA_TYPES}
OPTIONAL: Final = {
    "/asyncapi": re.compile(r'\n *<a href="asyncapi">.*?</a>'),
    "/logout": re.compile(r'\n *<form id="token-form">.*?</form>', re.DOTALL),
}
"""The parts of the page that are left out if the application does not have the path."""


@get("/", sync_to_thread=False)
def index(request: Request[Any, Any, Any]) -> Response[str]:
    """Return the page, with the title of the service, and without optional parts whose path is missing."""
    content = CONTENTS["index.html"].decode()
    paths = {route.path for route in request.app.routes}
    for path, part in OPTIONAL.items():
        if path not in paths:
            content = part.sub("", content)
    if config := request.app.openapi_config:
        content = content.replace("Live connections", html.escape(config.title))
    return Response(content, media_type="text/html")


@get("/page/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str]) -> Response[bytes]:
    """Return a file of the page."""
    if name not in CONTENTS:
        raise NotFoundException
    return Response(CONTENTS[name], media_type=MEDIA_TYPES[name])


@get("/page/streams", sync_to_thread=False)
def streams(request: Request[Any, Any, Any]) -> list[dict[str, Any]]:
    """Return the listeners for which the page shows cards: those that stream, and whose message is one text."""
    return list(_streams(request.app))


def _streams(app: Litestar) -> Iterator[dict[str, Any]]:
    """Yield the path of each listener, and its message."""
    for route, handler in listener_routes(app):
        if handler.streams and not route.path_parameters:
            for kind in handler.received_types():
                if text := _only_text(inspect.type_info(kind.raw)):
                    yield {"path": route.path.lstrip("/"), **text}
                    break


def _only_text(message: inspect.Type) -> dict[str, Any] | None:
    """Return the message without its text, and the field of the text; None if another field is required."""
    if not isinstance(message, inspect.StructType):
        return None
    required = [field for field in message.fields if field.required]
    if len(required) != 1 or not isinstance(required[0].type, inspect.StrType):
        return None
    return {"message": {message.tag_field: message.tag} if message.tag_field else {}, "field": required[0].encode_name}


page = Router("/", route_handlers=[index, asset, streams], response_headers=HEADERS, include_in_schema=False)
"""The handlers of the page."""
