"""The command: run the server, and drain it on SIGTERM."""

import argparse
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from uvicorn.supervisors import ChangeReload

from . import __version__
from .connections import Connections, MistakeError
from .connections.drain import DrainingServer
from .settings import PREFIX, Settings, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the service until a signal ends it.

    Returns:
        The exit status: 0 after a signal, 1 for a mistake, a wrong setting or a port that is taken, 2 for a wrong
        option.
    """
    name = (__package__ or "").replace("_", "-")
    parser = argparse.ArgumentParser(prog=name, description="Run the service until SIGTERM or Ctrl+C.")
    parser.add_argument("--host", help=f"the address to listen on (default: {PREFIX}HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"the port, 0 for any that is free (default: {PREFIX}PORT or 8000)")
    parser.add_argument("--reload", action="store_true", help="start again whenever the code changes; for development")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.load(host=options.host, port=options.port)
        with _listen(settings.host, settings.port) as listening:
            if options.reload:
                return _reload(settings, listening)
            return serve(settings, [listening])
    except (SettingsError, MistakeError, _PortError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1


class _PortError(Exception):
    """The address cannot be listened on."""


def serve(settings: Settings, sockets: list[socket.socket]) -> int:
    """Serve on sockets that listen already.

    Raises:
        MistakeError: The application has a mistake with which it does not start.
    """
    from .app import create_app  # imports the listeners, whose mistakes are to be caught

    app = create_app(settings)
    server = DrainingServer(_configuration(app, settings), app.plugins.get(Connections).registry, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)  # uvicorn raises them again when it is done: status 0, not 143
    host, port = sockets[0].getsockname()[:2]
    structlog.get_logger(__name__).info(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets)
    return 0


def _configuration(app: object, settings: Settings) -> uvicorn.Config:
    """Set uvicorn up for WebSockets: pings, a message limit, no deflate, and our log."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=settings.max_message_size,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=max(1, round(settings.hook_seconds)),
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise _PortError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host and --port"
        ) from None
    return listening


def _reload(settings: Settings, listening: socket.socket) -> int:
    """Watch the package and run the service in a child process that is replaced when a file changes."""
    config = uvicorn.Config("", reload=True, reload_dirs=[str(Path(__file__).parent)], log_config=None)
    hasty = settings.model_copy(update={"drain_seconds": 0.0, "grace_seconds": 1.0})
    ChangeReload(config, target=partial(_serve_child, hasty), sockets=[listening]).run()
    return 0


def _ignore(_signal: int, _frame: FrameType | None) -> None: ...


def _serve_child(settings: Settings, sockets: list[socket.socket] | None) -> None:
    try:
        serve(settings, sockets or [])
    except MistakeError as error:
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    sys.exit(main())
