"""`client --typescript`: write a typed client of the service to standard output."""

import argparse
import sys
from typing import Final

from ..client.typescript import write_client
from ..parts import load_app
from ..settings import PACKAGE

DESCRIPTION: Final = (
    "Write a typed client to standard output: a function for each listener, with its parameters, its messages and its "
    "answers. It imports client.js; put both, and client.d.ts, into one folder of your application."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("--typescript", action="store_true", required=True, help="in TypeScript, the only language yet")


def run(_: argparse.Namespace) -> None:
    """Write the client.

    Raises:
        ConfigurationError: The application does not start.
    """
    sys.stdout.write(write_client(load_app(), f"{PACKAGE}.realtime"))
