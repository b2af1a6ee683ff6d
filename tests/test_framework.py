"""The framework passes its tests in what is rendered, with each of these answers."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .rendering import FRAMEWORK, NEEDED_ANSWERS, Renders, check, run_pytest

DEFAULTS = {"auth": "none", "fanout": "memory"}
ANSWERS: dict[str, dict[str, Any]] = {
    "defaults": DEFAULTS,
    "everything": {"auth": "jwt", "fanout": "postgres", "telemetry": "opentelemetry", "docker": True},
    "redis, nothing else": DEFAULTS | {"fanout": "redis", "asyncapi": False, "demo_page": False},
}
WITH_PROCESSES = {"auth", "engine", "fanout", "independence", "server"}
"""The folders whose tests start processes, so that each of them takes as long as all others together."""
QUICK = {
    ("defaults", "all others"),
    ("defaults", "fanout"),
    ("defaults", "server"),
    ("everything", "auth"),
    ("redis, nothing else", "engine"),
}
"""Those that run every time: each folder once, and of the engines Redis. The others are `exhaustive`."""
FOLDERS = {path.name for path in FRAMEWORK.iterdir() if (path / "__init__.py").exists()}


@pytest.fixture
def overlaid(renders: Renders, tmp_path: Path, answers: str) -> Path:
    """A project with the tests of the framework; it may be changed."""
    return Path(shutil.copytree(renders.compiled(**ANSWERS[answers]), tmp_path / "project"))


def test_every_test_is_in_a_folder_and_every_folder_has_some() -> None:
    assert not list(FRAMEWORK.glob("test_*.py"))
    assert FOLDERS > WITH_PROCESSES
    for folder in sorted(FOLDERS):
        assert list((FRAMEWORK / folder).rglob("test_*.py")), folder


def cases() -> Iterator[tuple[str, str]]:
    """Yield each set of answers with each folder whose tests it brings, those that are quick in one."""
    for name, answers in ANSWERS.items():
        yield name, "all others"
        for folder in sorted(WITH_PROCESSES):
            question, wanted = NEEDED_ANSWERS.get(folder, ("fanout", {answers["fanout"]}))
            if answers[question] in wanted:
                yield name, folder


@pytest.mark.parametrize(
    ("answers", "folder"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.exhaustive) for case in cases()],
)
@pytest.mark.timeout(1300)  # the proofs of planted mistakes take some five minutes of a core
def test_the_framework_passes_its_tests(overlaid: Path, folder: str) -> None:
    chosen = {folder} if folder in WITH_PROCESSES else FOLDERS - WITH_PROCESSES
    places = [f"tests/framework/{each}" for each in sorted(chosen) if (overlaid / "tests/framework" / each).exists()]
    status, written = run_pytest(overlaid, "-q", "-n0", "-p", "no:cacheprovider", *places, timeout=1200)
    assert status == 0, written[-6000:]
    assert "skipped" not in written


@pytest.mark.exhaustive
@pytest.mark.parametrize("answers", ANSWERS)
def test_the_tests_of_the_framework_are_clean(overlaid: Path) -> None:
    check(overlaid, "ruff", "check", "tests")
    check(overlaid, "ruff", "format", "--check", "tests")
    check(overlaid, "mypy", "tests")
    check(overlaid, "pyright", "--pythonpath", sys.executable, "tests")


def test_the_service_imports_nothing_of_what_its_tests_are_made_of(default_project: Path) -> None:
    look = "import sys; from my_service.app import create_app; create_app(); print(*sys.modules, sep='\\n')"
    imported = check(default_project, "python", "-c", look).splitlines()
    assert "my_service.realtime.plugin" in imported
    assert [name for name in imported if name == "pytest" or name.startswith("my_service.realtime.testing")] == []
