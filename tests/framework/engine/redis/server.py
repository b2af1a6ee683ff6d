"""A real Redis on a free port, with an append-only file, to be killed and started again."""

import socket
import subprocess
from pathlib import Path
from shutil import which
from time import monotonic, sleep

import pytest


class Server:
    """A server that keeps its data in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = which("redis-server") or which("valkey-server")
        if program is None:
            pytest.fail("there is no redis-server to test with: apt-get install redis-server")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._port = listening.getsockname()[1]
        self._command = [program, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder)]
        # With `everysec`, a slow disk postpones writes that are answered already, and a kill loses them.
        self._command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = monotonic() + 30
        while not self._answers():
            assert monotonic() < deadline, "redis-server does not answer"
            sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None
