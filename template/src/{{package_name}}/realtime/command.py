"""The command that runs the service: `uv run <name>`, or `python -m <package>`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from .errors import ConfigurationError
from .observability.logs import LogStream
from .parts import DISTRIBUTION, VERSION, load_settings
from .server.serve import listen, reload, serve
from .settings import PREFIX

STANDARD_ERROR: Final = 2
"""The highest descriptor of the standard streams."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until SIGTERM or Ctrl+C.

    Args:
        arguments: The options; those of the process by default.

    Returns:
        The exit status: 0 after a signal, or 1 after a `ConfigurationError`, which is written to standard error.

    Raises:
        SystemExit: With 0 after `--help` and `--version`, with 2 for a wrong option.
    """
    parser = argparse.ArgumentParser(prog=DISTRIBUTION, description="Run the service until SIGTERM or Ctrl+C.")
    parser.add_argument("--host", help=f"the address to listen on (default: {PREFIX}HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"the port, 0 for any free one (default: {PREFIX}PORT or 8000)")
    parser.add_argument("--reload", action="store_true", help="restart when the code changes; for development")
    parser.add_argument("--version", action="version", version=VERSION)
    options = parser.parse_args(arguments)
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass  # libuv aborts if a socket has the descriptor of a closed standard stream
    os.close(descriptor)
    try:
        settings = load_settings(host=options.host, port=options.port)
        with listen(settings.host, settings.port) as listening:
            (reload if options.reload else serve)(settings, [listening])
    except ConfigurationError as error:
        LogStream(sys.stderr).write(f"{DISTRIBUTION}: {error}\n")
        return 1
    return 0
