"""`copier update`: the newest wiring arrives, and nothing of the user's moves, is lost or comes back."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import copier
import pytest

from .rendering import WITHOUT_PROCESSES, copy_of_the_template, replace, run

TEMPLATE = "template/src/{{package_name}}"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A step")


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository with the version 1.0.0, which is as it stands, and a later 1.1.0."""
    repository = copy_of_the_template(tmp_path_factory.mktemp("versions"))
    git(repository, "init", "--quiet")
    commit(repository)
    git(repository, "tag", "1.0.0")
    replace(repository / TEMPLATE / "connections/lifespan.py", '"""The life of', '"""A newer life of')
    replace(repository / TEMPLATE / "app.py.jinja", "            metrics,\n", "            metrics,  # newer\n")
    replace(repository / TEMPLATE / "settings.py", "    port: int", "    newer: int = 0\n    port: int")
    replace(repository / TEMPLATE / "listeners/echo.py", "Yours:", "Newer:")
    replace(repository / TEMPLATE / "state.py", "Yours:", "Newer:")
    replace(repository / "template/pyproject.toml.jinja", '>=2.25",', '>=2.25.0",')
    replace(repository / "template/pyproject.toml.jinja", '"pytest>=9"', '"pytest>=9.0"')
    replace(repository / "template/README.md.jinja", "## Settings", "## The settings")
    (repository / TEMPLATE / "connections/newer.py").write_text('"""A newer module."""\n')
    commit(repository)
    git(repository, "tag", "1.1.0")
    return repository


@pytest.fixture
def project(versions: Path, tmp_path: Path) -> Path:
    """A project made from 1.0.0, under git, as a user has it."""
    project = tmp_path / "my-service"
    copier.run_copy(str(versions), project, vcs_ref="1.0.0", defaults=True, unsafe=False, quiet=True)
    git(project, "init", "--quiet")
    commit(project)
    return project


def update(project: Path, **options: Any) -> None:
    copier.run_update(project, defaults=True, overwrite=True, unsafe=False, quiet=True, context_lines=3, **options)
    conflicts = [
        file for file in project.rglob("*") if file.is_file() and "\n<<<<<<< " in file.read_text("utf-8", "replace")
    ]
    assert conflicts == []
    assert list(project.rglob("*.rej")) == []


def contents(project: Path) -> dict[str, str]:
    files = (path for path in project.rglob("*") if path.is_file() and ".git" not in path.relative_to(project).parts)
    return {str(path.relative_to(project)): path.read_text() for path in files}


def test_without_edits_it_equals_a_fresh_render_except_for_what_is_yours(
    versions: Path, project: Path, tmp_path: Path
) -> None:
    update(project)
    copier.run_copy(str(versions), tmp_path / "fresh" / "my-service", vcs_ref="1.1.0", defaults=True, quiet=True)
    updated, fresh = contents(project), contents(tmp_path / "fresh" / "my-service")
    yours = {"src/my_service/state.py", "src/my_service/listeners/echo.py"}
    assert updated.keys() == fresh.keys()
    assert {name for name in fresh if updated[name] != fresh[name]} == yours


def test_every_edit_of_the_user_stays_and_every_change_of_the_template_arrives(project: Path) -> None:
    package = project / "src" / "my_service"
    edits: list[tuple[Path, str, str]] = [
        (package / "state.py", "    count: int = 0", "    name: str = ''\n    count: int = 0"),
        (package / "hooks.py", '"""Called for every', '"""Mine. Called for every'),
        (package / "messages.py", "    text: str\n", "    text: str\n    loud: bool = False\n"),
        (package / "listeners" / "rooms.py", '"""Tell everybody', '"""Mine. Tell everybody'),
        (package / "app.py", "            Rooms,\n", "            Rooms,\n            mine,\n"),
        (package / "app.py", "from .logs", "from .listeners.mine import mine\nfrom .logs"),
        (
            project / "pyproject.toml",
            "    # Yours from here on.\n]\n\n[project.opt",
            '    # Yours from here on.\n    "msgspec-m",\n]\n\n[project.opt',
        ),
        (project / "README.md", "## The checks", "## Ours\n\nA paragraph.\n\n## The checks"),
    ]
    for file, old, new in edits:
        replace(file, old, new)
    (package / "listeners" / "mine.py").write_text('"""Mine."""\n')
    (package / "listeners" / "echo.py").unlink()
    (project / "tests" / "listeners" / "test_echo.py").unlink()
    commit(project)
    update(project)
    for file, _, new in edits:
        assert new in file.read_text(), file
    assert "            metrics,  # newer\n" in (package / "app.py").read_text()
    assert not (package / "listeners" / "echo.py").exists()
    assert not (project / "tests" / "listeners" / "test_echo.py").exists()
    assert (package / "listeners" / "mine.py").exists()
    assert "Newer:" not in (package / "state.py").read_text()
    assert "A newer life" in (package / "connections" / "lifespan.py").read_text()
    assert "newer: int" in (package / "settings.py").read_text()
    assert (package / "connections" / "newer.py").exists()
    pyproject = (project / "pyproject.toml").read_text()
    assert '"litestar>=2.25.0"' in pyproject
    assert '"pytest>=9.0"' in pyproject
    assert "## The settings" in (project / "README.md").read_text()


def test_a_second_update_changes_nothing(project: Path) -> None:
    update(project)
    commit(project)
    update(project)
    assert git(project, "status", "--short") == ""


def test_recopy_leaves_what_is_yours_alone(project: Path) -> None:
    state = project / "src" / "my_service" / "state.py"
    replace(state, "Yours:", "Mine:")
    commit(project)
    copier.run_recopy(project, defaults=True, overwrite=True, unsafe=False, quiet=True)
    assert "Mine:" in state.read_text()
    assert "A newer life" in (project / "src/my_service/connections/lifespan.py").read_text()


def test_the_answers_may_change_with_the_update(project: Path) -> None:
    update(project, data={"ci": "gitlab", "demo_page": False, "listeners": ["chat"], "auth": "jwt"})
    assert not (project / ".github").exists()
    assert (project / ".gitlab-ci.yml").exists()
    assert not (project / "src/my_service/page").exists()
    assert (project / "src/my_service/listeners/chat.py").exists()
    assert (project / "src/my_service/auth").exists()
    assert "Auth(AuthSettings.load())" in (project / "src/my_service/app.py").read_text()


def test_a_project_that_was_updated_passes_its_tests(project: Path) -> None:
    update(project)
    (project / "src/my_service/settings.py").write_text(
        (project / "src/my_service/settings.py").read_text().replace("    newer: int = 0\n", "")
    )  # the newer setting of this test is in no .env.example
    result = run(project, "pytest", "-q", "-n0", *WITHOUT_PROCESSES)
    assert result.returncode == 0, result.stdout


def test_it_is_rendered_from_a_repository_without_a_tag(template: Path, tmp_path: Path) -> None:
    untagged = Path(shutil.copytree(template, tmp_path / "untagged"))
    git(untagged, "init", "--quiet")
    commit(untagged)
    copier.run_copy(str(untagged), tmp_path / "my-service", defaults=True, unsafe=False, quiet=True)
    assert "_commit: " in (tmp_path / "my-service" / ".copier-answers.yml").read_text()
