"""`Documentation`: the plugin through which `app.py` gives Litestar the page and the document at /asyncapi.

litestar-asyncapi finds the paths and writes the schemas. What it cannot see is told to it, by its own means: the names,
docstrings and examples of the messages, what else is heard on a path, the query, the close codes, and who may connect.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Litestar
from litestar_asyncapi import AsyncAPIConfig, AsyncAPIPlugin
from litestar_asyncapi.spec import AsyncAPI, Components, SecurityScheme, Server, ServerVariable

from ..sessions.cause import CLOSE_CODES
from .channels import describe, listener_routes

DESCRIPTION = """\
Messages are JSON, and each says by its `type` what it is. One that is not understood is answered by an error; no
handler sees it, and the connection stays open.

A handshake that is refused is answered by an HTTP status: {statuses}403 for a page of another origin, 429 for too many
connections of one client, 503 where the service is full or about to stop.

## Close codes

| code | who closes | why | come back? |
|---|---|---|---|
{codes}
"""

SERVER = Server(
    host="{host}",
    protocol="ws",
    description="Where it serves. Behind a proxy with TLS, the protocol is wss and the host is the proxy's.",
    variables={"host": ServerVariable(default="127.0.0.1:8000")},
)


class Documentation(AsyncAPIPlugin):
    """The page and the document, complete.

    Args:
        title: The name of the service.
        version: Its version.
        security: The ways in which a client may show who it is, by name; each path wants one of them, unless its
            handler is public. Without any, no path does.
    """

    def __init__(self, title: str, version: str, security: Mapping[str, SecurityScheme] | None = None) -> None:
        codes = "\n".join(
            f"| {code} | {each.closes} | {each.meaning} | {'yes' if each.reconnect else 'no'} |"
            for code, each in CLOSE_CODES.items()
        )
        components = Components(
            security_schemes=dict(security or {}),
            # AsyncAPI has no place for them; here a program finds them, and a reader in the description.
            extensions={"x-close-codes": {str(code): msgspec.to_builtins(each) for code, each in CLOSE_CODES.items()}},
        )
        config = AsyncAPIConfig(
            title=title,
            version=version,
            description=DESCRIPTION.format(statuses="401 without a good token, " if security else "", codes=codes),
            default_content_type="application/json",
            servers={"service": SERVER},
            components=components,
        )
        super().__init__(config)

    def get_asyncapi(self, app: Litestar) -> AsyncAPI:
        return super().get_asyncapi(self._read(app))

    def get_asyncapi_schema(self, app: Litestar) -> dict[str, Any]:
        return super().get_asyncapi_schema(self._read(app))

    def get_asyncapi_json(self, app: Litestar) -> bytes:
        return super().get_asyncapi_json(self._read(app))

    def _read(self, app: Litestar) -> Litestar:
        """Describe the listeners of the application when the document is first wanted: a start does not wait for it."""
        if not self.config.channels:
            security = list(self.config.components.security_schemes)
            self.config.channels = [describe(route, handler, security) for route, handler in listener_routes(app)]
        return app
