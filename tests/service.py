"""A rendered service in a process of its own, on a free port, with its log as it is written."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from .rendering import answers_of, environment

SECONDS = 20


class Service:
    """A running service; `address` is where it listens, `log` what it has written so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._lines: Queue[dict[str, Any]] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()
        self.address = str(self.wait_for("serving on")["event"].rpartition("/")[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(json.loads(line) if line.startswith("{") else {"event": line})

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next line of the log that begins with this."""
        while True:
            line = self._lines.get(timeout=SECONDS)
            self.log.append(line)
            if line["event"].startswith(event):
                return line

    def url(self, path: str) -> str:
        return f"ws://{self.address}{path}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)


@contextmanager
def running(project: Path, *options: str, **settings: object) -> Generator[Service]:
    """Run a rendered service with some settings, and kill it in the end."""
    package = answers_of(project)["package_name"]
    given = {f"{package.upper()}_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", package, "--port", "0", *options],
        cwd=project,
        env=environment(project) | {f"{package.upper()}_LOG_FORMAT": "json"} | given,
        stderr=subprocess.PIPE,
        text=True,
    )
    service = Service(process)
    try:
        yield service
    finally:
        service.stop()
