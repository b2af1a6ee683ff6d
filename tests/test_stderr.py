"""A broken standard error harms nobody: a reader that is gone, a full disk, none at all. Real processes."""

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from .rendering import environment
from .service import TIMEOUT

BROKEN = {"a reader that ends": "2>&1", "a full disk": "2>/dev/full", "closed": "2>&-", "all closed": "<&- >&- 2>&-"}


def answers(port: int) -> bool:
    with closing(socket.socket()) as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("broken", BROKEN)
def test_a_service_with_a_broken_standard_error_serves_and_stops(default_project: Path, broken: str) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["sh", "-c", f'exec "$0" -m my_service --port {port} {BROKEN[broken]}', sys.executable]
    settings = {"MY_SERVICE_DRAIN_SECONDS": "0"}
    with subprocess.Popen(
        command, cwd=default_project, env=environment(default_project) | settings, stdout=subprocess.PIPE
    ) as service:
        try:
            assert service.stdout is not None
            if broken == "a reader that ends":
                assert b"serving on" in service.stdout.readline()  # as `2>&1 | head -1` does
            service.stdout.close()
            deadline = monotonic() + TIMEOUT
            while not answers(port):
                assert service.poll() is None
                assert monotonic() < deadline
                sleep(0.02)
            for _ in range(2):
                with connect(f"ws://127.0.0.1:{port}/ws/echo", proxy=None, open_timeout=TIMEOUT) as client:
                    client.send('{"type":"say","text":"hi"}')
                    assert "said" in str(client.recv(timeout=TIMEOUT))
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
                assert 'log_lines_lost_total{reason="unwritten"} 0.0' not in answer.read().decode()
            service.terminate()
            assert service.wait(TIMEOUT) == 0
        finally:
            service.kill()
