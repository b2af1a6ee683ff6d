"""A real PostgreSQL on a free port, to be killed and started again."""

import os
import socket
import subprocess
from pathlib import Path
from shutil import chown, which
from time import monotonic, sleep

import psycopg
import pytest


class Server:
    """A server that keeps its data in a folder."""

    def __init__(self, folder: Path) -> None:
        # Debian keeps its programs out of the way, one folder for each version.
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        program = str(installed[-1]) if installed else which("postgres")
        if program is None:
            pytest.fail("there is no PostgreSQL to test with: apt-get install postgresql")
        self._folder = folder
        self._user = None
        if os.getuid() == 0:  # it refuses to run as root
            self._user = "postgres"
            for each in (folder, *folder.parents[:2]):
                each.chmod(0o755)
            chown(folder, self._user)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        self._command = [program, "-D", "data", f"--port={port}", "--listen_addresses=127.0.0.1"]
        self._command += [f"--unix_socket_directories={folder}"]
        initialize = [str(Path(program).with_name("initdb")), "--pgdata=data", "--username=service", "--auth=trust"]
        subprocess.run(
            [*initialize, "--no-sync"], cwd=folder, user=self._user, check=True, capture_output=True, timeout=60
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://service@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = monotonic() + 30
        while not self._answers():
            assert monotonic() < deadline, "PostgreSQL does not answer"
            if self._process is None or self._process.poll() is not None:  # what was killed may hold its memory still
                self._process = subprocess.Popen(
                    self._command, cwd=self._folder, user=self._user, stderr=subprocess.DEVNULL
                )
            sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None
