"""The server: uvicorn, configured for WebSockets and proxies, with a graceful shutdown. For uvicorn 0.54."""

import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import structlog
import uvicorn
from litestar import Litestar
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors import ChangeReload

from ..errors import ConfigurationError
from ..fanout.plugin import Fanout
from ..observability.logs import Logging, LogStream
from ..parts import load_app
from ..sessions.origin import FORWARDED, PEER, Peer
from ..sessions.plugin import Sessions
from ..settings import CoreSettings
from .drain import DrainingServer
from .http_protocol import HTTP_DESCRIPTORS, SPARE_DESCRIPTORS, HttpProtocol, TcpLimits
from .websocket_protocol import WebSocketProtocol

if sys.platform != "win32":
    import resource

log = structlog.get_logger(__name__)

DEFAULT_DESCRIPTORS: Final = 100_000
"""File descriptors where the number of connections is not limited."""


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on, before anything else is done.

    Args:
        host: The address to listen on; `::` means every address of IPv6 and IPv4.
        port: The port; 0 takes any free port.

    Raises:
        ConfigurationError: The port is taken, or the host is not an address of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(
            f"{host} port {port}", f"cannot be used: {reason}", "choose another address with --host and --port"
        ) from None


def serve(settings: CoreSettings, sockets: list[socket.socket]) -> None:
    """Serve until a signal; then drain.

    Args:
        settings: The settings of the service.
        sockets: Sockets that listen already.

    Raises:
        ConfigurationError: The application or a setting has a mistake.
    """
    app = load_app(settings)
    asyncio.run(app.plugins.get(Fanout).broker.check())
    server = DrainingServer(configuration(app, settings), app.plugins.get(Sessions).registry, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)  # uvicorn handles signals only once it runs
    host, port = sockets[0].getsockname()[:2]
    event = f"serving on http://{f'[{host}]' if ':' in host else host}:{port}"
    log.info(event)
    gc.freeze()  # what exists before the first connection stays, so the garbage collector can skip it
    gc.enable()
    server.run(sockets)


def reload(settings: CoreSettings, sockets: list[socket.socket]) -> None:
    """Serve in a child process that restarts when a file of the package changes; connections are closed at once.

    Args:
        settings: The settings of the service.
        sockets: Sockets that listen already.
    """
    gc.enable()
    Logging(settings).configure()
    log.warning("pages of localhost may connect from any port", because="--reload")
    config = uvicorn.Config("", reload=True, reload_dirs=[str(Path(__file__).parents[2])], log_config=None)
    ChangeReload(config, target=partial(_serve_until_changed, settings.for_reload()), sockets=sockets).run()


def _serve_until_changed(settings: CoreSettings, sockets: list[socket.socket] | None) -> None:
    try:
        serve(settings, sockets or [])
    except ConfigurationError as error:
        LogStream(sys.stderr).write(f"{error}\n")


def _raise_descriptor_limit(settings: CoreSettings) -> int:
    """Raise the limit of open file descriptors, because each connection needs one, and return the new limit.

    Many systems start with 1024. Without a free descriptor nothing can connect, not even a health check.
    """
    needed = (settings.max_connections or DEFAULT_DESCRIPTORS) + HTTP_DESCRIPTORS + SPARE_DESCRIPTORS
    if sys.platform == "win32":
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else hard
    if resource.RLIM_INFINITY != soft < needed:
        with suppress(OSError, ValueError):  # the system may have fewer than its limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, allowed), hard))
    if allowed < needed and settings.max_connections:
        log.warning("the system allows fewer descriptors than MAX_CONNECTIONS needs", allowed=allowed, needed=needed)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return needed if soft == resource.RLIM_INFINITY else min(soft, needed)


def configuration(app: Litestar, settings: CoreSettings) -> uvicorn.Config:
    proxied = TrustedProxies(cast("Any", app), settings.trusted_proxies)
    limit, descriptors = settings.max_connections_per_address, _raise_descriptor_limit(settings)
    tcp_limits = TcpLimits(limit, descriptors, lambda address: address in proxied.trusted_hosts)
    return uvicorn.Config(
        proxied,
        interface="asgi3",
        root_path=settings.root_path,
        proxy_headers=False,  # `TrustedProxies` replaces it
        http=cast("Any", partial(HttpProtocol, settings=settings, tcp_limits=tcp_limits)),
        ws=cast("Any", partial(WebSocketProtocol, settings=settings)),
        ws_max_size=settings.max_message_size,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=settings.deflate,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.hook_seconds)),
    )


class TrustedProxies(ProxyHeadersMiddleware):
    """uvicorn's middleware for `X-Forwarded-For` and `X-Forwarded-Proto`, which also reads `X-Forwarded-Host`.

    If several proxies each added an element, the first one counts, because it describes the client's request.
    """

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "lifespan":
            address = scope["client"][0] if scope["client"] else ""
            trusted = address in self.trusted_hosts
            scope.setdefault("state", {})[PEER] = Peer(address, trusted)
            if not trusted or not any(name in FORWARDED for name, _ in scope["headers"]):
                return self.app(scope, receive, send)  # uvicorn's method would keep a coroutine for the whole session
            scope["headers"] = _effective(scope["headers"])
        return super().__call__(scope, receive, send)


def _effective(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers with the first forwarded scheme, and with the Host that the client requested."""
    first = {name: value.split(b",")[0].strip().lower() for name, value in reversed(headers)}
    if scheme := first.get(b"x-forwarded-proto"):
        headers = [*(each for each in headers if each[0] != b"x-forwarded-proto"), (b"x-forwarded-proto", scheme)]
    if host := first.get(b"x-forwarded-host"):
        headers = [*(each for each in headers if each[0] != b"host"), (b"host", host)]
    return headers
