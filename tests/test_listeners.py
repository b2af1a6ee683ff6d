"""The next listener: one answer more adds it, one less takes it away, and what is the user's stays as it is."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import copier
import pytest

from .history import commit, git
from .rendering import check, copy_of_the_template, replace

SECONDS = 240


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository with one version, which is as it stands."""
    repository = copy_of_the_template(tmp_path_factory.mktemp("released"))
    git(repository, "init", "--quiet")
    commit(repository)
    git(repository, "tag", "1.0.0")
    return repository


@pytest.fixture
def project(released: Path, tmp_path: Path) -> Path:
    """A project with three listeners of its own, under git."""
    project = tmp_path / "my-service"
    answers = {"listeners": "chat, prices:class, news"}
    copier.run_copy(str(released), project, data=answers, defaults=True, unsafe=False, quiet=True)
    git(project, "init", "--quiet")
    commit(project)
    return project


def answer(project: Path, listeners: str) -> str:
    """Give another answer as the README says; return what Copier said."""
    command = ["copier", "update", "--defaults", "--vcs-ref", ":current:", "--context-lines", "3"]
    result = subprocess.run(
        [sys.executable, "-m", *command, "--data", f"listeners={listeners}"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    return result.stderr


def changes(project: Path) -> dict[str, str]:
    """Return what git has to say of each file that is not as it was."""
    lines = git(project, "status", "--short", "--untracked-files=all").splitlines()
    return {line[3:]: line[:2].strip() for line in lines}


def files_of(name: str) -> tuple[str, str]:
    return f"src/my_service/listeners/{name}.py", f"tests/listeners/test_{name}.py"


def is_green(project: Path) -> None:
    check(project, "ruff", "check")
    check(project, "ruff", "format", "--check")
    assert " passed" in check(project, "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/listeners")


def test_listeners_come_and_go_and_edits_stay(project: Path) -> None:
    chat, prices = (project / files_of(name)[0] for name in ("chat", "prices"))
    replace(chat, "Answer each message. Write here what it really does.", "Mine.")
    replace(prices, "Write here what it is for.", "Mine.")
    commit(project)

    answer(project, "chat, prices:class, news, weather:class")
    added = dict.fromkeys(files_of("weather"), "??")
    assert changes(project) == {".copier-answers.yml": "M", "src/my_service/app.py": "M"} | added
    is_green(project)
    commit(project)

    said = answer(project, "prices:class, news, weather:class")
    gone = dict.fromkeys(files_of("chat"), "D")
    assert changes(project) == {".copier-answers.yml": "M", "src/my_service/app.py": "M"} | gone
    assert "`git ls-files --deleted` lists" in said
    assert "Mine." in prices.read_text()
    is_green(project)
    git(project, "restore", files_of("chat")[0])
    assert "Mine." in chat.read_text()


def test_the_listeners_that_came_with_the_template_may_be_gone(project: Path) -> None:
    """The lines of the answer stand apart from the user's, so neither is in the way of the other."""
    app = project / "src" / "my_service" / "app.py"
    for line in ("from .listeners.rooms import Rooms\n", "            Rooms,\n"):
        replace(app, line, "")
    for name in files_of("rooms"):
        (project / name).unlink()
    replace(app, "from .logs", "from .listeners.mine import mine\nfrom .logs")
    replace(app, "            echo,\n", "            mine,\n            echo,\n")
    (project / "src/my_service/listeners/mine.py").write_text("mine: list[str] = []\n")
    (project / "SECURITY.md").unlink()
    commit(project)
    answer(project, "news, sensors")
    assert "<<<<<<<" not in app.read_text()
    assert "            mine,\n            echo,\n            # The template's." in app.read_text()
    assert "Rooms" not in app.read_text()
    assert set(changes(project)) == {
        ".copier-answers.yml",
        "src/my_service/app.py",
        *files_of("chat"),
        *files_of("prices"),
        *files_of("sensors"),
    }


def test_a_file_of_the_user_is_neither_overwritten_nor_brought_back(project: Path) -> None:
    package = project / "src" / "my_service" / "listeners"
    (package / "stock.py").write_text('"""Mine."""\n')
    (package / "news.py").unlink()
    commit(project)
    answer(project, "chat, prices:class, news, stock")
    assert (package / "stock.py").read_text() == '"""Mine."""\n'
    assert not (package / "news.py").exists()


def test_who_follows_only_the_readme_has_a_listener_in_five_commands(released: Path, tmp_path: Path) -> None:
    project = tmp_path / "my-service"
    copier.run_copy(str(released), project, defaults=True, unsafe=False, quiet=True)
    section = (project / "README.md").read_text().partition("\n## The next listener\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    commands = block.splitlines()
    assert len(commands) <= 5
    identity = {f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIRTUAL_ENV"))}
    tools = shlex.quote(str(Path(sys.executable).parent))
    for command in commands:
        result = subprocess.run(
            ["bash", "-c", f"export PATH={tools}:$PATH; {command}"],
            cwd=project,
            env=kept | identity,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    assert re.search(r"\b\d+ passed", result.stdout)
    assert {*files_of("chat"), *files_of("prices")} < set(changes(project))
