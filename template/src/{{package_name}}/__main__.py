"""The command that runs the service."""

import sys

from .realtime import command

if __name__ == "__main__":
    sys.exit(command.main())
