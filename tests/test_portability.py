"""What is rendered can be checked out on Windows and macOS, and stays fresh: no name and no cap is in the way.

What needs these systems themselves is run by the matrix in .github/workflows.
"""

import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from .history import git
from .rendering import HOSTILE, ROOT
from .test_render import COMBINATIONS, files

Rendered = Callable[..., Path]
RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
LONGEST = 160
"""Windows takes paths of 260 characters by default, and the project lies in some folder."""


def problems_of(names: set[str]) -> Iterator[str]:
    for name in sorted(names):
        for part in name.split("/"):
            if re.search(r'[<>:"\\|?*\x00-\x1f]', part) or part.endswith((".", " ")):
                yield f"{name}: a character that Windows does not take"
            if part.split(".")[0].lower() in RESERVED:
                yield f"{name}: a device of Windows"
        if len(name) > LONGEST:
            yield f"{name}: too long"
    if len({name.lower() for name in names}) < len(names):
        yield "two names that differ by case alone"


@pytest.mark.parametrize("answers", [*COMBINATIONS[:6], HOSTILE | {"auth": "jwt", "docker": True}], ids=str)
def test_the_names_of_the_files_are_good_everywhere(rendered: Rendered, answers: dict[str, Any]) -> None:
    assert list(problems_of(set(files(rendered(**answers))))) == []


@pytest.mark.parametrize("name", ["a:b", "aux.py", "COM1", "dot.", "a" * 161])
def test_a_bad_name_is_found(name: str) -> None:
    assert list(problems_of({name}))


def test_names_that_differ_by_case_alone_are_found() -> None:
    assert list(problems_of({"Readme.md", "README.md"}))


def test_the_template_itself_can_be_checked_out_on_windows() -> None:
    """Its names hold Jinja, with single quotes: double ones are what Windows does not take."""
    assert not [name for name in git(ROOT, "ls-files").splitlines() if re.search(r'[<>:"\\|?*]', name.strip('"'))]


@pytest.mark.parametrize("answers", [{}, {"auth": "jwt", "docker": True, "dependency_bot": "renovate"}], ids=str)
def test_nothing_that_git_ignores_is_rendered(rendered: Rendered, answers: dict[str, Any]) -> None:
    """An update would overwrite it, as it would an `.env`; and the lock file is the user's from birth."""
    project = rendered(**answers)
    git(project, "init", "--quiet")
    names = files(project).keys()
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=project, capture_output=True, text=True, check=False)
    assert ignored.stdout == ""
    assert "uv.lock" not in names
    assert "uv.lock" not in (project / ".gitignore").read_text("utf-8")


def requirements(pyproject: Path) -> Iterator[str]:
    told = tomllib.loads(pyproject.read_text("utf-8"))
    yield from told["project"]["dependencies"]
    for group in (*told["project"].get("optional-dependencies", {}).values(), *told["dependency-groups"].values()):
        yield from group
    yield from told.get("build-system", {}).get("requires", [])


@pytest.mark.parametrize("whose", ["ours", "the user's"])
def test_every_requirement_has_a_lower_bound_and_no_upper_one(rendered: Rendered, whose: str) -> None:
    project = ROOT if whose == "ours" else rendered(auth="jwt", telemetry="opentelemetry")
    for requirement in requirements(project / "pyproject.toml"):
        assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?>=[\w.]+", requirement), requirement


@pytest.mark.parametrize("fanout", ["redis", "postgres"])
def test_our_lowest_versions_are_those_of_the_service(rendered: Rendered, fanout: str) -> None:
    """Its tests run with our tools; so our lowest versions prove its own."""
    bounds: list[dict[str, str]] = []
    for pyproject in (ROOT, rendered(auth="jwt", telemetry="opentelemetry", fanout=fanout)):
        found: dict[str, str] = {}
        for requirement in requirements(pyproject / "pyproject.toml"):
            name, version = re.sub(r"\[.*\]", "", requirement).split(">=")
            found[name] = max(found.get(name, "0"), version, key=Version)
        bounds.append(found)
    ours, theirs = bounds
    assert {name: ours[name] for name in theirs.keys() - {"pre-commit"}}.items() <= theirs.items()


def test_the_version_is_written_down(rendered: Rendered) -> None:
    """One that is derived from git makes the first run fail, before there is a commit."""
    told = tomllib.loads((rendered() / "pyproject.toml").read_text("utf-8"))
    assert told["project"]["version"] == "0.1.0"
    assert "dynamic" not in told["project"]


def test_no_time_is_rendered() -> None:
    """It would conflict with itself at the next update."""
    for name in git(ROOT, "ls-files", "*.jinja", "includes", "copier.yml").splitlines():
        file = ROOT / name.strip('"')
        expressions = re.findall(r"\{[{%].*?[%}]\}", file.read_text("utf-8"), re.DOTALL) if file.is_file() else []
        assert not re.search(r"strftime|now\(", " ".join(expressions)), name
