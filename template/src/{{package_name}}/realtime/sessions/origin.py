"""Which pages may connect.

A browser lets any page open a WebSocket to any host and sends the host's cookies along (cross-site WebSocket
hijacking); CORS does not apply. What the browser does send, and no page can forge, is the `Origin` header (RFC 6455,
section 10.2), so it is compared here, exactly, before the handshake is accepted.
"""

from typing import Any

SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


def origin_allowed(scope: dict[str, Any], allowed: frozenset[str], *, required: bool) -> bool:
    """Say whether the page behind a handshake may connect.

    Args:
        scope: The ASGI scope of the handshake.
        allowed: Origins let in besides the service's own, each as scheme://host or scheme://host:port.
        required: Refuse clients that send no Origin at all (they are no browsers).
    """
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if not origins:
        return not required
    if len(origins) > 1:
        return False
    origin = origins[0].decode("latin-1").lower()
    return origin in allowed or origin == own_origin(scope)


def own_origin(scope: dict[str, Any]) -> str:
    """Return the origin of a page of this very service, or "" where the client names no host."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1:
        return ""
    return normal_origin(f"{SCHEMES[scope['scheme']]}://{hosts[0].decode('latin-1')}")


def normal_origin(origin: str) -> str:
    """Write an origin as browsers do: lower case, without the port that its scheme implies."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix({'http': ':80', 'https': ':443'}.get(scheme, ':'))}"
