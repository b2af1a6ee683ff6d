"""The commands for working on the project: `python -m <package>.realtime COMMAND`.

Each command is a module in `commands/` with the functions `add_arguments(parser)` and `run(options)`. The docstring of
the module is the help of the command. `COMMANDS` in parts.py lists the commands.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .errors import ConfigurationError
from .parts import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The name of the command and its arguments; those of the process by default.

    Returns:
        The exit status: 0, or 1 after a `ConfigurationError`, which is written to standard error.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for an unknown command or a wrong argument.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Work on the project.")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = import_module(f"{__package__}.commands.{name.replace('-', '_')}")
        command_parser = parsers.add_parser(name, help=summary, description=command.__doc__)
        command.add_arguments(command_parser)
        command_parser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
