"""The places where a token may stand. None is the URL, which ends in logs, histories and Referer headers."""

from typing import Any, NamedTuple

from litestar.connection import ASGIConnection

SUBPROTOCOL = "bearer"


class Credentials(NamedTuple):
    """A token as it was sent, not checked yet."""

    encoded: str
    by_cookie: bool = False


def find_credentials(connection: ASGIConnection[Any, Any, Any, Any], cookie: str) -> Credentials | None:
    """Find the token of a handshake or a request; what is sent on purpose goes before a cookie.

    - `Authorization: Bearer <token>` (RFC 6750, section 2.1), for services.
    - `Sec-WebSocket-Protocol: bearer, <token>`, for pages: `new WebSocket(url, ["bearer", token])`. A browser lets a
      page set no other header.
    - The cookie of this name. The browser sends it by itself, whichever page connects, so it counts only together
      with an allowed Origin.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credentials(token.strip())
    scope: Any = connection.scope
    if (offered := scope.get("subprotocols", []))[:1] == [SUBPROTOCOL]:
        return Credentials(offered[1] if len(offered) > 1 else "")
    token = connection.cookies.get(cookie, "")
    return Credentials(token, by_cookie=True) if token else None
