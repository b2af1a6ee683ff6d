"""The service in a process of its own, and real clients: for what signals, ports and the network do."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from http.client import HTTPResponse
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from tempfile import gettempdir
from threading import Thread
from typing import Any, TextIO, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import ClientConnection, connect

from ..command import main
from ..parts import COMMANDS, load_settings
from ..settings import PACKAGE, PREFIX

TIMEOUT = 20
"""Seconds after which a wait has failed; nothing waits so long when all is well."""

OPENER = build_opener(ProxyHandler({}))
"""The service is on this machine, whatever proxy leads away from it."""

LONGEST_FOLDER = 70
"""Characters of a folder for temporary files in which the path of a Unix socket, of some 100, still fits."""

FORKS: Any = get_context("spawn" if sys.platform == "win32" or len(gettempdir()) > LONGEST_FOLDER else "forkserver")
"""To import the service takes longer than to start it: one process does, and all others are forked from that one.

`pytest` is where each looks for the main module.
"""
FORKS.set_forkserver_preload(["pytest", f"{PACKAGE}.__main__", f"{PACKAGE}.app"])


Identify = Callable[[str, str], dict[str, str]]
"""Return the headers with which a user connects to a path: `identify("ada", "/ws/echo")`."""


def credentials(user: str = "ada", **claims: object) -> dict[str, str]:
    """Return the headers with which a client connects as this user; none where the service asks nobody.

    Args:
        user: Who connects.
        claims: What the token says besides, as in `roles=["admin"]`.
    """
    if "token" not in COMMANDS:
        return {}
    command: Any = import_module("..commands.token", __package__)
    token = command.make_token(load_settings(**settings_for_tests()), user, 3600, claims)
    return {"authorization": f"Bearer {token}"}


def settings_for_tests() -> dict[str, str]:
    """Return what the tests set, by the names of the fields: `for_tests` of each class of the settings."""
    groups: Sequence[type] = import_module(f"{PACKAGE}.settings").Settings.__mro__
    found: dict[str, str] = {}
    for group in reversed(groups):
        found |= vars(group).get("for_tests", {})
    return found


def environment_with(**settings: object) -> dict[str, str]:
    """Return the environment of this process with some settings, given as `max_connections=1`."""
    return os.environ | {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}


def command(options: tuple[str, ...], environment: dict[str, str], cwd: Path, output: Connection) -> None:
    """Do what the command does; for a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for standard in (1, 2):
        os.dup2(output.fileno(), standard)
    sys.exit(main(list(options)))


class Process:
    """The command of the service in a process of its own.

    Args:
        options: Those of the command, as in `"--port", "0"`.
        cwd: The folder in which it runs.
        settings: Settings for its environment, as in `max_connections=1`.
    """

    def __init__(self, *options: str, cwd: Path, **settings: object) -> None:
        reading, writing = FORKS.Pipe(duplex=False)
        arguments = (options, environment_with(**settings), cwd, writing)
        self._process = FORKS.Process(target=command, args=arguments, daemon=True)
        with reading, writing:
            self._process.start()
            self.output: TextIO = os.fdopen(os.dup(reading.fileno()), encoding="utf-8")
            """What it writes, to either of its outputs."""

    def send_signal(self, signal: int) -> None:
        if self._process.pid:
            os.kill(self._process.pid, signal)

    def wait(self) -> int:
        """Wait for the end, and return the exit status.

        Raises:
            TimeoutError: It has not ended within 20 seconds.
        """
        self._process.join(TIMEOUT)
        status: int | None = self._process.exitcode
        if status is None:
            raise TimeoutError("the process has not ended")
        return status

    def kill(self) -> None:
        self._process.kill()
        self.wait()


class Service:
    """The service in a process of its own, on a free port; its log is read as it is written.

    Args:
        cwd: The folder in which it runs.
        settings: Settings for its environment, as in `max_connections=1`.
    """

    def __init__(self, cwd: Path, **settings: object) -> None:
        self.process = Process("--port", "0", cwd=cwd, log_format="json", **settings)
        self._lines: Queue[dict[str, Any]] = Queue()
        self.log: list[dict[str, Any]] = []
        """The lines of the log that were waited for, and those before them."""
        self._reader = Thread(target=self._read)
        self._reader.start()
        self.address: str = self.wait_for("serving on")["event"].rpartition("/")[2]
        """Host and port."""

    def _read(self) -> None:
        with self.process.output as lines:
            for line in lines:
                self._lines.put(json.loads(line))

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self._reader.join(TIMEOUT)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next line of the log whose event begins so.

        Raises:
            queue.Empty: There is none within 20 seconds.
        """
        while True:
            line = self._lines.get(timeout=TIMEOUT)
            self.log.append(line)
            if line["event"].startswith(event):
                return line

    def connect(self, path: str = "/ws/echo", **options: Any) -> AbstractContextManager[ClientConnection]:
        """Open a connection, as `websockets` does; by default with the credentials of the tests."""
        opening: Any = connect  # its own types are partly unknown
        options = {"additional_headers": credentials(), "open_timeout": TIMEOUT, "proxy": None} | options
        return cast("AbstractContextManager[ClientConnection]", opening(f"ws://{self.address}{path}", **options))

    def get(self, path: str) -> tuple[int, str]:
        """Ask over HTTP, and return the status and the body."""
        try:
            answer: HTTPResponse
            with OPENER.open(f"http://{self.address}{path}", timeout=TIMEOUT) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


Start = Callable[..., Service]
"""Start the service with some settings: `start(max_connections=1)`."""


def run(*options: str, cwd: Path, **settings: object) -> tuple[int, str]:
    """Run the command to its end; return its exit status and what it has written."""
    process = Process(*options, cwd=cwd, **settings)
    with process.output:
        written = process.output.read()
    return process.wait(), written
