"""The terminal clients that the README names show JSON and what closed the connection; wscat has a history too."""

import os
import pty
import re
import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from select import select
from time import monotonic
from typing import Any

import pytest

from .rendering import environment, render
from .service import running

TIMEOUT = 60
"""Seconds; npx fetches the client first."""
ARROW_UP = "\x1b[A"


class Terminal:
    """A program that believes that a person sits in front of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until a text is on the screen, and look only at what comes behind it from then on."""
        deadline = monotonic() + TIMEOUT
        while text not in self.screen:
            ready, _, _ = select([self._descriptor], [], [], max(0, deadline - monotonic()))
            assert ready, f"{text!r} did not come: {self.screen!r}"
            try:
                self.screen += os.read(self._descriptor, 65536).decode(errors="replace")
            except OSError:  # the program has ended
                pytest.fail(f"{text!r} did not come: {self.screen!r}")
        self.screen = self.screen.partition(text)[2]


@contextmanager
def terminal(command: str, cwd: Path, given: dict[str, str]) -> Generator[Terminal]:
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execvpe("bash", ["bash", "-c", command], given | {"TERM": "xterm"})  # noqa: S606
    try:
        yield Terminal(descriptor)
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(descriptor)


@pytest.mark.parametrize(
    ("answers", "closed"),
    [
        ({}, "Connection closed: 1012 (service restart) service restarts"),
        ({"auth": "jwt"}, 'Disconnected (code: 1012, reason: "service restarts")'),
    ],
    ids=["anybody", "token"],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of forkpty:DeprecationWarning")
def test_the_client_of_the_readme(template: Path, tmp_path: Path, answers: dict[str, Any], closed: str) -> None:
    python = shlex.quote(sys.executable)
    programs = {"python": python, "websockets": f"{python} -m websockets"}
    project = render(template, tmp_path / "my-service", **answers)
    if answers:
        (project / ".env").write_text(f"MY_SERVICE_AUTH_SECRET={'only-for-this-test-' * 2}\n")
    [command] = re.findall(r"^\$ (.* ws://.*)$", (project / "README.md").read_text(), re.MULTILINE)
    with running(project, drain_seconds=0) as service:
        command = command.replace("127.0.0.1:8000", service.address)
        command = re.sub("uv run (python|websockets)", lambda found: programs[found[1]], command)
        with terminal(command, project, environment(project)) as shown:
            shown.wait_for("Connected")
            shown.type('{"type": "say", "text": "hi"}\r')
            shown.wait_for('"count":1}')
            shown.type(ARROW_UP + "\r" if "wscat" in command else '{"type": "say", "text": "hi"}\r')
            shown.wait_for('"count":2}')
            service.process.send_signal(signal.SIGTERM)
            shown.wait_for(closed)
