"""`update.py`, the command of a generated project: what it refuses, what it says, and what it checks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .edits import PACKAGE
from .history import AFTER, FUTURE, PRESENT, History, commit, contents, git
from .rendering import ROOT, replace

TESTS_THAT = {"pass": 0, "fail": 1}


def run_update(project: Path, *options: str, tests: str = "pass") -> subprocess.CompletedProcess[str]:
    """Run it as `uv run` does, with the Copier of this repository, and with tests that pass or fail."""
    uv = project.parent / "uv"
    uv.write_text(f'#!/bin/sh\necho "ran: $*"\nexit {TESTS_THAT[tests]}\n')
    uv.chmod(0o755)
    return subprocess.run(
        [sys.executable, "update.py", *options],
        cwd=project,
        env=os.environ | {"UV": str(uv), "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def project(history: History, tmp_path: Path) -> Path:
    return history.render(PRESENT, tmp_path)


def test_it_updates_says_what_has_changed_and_runs_the_tests(project: Path) -> None:
    result = run_update(project)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ran: run pytest\n"
    assert "The newest of all." in result.stderr
    assert "Older." not in result.stderr
    assert "done, and the tests pass" in result.stderr
    assert (project / PACKAGE / "realtime" / "newer.py").exists()
    assert git(project, "diff", "--cached", "--name-only") == ""


def test_it_says_what_each_version_since_has_changed(project: Path) -> None:
    """Two versions later, in the words of both; and the steps to take by hand."""
    result = run_update(project)
    for words in ("The newest of all.", "Newer.", "By hand: Newer."):
        assert words in result.stderr


def test_nothing_new_changes_nothing(history: History, tmp_path: Path) -> None:
    project = history.render(AFTER, tmp_path)
    result = run_update(project)
    assert (result.returncode, result.stdout) == (0, "")
    assert f"nothing new: this project has the newest version, {AFTER}" in result.stderr
    assert git(project, "status", "--short") == ""


def test_an_answer_changes_also_where_nothing_is_new(history: History, tmp_path: Path) -> None:
    project = history.render(AFTER, tmp_path)
    result = run_update(project, "--data=live_page=false")
    assert result.returncode == 0, result.stderr
    assert not (project / PACKAGE / "realtime" / "page").exists()
    assert yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))["live_page"] is False


def test_unsaved_work_is_refused(project: Path) -> None:
    replace(project / "README.md", "# My Service", "# Mine")
    before = contents(project)
    result = run_update(project)
    assert (result.returncode, result.stdout) == (1, "")
    assert "there are uncommitted changes. Fix: commit or stash them first:\n\n M README.md" in result.stderr
    assert contents(project) == before


def test_a_folder_without_git_is_refused(project: Path) -> None:
    (project / ".git").rename(project.parent / "not-git")
    result = run_update(project)
    assert (result.returncode, result.stdout) == (1, "")
    assert "this folder is not in a git repository. Fix: git init" in result.stderr


def test_a_downgrade_is_refused(history: History, tmp_path: Path) -> None:
    project = history.render(FUTURE, tmp_path)
    result = run_update(project, f"--vcs-ref={PRESENT}")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"You are downgrading from {FUTURE} to {PRESENT}" in result.stderr
    assert git(project, "status", "--short") == ""


def test_a_template_that_is_not_there_is_named(project: Path) -> None:
    """As it is after `copier copy . ../my-service`: Copier records a relative path as it is given."""
    answers = project / ".copier-answers.yml"
    answers.write_text(re.sub("(?m)^_src_path: .*$", "_src_path: ./template", answers.read_text("utf-8")), "utf-8")
    commit(project)
    result = run_update(project)
    assert (result.returncode, result.stdout) == (1, "")
    assert "_src_path in .copier-answers.yml is relative" in result.stderr


def test_a_conflict_is_found_and_named(project: Path) -> None:
    """Copier writes it into the file, and exits with 0."""
    replace(project / "Dockerfile", "WORKDIR /service\n", "WORKDIR /service\nRUN mine\n")
    commit(project)
    result = run_update(project)
    assert (result.returncode, result.stdout) == (1, "")
    assert "there are conflicts. Fix: resolve them, then run `uv run pytest`:\n\nDockerfile\n" in result.stderr
    git(project, *re.search(r"git (reset --hard) && git clean", result.stderr).group(1).split())  # type: ignore[union-attr]
    assert "RUN mine" in (project / "Dockerfile").read_text("utf-8")


def test_a_conflict_in_a_file_of_its_own_is_found(project: Path) -> None:
    replace(project / "Dockerfile", "WORKDIR /service\n", "WORKDIR /service\nRUN mine\n")
    commit(project)
    git(project, "config", "status.showUntrackedFiles", "no")
    result = run_update(project, "--conflict=rej")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Dockerfile.rej\n" in result.stderr


def test_tests_that_fail_fail_the_update(project: Path) -> None:
    result = run_update(project, tests="fail")
    assert result.returncode == 1
    assert "the tests fail" in result.stderr


ALIKE = """\
services:
  newer:
    image: newer
    ports:
      - "127.0.0.1:8000:8080"
    restart: unless-stopped
    <<: *least-rights
