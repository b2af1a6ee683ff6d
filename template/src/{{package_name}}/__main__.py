"""The command that runs the service."""

import gc
import sys

gc.disable()  # nothing that is imported is garbage; the service enables it once it is built

from .realtime import command  # noqa: E402

main = command.main

if __name__ == "__main__":
    sys.exit(main())
