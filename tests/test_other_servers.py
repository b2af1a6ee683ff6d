"""Under a server that is not the service's own, it says at the start what is missing, and keeps what it can."""

import json
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Timer
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .rendering import environment
from .service import TIMEOUT


def wait_for_port(port: int) -> None:
    deadline = monotonic() + TIMEOUT
    while True:
        with closing(socket.socket()) as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert monotonic() < deadline
        sleep(0.02)


def test_uvicorn_by_itself_is_named_and_the_size_of_a_message_holds(default_project: Path) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "my_service.app:create_app", "--port", str(port)]
    settings = {"MY_SERVICE_LOG_FORMAT": "json", "MY_SERVICE_MAX_MESSAGE_SIZE": "100", "MY_SERVICE_LOG_LEVEL": "INFO"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, cwd=default_project, env=environment(default_project) | settings, **pipes
    ) as service:
        timer = Timer(TIMEOUT, service.kill)
        timer.start()
        try:
            assert service.stderr is not None
            lines = (json.loads(line) for line in service.stderr if line.startswith("{"))
            warned = next(line for line in lines if line["event"] == "the service does not run on its own server")
            assert "drain" in warned["missing"]
            assert warned["fix"] == "run python -m my_service"
            wait_for_port(port)
            with connect(f"ws://127.0.0.1:{port}/ws/echo", proxy=None, open_timeout=TIMEOUT) as client:
                client.send("x" * 101)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(timeout=TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
            with pytest.raises(HTTPError, match="426"):
                urlopen(f"http://127.0.0.1:{port}/ws/echo?token=SECRET", timeout=TIMEOUT)
            service.kill()
            assert "SECRET" not in "".join(service.communicate(timeout=TIMEOUT))
        finally:
            service.kill()
            timer.cancel()
