"""What is rendered is clean under its own ruff, mypy --strict and pyright strict, and passes its own tests."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from . import forked
from .cases import params
from .rendering import HOSTILE, check, environment, replace, run

ANSWERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "hostile text, longest names, everything": HOSTILE
    | {
        "auth": "jwt",
        "fanout": "postgres",
        "telemetry": "opentelemetry",
        "docker": True,
        "ci": "gitlab",
        "license": "proprietary",
    },
    "shortest names, nothing, newest Python": {
        "project_slug": "a",
        "package_name": "a",
        "demo_page": False,
        "asyncapi": False,
        "fanout": "redis",
        "ci": "none",
        "python_version": "3.14",
    },
}


def assert_clean(project: Path) -> None:
    check(project, "ruff", "check")
    check(project, "ruff", "format", "--check")
    check(project, "mypy")
    check(project, "pyright", "--pythonpath", sys.executable)


def assert_tests_pass(project: Path) -> None:
    """Assert that pytest passes, and prints nothing but its dots."""
    result = run(project, "pytest", "-q", "-n0")
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    *dots, counts = result.stdout.splitlines()
    assert all(re.fullmatch(r"[.u]+ +\[ *\d+%\]", line) for line in dots), result.stdout
    assert re.fullmatch(r"\d+ passed(, \d+ subtests passed)? in .*", counts), result.stdout


each_project = pytest.mark.parametrize(
    "answers", params(ANSWERS, {"defaults", "hostile text, longest names, everything"})
)


@each_project
def test_it_is_clean_under_its_own_tools(rendered: Callable[..., Path], answers: dict[str, Any]) -> None:
    assert_clean(rendered(**answers))


@pytest.mark.parametrize("version", ["py312", "py313", "py314"])
def test_the_same_code_is_clean_for_each_python(project: Path, version: str) -> None:
    check(project, "ruff", "check", "--target-version", version)
    check(project, "ruff", "format", "--check", "--target-version", version)


@each_project
def test_its_own_tests_pass(rendered: Callable[..., Path], answers: dict[str, Any]) -> None:
    assert_tests_pass(rendered(**answers))


@pytest.mark.parametrize("demo_page", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_without_its_listeners_it_is_green(rendered: Callable[..., Path], demo_page: bool) -> None:
    """A user deletes echo, rooms and perhaps the page: files, lines in app.py, messages and tests."""
    project = rendered(demo_page=demo_page)
    package = project / "src" / "my_service"
    for name, listener in (("echo", "echo"), ("rooms", "Rooms")):
        (package / "listeners" / f"{name}.py").unlink()
        (project / "tests" / "listeners" / f"test_{name}.py").unlink()
        replace(package / "app.py", f"from .listeners.{name} import {listener}\n", "")
        replace(package / "app.py", f"            {listener},\n", "")
    replace(package / "app.py", "route_handlers=[\n        ]", "route_handlers=[]")
    (package / "messages.py").write_text('"""What clients and service say."""\n')
    assert_clean(project)
    assert_tests_pass(project)


@pytest.mark.exhaustive
def test_its_tests_pass_in_a_subfolder(project: Path) -> None:
    """As in a repository of several services, from its root."""
    status, written = forked.run_pytest(
        project.parent, "-q", "-n0", project.name, environment=environment(project), timeout=240
    )
    assert status == 0, written
    assert " passed" in written


def test_an_editor_outside_of_the_environment_finds_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".venv").symlink_to(sys.prefix)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("PATH", str(Path(which("node") or "/usr/bin/node").parent))
    check(project, "pyright", "src/my_service/app.py")
