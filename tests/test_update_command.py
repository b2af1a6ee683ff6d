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

exhaustive = pytest.mark.exhaustive
TESTS_THAT = {"pass": 0, "fail": 1}


def run_update(project: Path, *options: str, tests: str = "pass", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as `uv run` does, with the Copier of this repository, and with tests that pass or fail."""
    uv = project.parent / "uv"
    uv.write_text(f'#!/bin/sh\necho "ran: $*"\nexit {TESTS_THAT[tests]}\n')
    uv.chmod(0o755)
    return subprocess.run(
        [sys.executable, "update.py", *options],
        cwd=project,
        env=os.environ | {"UV": str(uv), "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"} | variables,
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


SETTINGS = {
    "apply.ignoreWhitespace": "change",
    "apply.whitespace": "error-all",
    "color.status": "always",
    "color.ui": "always",
    "commit.gpgSign": "true",
    "core.attributesFile": "$attributes",
    "core.autocrlf": "true",
    "core.commentChar": "<",
    "core.eol": "crlf",
    "core.excludesFile": "$ignore",
    "core.fileMode": "false",
    "core.fsmonitor": "true",
    "core.hooksPath": "$hooks",
    "core.ignoreCase": "true",
    "core.pager": "false",
    "core.quotePath": "false",
    "core.safecrlf": "true",
    "core.splitIndex": "true",
    "core.untrackedCache": "true",
    "core.whitespace": "tab-in-indent,trailing-space,cr-at-eol",
    "diff.algorithm": "patience",
    "diff.context": "0",
    "diff.external": "false",
    "diff.ignoreSubmodules": "all",
    "diff.interHunkContext": "20",
    "diff.mnemonicPrefix": "true",
    "diff.noprefix": "true",
    "diff.renames": "copies",
    "diff.suppressBlankEmpty": "true",
    "feature.manyFiles": "true",
    "grep.patternType": "fixed",
    "index.version": "4",
    "init.templateDir": "$hooks",
    "log.showSignature": "true",
    "merge.conflictStyle": "zdiff3",
    "pager.status": "false",
    "rerere.enabled": "true",
    "safe.bareRepository": "explicit",
    "status.branch": "true",
    "status.relativePaths": "false",
    "status.short": "true",
    "status.showUntrackedFiles": "no",
    "status.submoduleSummary": "true",
    "submodule.recurse": "true",
    "tag.gpgSign": "true",
    "user.useConfigOnly": "true",
}
"""What users tell git, each with a value under which a conflict may be missed. `$` stands for a folder or file."""


@pytest.mark.parametrize("conflict", ["inline", "rej"])
@pytest.mark.parametrize(
    "settings",
    [pytest.param([*SETTINGS], id="all"), *(pytest.param([name], id=name, marks=exhaustive) for name in SETTINGS)],
)
def test_a_conflict_is_found_whatever_git_is_told(project: Path, settings: list[str], conflict: str) -> None:
    (project.parent / "attributes").write_text("* binary\n")
    (project.parent / "ignore").write_text("*.rej\n*.orig\n")
    for name in ("pre-commit", "post-checkout", "hooks/pre-commit", "hooks/post-checkout"):
        hook = project.parent / "hooks" / name
        hook.parent.mkdir(parents=True, exist_ok=True)
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    told = project.parent / "gitconfig"
    for name in settings:
        git(project, "config", "--file", str(told), name, SETTINGS[name].replace("$", f"{project.parent}/"))
    replace(project / "Dockerfile", "WORKDIR /service\n", "WORKDIR /service\nRUN mine\n")
    commit(project)
    result = run_update(project, f"--conflict={conflict}", GIT_CONFIG_GLOBAL=str(told))
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    named = "Dockerfile" if conflict == "inline" else "Dockerfile.rej"
    assert f"there are conflicts. Fix: resolve them, then run `uv run pytest`:\n\n{named}\n\n" in result.stderr
    assert "RUN mine" in (project / named).read_text("utf-8")
    assert "RUN newer" in (project / "Dockerfile").read_text("utf-8")


def test_the_settings_of_git_are_forty() -> None:
    assert len(SETTINGS) >= 40


@pytest.mark.parametrize("option", ["--help", "--pretend", "--data=demo_page", "--conflict=maybe", "--dat=a=b", "now"])
def test_an_option_that_it_does_not_have_changes_nothing(project: Path, option: str) -> None:
    before = contents(project)
    result = run_update(project, option)
    if option == "--help":
        assert result.returncode == 0
        assert "--vcs-ref VERSION" in result.stdout
    else:
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.splitlines()[-1].startswith("update.py: error: ")
    assert "Traceback" not in result.stderr
    assert contents(project) == before


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of an update that has failed with a message and no traceback."""
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_git_may_be_missing(project: Path) -> None:
    assert one_line(run_update(project, PATH=str(project))) == "update.py: git is not installed. Fix: install it."


def test_the_answers_may_be_missing(project: Path) -> None:
    (project / ".copier-answers.yml").unlink()
    commit(project)
    assert ".copier-answers.yml is missing. Fix: restore it" in one_line(run_update(project))


@pytest.mark.parametrize("text", ["", "- 1\n", "a: b: c\n", "_commit: 1.0.0\n"])
def test_the_answers_may_be_broken(project: Path, text: str) -> None:
    (project / ".copier-answers.yml").write_text(text)
    commit(project)
    assert "does not name the template. Fix: restore it with git." in one_line(run_update(project))


def test_a_project_that_was_copied_without_git_is_told_how_to_be_updated(project: Path) -> None:
    answers = project / ".copier-answers.yml"
    answers.write_text(re.sub("(?m)^_commit: .*\n", "", answers.read_text("utf-8")), "utf-8")
    commit(project)
    assert "copied without git. Fix: write `_commit: VERSION`" in one_line(run_update(project))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user")
def test_a_folder_of_another_user_is_named(project: Path) -> None:
    os.chown(project, 12345, -1)
    assert "git config --global --add safe.directory" in one_line(run_update(project))


def test_it_is_left_alone_by_the_repository_of_a_hook(project: Path) -> None:
    assert run_update(project, GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere/index").returncode == 0


def test_an_answer_to_no_question_is_refused(history: History, tmp_path: Path) -> None:
    result = run_update(history.render(AFTER, tmp_path), "--data=live_pgae=false")
    assert result.returncode == 1
    assert "the template does not ask for live_pgae" in result.stderr


def test_a_package_is_renamed_by_hand(project: Path) -> None:
    """The five steps, as they are told; then an update leaves nothing of the old name behind."""
    before = contents(project)
    result = run_update(project, "--data", "package_name=chat")
    assert (result.returncode, result.stdout) == (1, "")
    assert contents(project) == before
    steps = re.findall(r"^  \d\. (.*)$", result.stderr, re.MULTILINE)
    assert len(steps) == 5
    git(project, *steps[0].split()[1:])
    replace(project / ".copier-answers.yml", "package_name: my_service", "package_name: chat")
    assert "`package_name: chat`" in steps[1]
    listing = re.search(r"`git (grep --ignore-case my_service)`", steps[2])
    assert listing
    for name in {line.partition(":")[0] for line in git(project, *listing[1].split()).splitlines()}:
        text = (project / name).read_text("utf-8")
        (project / name).write_text(text.replace("MY_SERVICE_", "CHAT_").replace("my_service", "chat"), "utf-8")
    commit(project)
    result = run_update(project)
    assert result.returncode == 0, result.stderr
    assert not (project / "src" / "my_service").exists()
    assert (project / "src" / "chat" / "realtime" / "newer.py").exists()
    assert git(project, "grep", "--count", "CHAT_", ".env.example")
    assert not [name for name, text in contents(project).items() if "my_service" in text.lower()]


def test_old_steps_are_not_repeated(history: History, tmp_path: Path) -> None:
    """A version that needs no step by hand has no heading for it; those of the versions before are done."""
    repository = Path(shutil.copytree(history.repository, tmp_path / "template"))
    changelog = repository / "CHANGELOG.md"
    replace(changelog, "\n## ", "\n## 1003.0.0\n\nNo steps.\n\n## ")
    commit(repository)
    git(repository, "tag", "1003.0.0")
    project = history.render(AFTER, tmp_path)
    replace(project / ".copier-answers.yml", str(history.repository), str(repository))
    commit(project)
    for options in ((), ("plain",)):
        if options:
            git(project, "reset", "--hard")
            plain = [sys.executable, "-m", "copier", "update", "--defaults"]
            result = subprocess.run(plain, cwd=project, capture_output=True, text=True, check=False)
        else:
            result = run_update(project)
        assert result.returncode == 0, result.stderr
        assert "What has changed, 1003.0.0:\n\nNo steps." in result.stderr
        assert "What to do by hand" not in result.stderr


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


@exhaustive
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
