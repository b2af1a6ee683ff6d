"""The check of the Origin of a handshake against the Host and the scheme of the service."""

import re
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..settings import PREFIX, CoreSettings, normal_origin

PEER: Final = f"{__name__}.peer"
"""The key in `scope["state"]` of the `Peer`, where the service runs on its own server."""

WEB_SCHEMES: Final = {"ws": "http", "wss": "https"}
"""The scheme of the page that opens a WebSocket with one of these."""

KEEP_HOST: Final = (
    "have the proxy keep the Host of the client (nginx: proxy_set_header Host $http_host; "
    "Apache: ProxyPreserveHost On; Vite: changeOrigin: false)"
)


class Peer(NamedTuple):
    """Who opened the TCP connection, which may be a proxy."""

    address: str
    trusted: bool
    """It is in TRUSTED_PROXIES, so its X-Forwarded-* headers count."""


class OriginPolicy:
    """Decide whether the page behind a handshake may connect.

    A browser lets any page open a WebSocket to any host and sends the host's cookies along (cross-site WebSocket
    hijacking); CORS does not apply. What the browser does send, and no page can forge, is the `Origin` header (RFC
    6455, section 10.2), so it is compared here before the handshake is accepted. A name that resolves to 127.0.0.1 (DNS
    rebinding) makes a foreign page look like one of the service: so on loopback only loopback names count.

    Args:
        settings: ALLOWED_ORIGINS, ALLOWED_HOSTS and REQUIRE_ORIGIN.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self._origins = _pattern(settings.allowed_origins)
        self._hosts = _pattern(settings.allowed_hosts) if settings.allowed_hosts else None
        self._required = settings.require_origin

    def problem(self, scope: dict[str, Any], *, required: bool = False) -> str:
        """Return what is wrong with a handshake or a request: "host", "origin" or, where it may connect, "".

        Args:
            scope: Its ASGI scope.
            required: Refuse clients that send no Origin (which are not browsers), as with REQUIRE_ORIGIN.
        """
        hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
        host = hosts[0] if len(hosts) == 1 else ""
        if self._hosts and not self._is_own_host(scope, host):
            return "host"
        if not origins:
            return "origin" if required or self._required else ""
        origin = origins[0].lower()
        if len(origins) > 1 or not origin or not host:
            return "origin"
        if self._origins.fullmatch(origin):
            return ""
        if origin != own_origin(scope):
            return "origin"
        return "" if self._is_own_host(scope, host) else "host"

    def may_ask(self, scope: dict[str, Any]) -> bool:
        """Return whether an HTTP request names the service in its Host: by a name of its own, or by an IP address."""
        names = [_name_and_port(host)[0] for host in _headers(scope, b"host")]
        return all(_is_address(name) or self._is_own_host(scope, name) for name in names)

    def cors_headers(self, scope: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        """Return the headers by which a page that may connect reads why its handshake was rejected (Fetch, 3.3)."""
        origins = _headers(scope, b"origin")
        if not origins or self.problem(scope):
            return []
        return [
            (b"access-control-allow-origin", origins[0].encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),  # a handshake has the cookies, too
            (b"access-control-allow-headers", b"authorization"),
            (b"vary", b"origin"),
        ]

    def explain(self, scope: dict[str, Any], problem: str) -> dict[str, Any]:
        """Return the compared values, where they came from, and how to fix the mismatch, for the log or a developer."""
        hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
        peer: Peer | None = scope["state"].get(PEER)
        whose = "" if peer and peer.trusted else "not "
        return {
            "origin": _quote(", ".join(origins)),
            "expected": _quote(own_origin(scope)),
            "host": _quote(", ".join(hosts)),
            "scheme": scope["scheme"],
            "peer": f"{peer.address}, {whose}in {PREFIX}TRUSTED_PROXIES" if peer else "unknown",
            "fix": _fix(scope, problem, hosts, origins, peer),
        }

    def _is_own_host(self, scope: dict[str, Any], host: str) -> bool:
        name, _ = _name_and_port(host)
        if self._hosts and self._hosts.fullmatch(name):
            return True
        return _is_loopback_name(name) if _is_direct_on_loopback(scope) else not self._hosts


def own_origin(scope: dict[str, Any]) -> str:
    """Return the origin of the service's own pages, or "" if the client names no host, or several."""
    hosts = _headers(scope, b"host")
    if len(hosts) != 1 or not hosts[0]:
        return ""
    scheme = WEB_SCHEMES.get(scope["scheme"], scope["scheme"])
    return normal_origin(f"{scheme}://{hosts[0]}")


