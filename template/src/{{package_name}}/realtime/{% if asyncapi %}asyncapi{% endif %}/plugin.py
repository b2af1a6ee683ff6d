"""`Documentation`: the plugin that serves the AsyncAPI document and a page for it at /asyncapi.

litestar-asyncapi finds the paths and writes the schemas. This plugin adds the names, docstrings and examples of the
messages, the messages that a listener sends besides its answers, the query, the close codes, and the authentication.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Litestar, Router
from litestar.datastructures import ResponseHeader
from litestar_asyncapi import AsyncAPIConfig, AsyncAPIPlugin, DocsConfig
from litestar_asyncapi.plugins import AsyncAPIUIRenderPlugin
from litestar_asyncapi.spec import AsyncAPI, Components, SecurityScheme, Server, ServerVariable

from ..handlers.listener import listener_routes
from ..http import NOTHING
from ..sessions.cause import CLOSE_CODES

DESCRIPTION: Final = """\
Messages are JSON, and their field `type` names their kind. An invalid message is answered with an error: no handler is
called, and the connection stays open.

A handshake is rejected with an HTTP status: {statuses}403 for a page of another origin, 429 for too many connections of
one client, 503 if the service is full or about to stop.

## Close codes

| code | who closes | meaning | reconnect? |
|---|---|---|---|
{codes}
"""

SERVER: Final = Server(
    host="{host}",
    protocol="ws",
    description="The address of the service. Behind a proxy with TLS, use the proxy's address and the protocol wss.",
    variables={"host": ServerVariable(default="127.0.0.1:8000")},
)

POLICY: Final = (
    f"{NOTHING}; script-src 'self' 'unsafe-eval'; connect-src 'self'; font-src 'self' data:; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'"
)
"""The content security policy of the page, which loads files of the service only. It compiles JSON schemas and adds
inline styles; its content comes only from the code of the service."""

STYLE: Final = f"<style>{(Path(__file__).parent / 'style.css').read_text()}</style>"
NO_ICON: Final = '<link rel="icon" href="data:,">'


class Documentation(AsyncAPIPlugin):
    """Serve the AsyncAPI document.

    Args:
        title: The name of the service.
        version: Its version.
        security: The ways in which a client may authenticate, by name. Each path accepts any of them, unless its
            handler is public. If empty, no path requires authentication.
        renewal: The message that renews the authentication of an open connection.
    """

    def __init__(
        self,
        title: str,
        version: str,
        security: Mapping[str, SecurityScheme] | None = None,
        renewal: type[msgspec.Struct] | None = None,
    ) -> None:
        self._renewal = renewal
        codes = "\n".join(
            f"| {code} | {each.closes} | {each.meaning} | {'yes' if each.reconnect else 'no'} |"
            for code, each in CLOSE_CODES.items()
        )
        components = Components(
            security_schemes=dict(security or {}),
            # AsyncAPI has no field for close codes: programs read them here, people in the description.
            extensions={"x-close-codes": {str(code): msgspec.to_builtins(each) for code, each in CLOSE_CODES.items()}},
        )
        config = AsyncAPIConfig(
            title=title,
            version=version,
            description=DESCRIPTION.format(statuses="401 without a valid token, " if security else "", codes=codes),
            default_content_type="application/json",
            servers={"service": SERVER},
            components=components,
            docs=DocsConfig(render_plugins=[AsyncAPIUIRenderPlugin(style=STYLE, favicon=NO_ICON)]),
        )
        super().__init__(config)

    def create_docs_router(self) -> Router:
        router = super().create_docs_router()
        router.response_headers = [ResponseHeader(name="content-security-policy", value=POLICY)]
        return router

    def get_asyncapi(self, app: Litestar) -> AsyncAPI:
        return super().get_asyncapi(self._read(app))

    def get_asyncapi_schema(self, app: Litestar) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.json.decode(self.get_asyncapi_json(app))
        return document

    def get_asyncapi_json(self, app: Litestar) -> bytes:
        # A value may match several members of a union, as 1 matches both of `int | float`.
        return super().get_asyncapi_json(self._read(app)).replace(b'"oneOf":[', b'"anyOf":[')

    def _read(self, app: Litestar) -> Litestar:
        """Describe the listeners at the first request for the document, which keeps the start of the service fast."""
        if not self.config.channels:
            from .channels import describe  # imports polyfactory, which is slow

            security = list(self.config.components.security_schemes)
            self.config.channels = [describe(*listener, security, self._renewal) for listener in listener_routes(app)]
        return app
