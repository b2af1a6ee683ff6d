"""The two commands of the README, read from it and run in a fresh clone; CI runs the second of them, twice."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from websockets.sync.client import connect

from .history import commit, git
from .rendering import ROOT, copy_of_the_template

SCAFFOLD, TEST = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
TIMEOUT = 240
"""Seconds in which a machine without a cache has fetched and built what it needs."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, in an empty folder, of what stands in the working tree."""
    origin = copy_of_the_template(tmp_path / "origin")
    git(origin, "init", "--quiet")
    commit(origin)
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


def fresh_environment(**more: str) -> dict[str, str]:
    """The environment of a newcomer: without the virtual environment and the test run that this is in."""
    ours = ("PYTEST_", "VIRTUAL_ENV", "UV_", "PYTHON")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(ours) or name.startswith("UV_INDEX")
    }
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if ".venv" not in part)
    return kept | more


@contextmanager
def group(command: str, cwd: Path, environment: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """Run a shell command with all that it starts, and end all of it."""
    process = subprocess.Popen(["bash", "-c", command], cwd=cwd, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_until_it_serves(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + TIMEOUT
    while process.poll() is None and monotonic() < deadline:
        with suppress(URLError, ConnectionError), urlopen(url, timeout=5):
            return
        sleep(0.2)  # it has no event to wait for: it is a process that begins to listen
    pytest.fail(f"it does not serve; exit status {process.poll()}")


def test_the_first_command_scaffolds_a_service_and_serves_it(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with group(SCAFFOLD, clone, fresh_environment(MY_SERVICE_PORT=str(port))) as process:
        wait_until_it_serves(f"http://127.0.0.1:{port}/ready", process)
        with connect(f"ws://127.0.0.1:{port}/ws/echo") as client:
            client.send('{"type":"say","text":"hi"}')
            assert json.loads(client.recv(timeout=10))["text"] == "hi"
    answers = yaml.safe_load((clone.parent / "my-service" / ".copier-answers.yml").read_text())
    assert answers["_src_path"] == str(clone), "a relative path would break a later update"


@pytest.mark.exhaustive
def test_the_second_command_runs_the_tests(clone: Path) -> None:
    few = fresh_environment(PYTEST_ADDOPTS="tests/test_readme.py -k test_ci_runs")
    result = subprocess.run(
        ["bash", "-c", TEST], cwd=clone, env=few, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_ci_runs_the_second_command_and_then_the_exhaustive_tests(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text('```sh\nfalse\n```\n```sh\necho "$CI:$PYTEST_ADDOPTS"\n```\n')
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", tmp_path / ".ci")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("apt-get", "sudo"):  # nothing is installed here
        (programs / name).symlink_to("/bin/true")
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    given = fresh_environment(PATH=path)
    script = tmp_path / ".ci" / "run"
    result = subprocess.run([script], env=given, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.stdout.split("\n") == ["true:", "true: -m exhaustive", ""], result.stderr


def test_every_question_is_in_the_readme() -> None:
    questions = yaml.safe_load((ROOT / "copier.yml").read_text())
    asked = {
        name for name, question in questions.items() if not name.startswith("_") and question.get("when") is not False
    }
    table = set(re.findall(r"`(\w+)`", (ROOT / "README.md").read_text().partition("## The questions")[2]))
    assert asked <= table