def _fix(scope: dict[str, Any], problem: str, hosts: list[str], origins: list[str], peer: Peer | None) -> str:
    """Return the setting, or the line for a proxy, that would let a handshake in."""
    if problem == "host":
        name = _name_and_port(hosts[0])[0] if len(hosts) == 1 else ""
        return f"set {PREFIX}ALLOWED_HOSTS={_quote(name)}" if name else "send one Host, with a name or an address"
    if not origins:
        return f"set {PREFIX}REQUIRE_ORIGIN=false, or send an Origin"
    if len(origins) > 1 or len(hosts) != 1 or not origins[0] or not hosts[0]:
        return "send one Origin and one Host"
    origin, own = origins[0].lower(), own_origin(scope)
    if origin == "null":
        return f"set {PREFIX}ALLOWED_ORIGINS=null, which admits every page without an origin, such as local files"
    trust = ""
    if peer is not None and not peer.trusted:
        forwarded = {name: (_headers(scope, name) or [""])[0].split(",")[0].strip() for name in FORWARDED}
        scheme = forwarded[b"x-forwarded-proto"].lower() or own.partition(":")[0]
        if origin == normal_origin(f"{WEB_SCHEMES.get(scheme, scheme)}://{forwarded[b'x-forwarded-host'] or hosts[0]}"):
            return f"set {PREFIX}TRUSTED_PROXIES={peer.address}"
        trust = f" and set {PREFIX}TRUSTED_PROXIES={peer.address}"
    scheme, _, address = origin.partition("://")
    (name, port), (own_name, own_port) = _name_and_port(address), _name_and_port(own.partition("://")[2])
    if (name, port) == (own_name, own_port):
        header = f"X-Forwarded-Proto: {_quote(scheme)} (nginx: proxy_set_header X-Forwarded-Proto $scheme;)"
        return f"have the proxy that ends TLS send {header}{trust}"
    if name == own_name and not own_port:
        return "have the proxy pass on the port in Host (nginx: proxy_set_header Host $http_host;)"
    return f"set {PREFIX}ALLOWED_ORIGINS={_quote(origin)} or, if it is the page of this service, {KEEP_HOST}"


FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
"""The headers with which a proxy says who its client is, and what it asked for."""


def _is_direct_on_loopback(scope: dict[str, Any]) -> bool:
    """Return whether the client connects on loopback without a trusted proxy in between."""
    peer: Peer | None = scope["state"].get(PEER)
    if (peer is None or peer.trusted) and any(name in FORWARDED for name, _ in scope["headers"]):
        return False
    server = (scope.get("server") or ("",))[0]  # or a unix socket, or the name that a test gives
    return _is_address(server) and ip_address(server).is_loopback


def _is_loopback_name(name: str) -> bool:
    """Return whether nobody else can point this name or IP address at this machine."""
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(name))
    return False


def _pattern(allowed: Iterable[str]) -> re.Pattern[str]:
    """Compile a list of names or origins in which `*` matches one or more labels. An empty list matches nothing."""
    return re.compile("|".join(re.escape(each).replace(r"\*", r"[a-z0-9._-]+") for each in allowed) or r"(?!)")


def _headers(scope: dict[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _name_and_port(host: str) -> tuple[str, str]:
    """Split a Host header, or what follows the scheme of an origin: the name without brackets, in lower case."""
    name, _, port = host.lower().rpartition(":") if re.search(r":[0-9]*$", host) else (host.lower(), "", "")
    return name.strip("[]").removesuffix("."), port


def _quote(text: str) -> str:
    return quote(text, safe=":/*, ")[:200]
