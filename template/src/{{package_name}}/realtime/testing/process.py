"""The service in a process of its own, and real clients: for what signals, ports and the network do."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import Queue
from subprocess import PIPE, STDOUT, Popen
from threading import Thread
from typing import Any, TextIO, cast

import httpx
from websockets.sync.client import ClientConnection, connect

from ..parts import COMMANDS, load_settings
from ..settings import PACKAGE, PREFIX, CoreSettings

TIMEOUT = 20
"""Seconds after which a wait has failed; nothing waits so long when all is well."""

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
    given = frozenset((name, value) for name, value in os.environ.items() if name.startswith(PREFIX))
    token = command.make_token(_settings(given), user, 3600, claims)
    return {"authorization": f"Bearer {token}"}


@cache
def _settings(_: frozenset[tuple[str, str]]) -> CoreSettings:
    """Return the settings of the tests, loaded once for each environment: that takes as long as a dialogue."""
    return load_settings(**settings_for_tests())


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


class Service:
    """The service in a process of its own, on a free port; its log is read as it is written.

    Args:
        cwd: The folder in which it runs.
        settings: Settings for its environment, as in `max_connections=1`.
    """

    def __init__(self, cwd: Path, **settings: object) -> None:
        command = [sys.executable, "-m", PACKAGE, "--port", "0"]
        environment = environment_with(log_format="json", **settings)
        self.process = Popen(command, cwd=cwd, env=environment, stdout=PIPE, stderr=STDOUT, encoding="utf-8")  # noqa: S603
        """Its command."""
        self._lines: Queue[dict[str, Any]] = Queue()
        self.log: list[dict[str, Any]] = []
        """The lines of the log that were waited for, and those before them."""
        self._reader = Thread(target=self._read)
        self._reader.start()
        try:
            self.address: str = self.wait_for("serving on")["event"].rpartition("/")[2]
            """Host and port."""
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        with cast("TextIO", self.process.stdout) as lines:
            for line in lines:
                self._lines.put(json.loads(line))

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(TIMEOUT)
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
        answer = httpx.get(f"http://{self.address}{path}", timeout=TIMEOUT, trust_env=False)
        return answer.status_code, answer.text


Start = Callable[..., Service]
"""Start the service with some settings: `start(max_connections=1)`."""
