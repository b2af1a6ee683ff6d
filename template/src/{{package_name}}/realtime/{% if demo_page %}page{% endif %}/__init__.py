"""The live page at `/`: a client like any other, which shows connections at work.

There is no build step: the browser gets the files of this folder, and `client.js` of the folder `client/`.
"""

from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

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
DOCUMENTATION: Final = b'<a href="asyncapi">Messages</a>'


@get("/", sync_to_thread=False)
def index(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The page, without the link to a documentation that the application does not have."""
    content = CONTENTS["index.html"]
    if all(route.path != "/asyncapi" for route in request.app.routes):
        content = content.replace(DOCUMENTATION, b"")
    return Response(content, media_type="text/html")


@get("/page/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str]) -> Response[bytes]:
    """A file of the page."""
    if name not in CONTENTS:
        raise NotFoundException
    return Response(CONTENTS[name], media_type=MEDIA_TYPES[name])


page = Router("/", route_handlers=[index, asset], response_headers=HEADERS, include_in_schema=False)
"""The handlers of the page."""
