"""What is rendered is clean under its own ruff, mypy --strict and pyright strict, and passes its own tests."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .rendering import HOSTILE, check

ANSWERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "hostile text, longest names, everything": HOSTILE
    | {
        "auth": "jwt",
        "fanout": "postgres",
        "docker": True,
        "ci": "gitlab",
        "listeners": ["chat", "a_name_of_thirty_characters_ab:class"],
        "license": "proprietary",
    },
    "shortest names, nothing, newest Python": {
        "project_slug": "a",
        "package_name": "a",
        "demo_page": False,
        "fanout": "redis",
        "ci": "none",
        "python_version": "3.14",
    },
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_it_is_clean_under_its_own_tools(rendered: Callable[..., Path], answers: dict[str, Any]) -> None:
    project = rendered(**answers)
    check(project, "ruff", "check")
    check(project, "ruff", "format", "--check")
    check(project, "mypy")
    check(project, "pyright", "--pythonpath", sys.executable)


@pytest.mark.parametrize("version", ["py312", "py313", "py314"])
def test_the_same_code_is_clean_for_each_python(project: Path, version: str) -> None:
    check(project, "ruff", "check", "--target-version", version)
    check(project, "ruff", "format", "--check", "--target-version", version)


def test_the_tests_of_redis_pass(rendered: Callable[..., Path]) -> None:
    """Those of PostgreSQL are among everything, below."""
    output = check(rendered(fanout="redis"), "pytest", "-q", "-n0", "tests/fanout/test_engine.py")
    assert " passed" in output


@pytest.mark.parametrize("name", ["defaults", "hostile text, longest names, everything"])
def test_its_own_tests_pass(rendered: Callable[..., Path], name: str) -> None:
    output = check(rendered(**ANSWERS[name]), "pytest", "-q", "-n0")
    assert " passed" in output
    assert "skipped" not in output
