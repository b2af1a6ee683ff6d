"""What a trusted proxy says about its client. For uvicorn 0.54."""

from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..sessions.origin import PEER, Peer


class TrustedProxies(ProxyHeadersMiddleware):
    """uvicorn's middleware for `X-Forwarded-For` and `X-Forwarded-Proto`, which takes `X-Forwarded-Host` too.

    Where several proxies each added an element, the first counts: it is what the client asked for. An IPv4 address that
    a socket for both families reports as `::ffff:10.0.0.1` is `10.0.0.1`.
    """

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "lifespan":
            for end in ("client", "server"):
                if scope[end]:
                    scope[end] = (scope[end][0].removeprefix("::ffff:"), scope[end][1])
            address = scope["client"][0] if scope["client"] else ""
            trusted = address in self.trusted_hosts
            scope.setdefault("state", {})[PEER] = Peer(address, trusted)
            if trusted:
                scope["headers"] = _effective(scope["headers"])
        return super().__call__(scope, receive, send)


def _effective(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers with the first scheme, and with the Host for which the proxy was asked."""
    first = {name: value.split(b",")[0].strip().lower() for name, value in reversed(headers)}
    if scheme := first.get(b"x-forwarded-proto"):
        headers = [*(each for each in headers if each[0] != b"x-forwarded-proto"), (b"x-forwarded-proto", scheme)]
    if host := first.get(b"x-forwarded-host"):
        headers = [*(each for each in headers if each[0] != b"host"), (b"host", host)]
    return headers
