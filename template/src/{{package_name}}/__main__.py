"""The template's: the command, which runs the server until a signal ends it."""

import argparse
import sys

from . import DISTRIBUTION, __version__
from .connections import MistakeError
from .server import PortError, listen, reload, serve
from .settings import PREFIX, Settings, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the service.

    Returns:
        The exit status: 0 after a signal, 1 for a mistake, a wrong setting or a port that is taken, 2 for a wrong
        option.
    """
    parser = argparse.ArgumentParser(prog=DISTRIBUTION, description="Run the service until SIGTERM or Ctrl+C.")
    parser.add_argument("--host", help=f"the address to listen on (default: {PREFIX}HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"the port, 0 for any that is free (default: {PREFIX}PORT or 8000)")
    parser.add_argument("--reload", action="store_true", help="start again whenever the code changes; for development")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.load(host=options.host, port=options.port)
        with listen(settings.host, settings.port) as listening:
            (reload if options.reload else serve)(settings, [listening])
    except (SettingsError, MistakeError, PortError) as error:
        sys.stderr.write(f"{DISTRIBUTION}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
