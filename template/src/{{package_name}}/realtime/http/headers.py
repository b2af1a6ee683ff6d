"""The template's: the security headers of every HTTP response. A browser takes nothing for more than it is.

A handler that sets one of them itself keeps its own. What no handler answers (404, 405) is JSON, and has none.
HTTPS, and with it Strict-Transport-Security, is the matter of the proxy in front.
"""

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..sessions.middleware import PassThroughMiddleware

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of what is no page (W3C, Content Security Policy Level 3)."""

DOCUMENTATION = (
    f"{NOTHING}; script-src 'self' 'unsafe-eval'; connect-src 'self'; font-src 'self' data:; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'"
)
"""That of /asyncapi, all of whose files are our own. Its page compiles JSON schemas and writes styles into itself; what
it shows comes from the code of the service and from nobody else."""

HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


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
                    if name not in headers:
                        headers[name] = value
            await send(message)

        await next_app(scope, receive, send_with_headers)
