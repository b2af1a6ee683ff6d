"""The security headers of every HTTP response.

A handler that sets one of them itself keeps its own. Responses without a handler (404, 405) have them too.
HTTPS, and with it Strict-Transport-Security, belongs to the proxy in front.
"""

import re
from typing import Final

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..sessions.middleware import PassThroughMiddleware

NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of a response that is not a page (W3C, Content Security Policy Level 3)."""

DOCUMENTATION: Final = (
    f"{NOTHING}; script-src 'self' 'unsafe-eval'; connect-src 'self'; font-src 'self' data:; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'"
)
"""The policy of /asyncapi, whose files all come from the service. Its page compiles JSON schemas and adds inline
styles; it shows only what the code of the service says."""

HEADERS: Final = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


OPENER: Final = "cross-origin-opener-policy"


def is_trustworthy(scope: Scope) -> bool:
    """Return whether a browser heeds Cross-Origin-Opener-Policy here. Elsewhere it complains in its console."""
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    name = re.sub(r":[0-9]*$", "", hosts[0].lower()) if hosts else ""
    local = name == "localhost" or name.endswith(".localhost") or name == "[::1]" or name.startswith("127.")
    return local or scope["scheme"] == "https"


class SecurityHeaders(PassThroughMiddleware):
    """Add to each HTTP response the headers that it does not set itself."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                is_page = "text/html" in headers.getall("content-type", [""])[0]
                documents = is_page and scope["path"].startswith("/asyncapi")
                policy = {"content-security-policy": DOCUMENTATION if documents else NOTHING}
                for name, value in {**policy, **HEADERS}.items():
                    if name not in headers and (name != OPENER or is_trustworthy(scope)):
                        headers[name] = value
            await send(message)

        await next_app(scope, receive, send_with_headers)
