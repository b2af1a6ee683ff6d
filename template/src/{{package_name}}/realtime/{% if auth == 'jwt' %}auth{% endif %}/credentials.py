"""The places where a token may be sent. The URL is not one: it ends up in logs, histories and Referer headers."""

from typing import Any, Final, NamedTuple

from litestar.connection import ASGIConnection

SUBPROTOCOL: Final = "bearer"


class Credentials(NamedTuple):
    """A token as received, not verified yet."""

    encoded: str
    by_cookie: bool = False


def find_credentials(connection: ASGIConnection[Any, Any, Any, Any], cookie: str) -> Credentials | None:
    """Find the token of a handshake or a request. A cookie counts where the client itself sent nothing.

    - `Authorization: Bearer <token>` (RFC 6750, section 2.1), for services.
    - `Sec-WebSocket-Protocol: bearer, <token>`, for pages: `new WebSocket(url, ["bearer", token])`. A browser lets a
      page set no other header.
    - A cookie. The browser adds it to every handshake, whichever page opens it, so it counts only together with an
      allowed Origin.

    Args:
        connection: The handshake or the request.
        cookie: The name of the cookie.

    Returns:
        The token, or None where there is none.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credentials(token.strip())
    scope: Any = connection.scope
    if (offered := scope.get("subprotocols", []))[:1] == [SUBPROTOCOL]:
        return Credentials(offered[1] if len(offered) > 1 else "")
    token = connection.cookies.get(cookie, "")
    return Credentials(token, by_cookie=True) if token else None
