"""The commands for working on the project: `python -m <package>.realtime COMMAND`.

Each is a module of the folder `commands/`, with a `DESCRIPTION` and the functions `add_arguments(parser)` and
`run(options)`. `COMMANDS` in parts.py lists them.
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
        The exit status: 0, or 1 for a mistake or a wrong setting, which is written to standard error.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for an unknown command or a wrong argument.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        usage="%(prog)s COMMAND ...",
        description="\n".join(
            [
                "Commands for working on the project:",
                "",
                *(f"  {name:<15}{summary}" for name, summary in COMMANDS.items()),
                "",
                "COMMAND --help describes a command and its arguments.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    name = parser.parse_args(given[:1]).command

    command = import_module(f"{__package__}.commands.{name.replace('-', '_')}")
    command_parser = argparse.ArgumentParser(prog=f"{parser.prog} {name}", description=command.DESCRIPTION)
    command.add_arguments(command_parser)
    try:
        command.run(command_parser.parse_args(given[1:]))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
