"""The service in a process that is forked from one which has imported it: that takes a tenth of the time of a start."""

import os
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from unittest.mock import patch

from my_service.realtime.command import main
from my_service.realtime.testing import TIMEOUT, process

LONGEST_FOLDER = 70
"""Characters of a folder for temporary files in which the path of a Unix socket, of some 100, still fits."""

FORKS: Any = get_context("spawn" if sys.platform == "win32" or len(gettempdir()) > LONGEST_FOLDER else "forkserver")
FORKS.set_forkserver_preload(["pytest", "my_service.app", "my_service.realtime.testing"])


class Popen:
    """The command of the service, as far as tests use what `subprocess.Popen` has.

    Args:
        arguments: The command; its options begin with the fourth.
        cwd: The folder in which it runs.
        env: Its environment.
    """

    def __init__(self, arguments: list[str], *, cwd: Path, env: dict[str, str], **_: Any) -> None:
        reading, writing = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_run, args=(arguments[3:], cwd, env, writing), daemon=True)
        path = [*sys.path, str(Path(__file__).parents[1])]  # it imports this module
        with reading, writing, patch.object(sys, "path", path):
            self._process.start()
            self.stdout = os.fdopen(os.dup(reading.fileno()), encoding="utf-8")

    def send_signal(self, signal: int) -> None:
        os.kill(self._process.pid, signal)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("the service", timeout)
        return int(status)


def _run(options: list[str], cwd: Path, environment: dict[str, str], output: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for standard in (1, 2):
        os.dup2(output.fileno(), standard)
    sys.exit(main(options))


def run(*options: str, cwd: Path, **settings: object) -> tuple[int, str]:
    """Run the command to its end; return its exit status and what it has written."""
    command = [sys.executable, "-m", "my_service", *options]
    service = Popen(command, cwd=cwd, env=process.environment_with(**settings))
    with service.stdout as output:
        written = output.read()
    return service.wait(TIMEOUT), written
