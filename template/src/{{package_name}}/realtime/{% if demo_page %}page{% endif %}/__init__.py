"""The live page at `/`. The template's: `copier update` improves it.

A client of the public contract and of nothing else: take `page` out of `app.py` and the service is the same without it.
There is no build step; what stands here is what the browser gets. `client.js` is made to be copied into your own pages.
"""

from pathlib import Path

from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

MEDIA_TYPES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "client.js": "text/javascript",
    "page.js": "text/javascript",
    "lifelines.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

FOLDERS = {"client.js": Path(__file__).parents[1] / "client"}
CONTENTS = {name: (FOLDERS.get(name, Path(__file__).parent) / name).read_bytes() for name in MEDIA_TYPES}


@get("/", sync_to_thread=False)
def index() -> Response[bytes]:
    """The page."""
    return _file("index.html")


@get("/page/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str]) -> Response[bytes]:
    """What the page is made of."""
    if name not in CONTENTS:
        raise NotFoundException
    return _file(name)


def _file(name: str) -> Response[bytes]:
    return Response(CONTENTS[name], media_type=MEDIA_TYPES[name])


page = Router("/", route_handlers=[index, asset], response_headers=HEADERS, include_in_schema=False)
"""The handlers, for the `route_handlers` of `app.py`."""