"""


def test_an_edit_lands_in_its_own_block_where_two_look_alike(history: History, tmp_path: Path) -> None:
    """With one line of context, the edit of the one service is found in the other, which stands where it was."""
    repository = Path(shutil.copytree(history.repository, tmp_path / "template"))
    replace(repository / "template" / "{% if docker %}compose.yaml{% endif %}.jinja", "services:\n", ALIKE)
    commit(repository)
    git(repository, "tag", "1003.0.0")
    project = history.render(PRESENT, tmp_path)
    compose = project / "compose.yaml"
    replace(compose, "    restart: unless-stopped\n", "    restart: always\n")
    replace(project / ".copier-answers.yml", str(history.repository), str(repository))
    commit(project)
    result = run_update(project)
    assert result.returncode == 0, result.stderr
    services = re.split(r"(?m)^  nginx:\n", compose.read_text("utf-8"))
    assert ["restart: always" in service for service in services] == [False, True]


def test_the_environment_of_this_machine_is_left_alone(project: Path) -> None:
    """A file that git ignores; a rendered one would be overwritten."""
    (project / ".env").write_text("MY_SERVICE_PORT=1\n")
    assert run_update(project).returncode == 0
    assert (project / ".env").read_text() == "MY_SERVICE_PORT=1\n"


def test_uv_runs_it_with_a_copier_of_its_own(project: Path) -> None:
    """The real command, with the real tests of the project; of those, one file."""
    uv = [sys.executable, "-m", "uv", "run"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIRTUAL_ENV"))}
    replace(project / "pyproject.toml", 'testpaths = ["tests"]', 'testpaths = ["tests/listeners"]')
    commit(project)
    subprocess.run([*uv, "--quiet", "python", "-c", ""], cwd=project, env=inherited, check=True, timeout=250)
    commit(project)  # the lock file, which is the user's
    options = [f"--vcs-ref={PRESENT}", "--data=demo_page=false"]
    result = subprocess.run(
        [*uv, "update.py", *options],
        cwd=project,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
    assert not (project / PACKAGE / "realtime" / "page").exists()


def test_the_changelog_can_be_shown() -> None:
    """`_message_after_update` includes it as a template; its headings are versions, the newest first."""
    for file in ("CHANGELOG.md", "UPGRADING.md"):
        text = (ROOT / file).read_text("utf-8")
        assert not re.search(r"\{[{%#]", text)
        for number, version in enumerate(re.findall(r"^## (\S+)", text, re.MULTILINE)):
            assert (number == 0 and version == "Unreleased") or re.fullmatch(r"\d+\.\d+\.\d+", version), version
