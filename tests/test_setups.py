"""Unusual set-ups in which a project is made, checked out and tested; docs/setups.md lists them."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from uv import find_uv_bin

from . import forked
from .history import PRESENT, History, commit, git
from .rendering import ROOT, Renders, environment, render, run_pytest
from .service import Start

Rendered = Callable[..., Path]
TIMEOUT = 240

PROXY = "http://127.0.0.1:1"
"""A proxy that answers nobody."""
PROXIES = {name: PROXY for each in ("http", "https", "all") for name in (f"{each}_proxy", f"{each.upper()}_PROXY")}

DROP_CAPABILITY, MAY_WRITE_ANYWHERE = 24, 1
"""PR_CAPBSET_DROP and CAP_DAC_OVERRIDE: without it root, too, may write only where the mode of a folder says so."""

SERVED = '''"""Yours: it serves."""

from my_service.realtime.testing import Start


def test_it_serves(start: Start) -> None:
    service = start()
    assert service.get("/health")[0] == 200
    with service.connect() as socket:
        socket.ping().wait(20)
'''


def behind(project: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which no other variable leads past a proxy."""
    kept = {name: value for name, value in environment(project).items() if name.lower() != "no_proxy"}
    return kept | variables


def assert_it_is_tested(project: Path, *options: str, **variables: str) -> None:
    """Assert that its own tests pass, and one that starts a process."""
    (project / "tests" / "test_served.py").write_text(SERVED)
    status, written = forked.run_pytest(
        project, "-q", *options, environment=behind(project, **variables), timeout=TIMEOUT
    )
    assert status == 0, written
    assert " passed" in written


# --- Copies -----------------------------------------------------------------------------------------------------------


def copy(template: Path, folder: str, cwd: Path, **variables: str) -> str:
    """Copy as from a shell, and return what is said."""
    command = [sys.executable, "-m", "copier", "copy", "--defaults", str(template), folder]
    result = subprocess.run(
        command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_a_copy_into_the_folder_that_one_is_in_is_called_like_it(template: Path, tmp_path: Path) -> None:
    (tmp_path / "chat-rooms").mkdir()
    said = copy(template, ".", tmp_path / "chat-rooms")
    assert "chat-rooms is ready in ." in said
    assert "  cd " not in said


@pytest.mark.parametrize("reason", ["a copy without its history", "no git", "another user"])
def test_a_project_that_cannot_be_updated_is_told_so(
    template: Path, history: History, tmp_path: Path, reason: str
) -> None:
    if reason == "a copy without its history":
        said = copy(template, "chat", tmp_path)
    elif reason == "no git":
        said = copy(history.repository, "chat", tmp_path, PATH=str(tmp_path))
    else:
        foreign = Path(shutil.copytree(history.repository, tmp_path / "template"))
        said = copy(foreign, "chat", tmp_path, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert "This project cannot be updated: git could not read the template" in said
    assert "Fix: delete it, `git clone` the template, and copy from the clone." in said


def test_a_relative_path_is_told(history: History) -> None:
    said = copy(Path(history.repository.name), "relative", history.repository.parent)
    assert "This project cannot be updated from the relative path" in said


def test_all_others_are_told_what_to_do_next_and_no_more(history: History, tmp_path: Path) -> None:
    """The commands are those that are told; where there is a repository already, no other is made in it."""
    said = copy(history.repository, "chat", tmp_path)
    assert "cannot" not in said
    git(tmp_path, "init", "--quiet")
    told = [line.strip() for line in said.splitlines() if line.startswith("  ") and "uv run" not in line]
    assert len(told) == 3
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "uv").symlink_to("/bin/true")
    (tmp_path / "mine").write_text("")
    identity = {f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    subprocess.run(["sh", "-ec", "\n".join(told)], cwd=tmp_path, env=os.environ | identity | {"PATH": path}, check=True)
    assert not (tmp_path / "chat" / ".git").exists()
    committed = git(tmp_path, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    assert "chat/update.py" in committed
    assert all(name.startswith("chat/") for name in committed), "what is the user's is left alone"


# --- Networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_the_tests_pass_behind_a_proxy(project: Path) -> None:
    assert_it_is_tested(project, **PROXIES)


def test_a_container_is_healthy_behind_a_proxy(renders: Renders, start: Start) -> None:
    dockerfile = (renders.of(docker=True) / "Dockerfile").read_text()
    check = re.search(r"HEALTHCHECK .*\\\n +CMD (\[.*\])\n", dockerfile)
    assert check
    _, *options = json.loads(check[1])
    service = start()
    for port, healthy in ((service.address.rpartition(":")[2], True), ("1", False)):
        here = [option.replace(":8000", f":{port}") for option in options]
        result = subprocess.run([sys.executable, *here], env=os.environ | PROXIES, capture_output=True, check=False)
        assert (result.returncode == 0) is healthy, result.stderr


def test_the_readme_talks_to_the_service_behind_a_proxy(default_project: Path, start: Start) -> None:
    told = re.search(
        r"^\$ (\S+) uv run (websockets) ws://\S+(/ws/\S+)$", (default_project / "README.md").read_text(), re.M
    )
    assert told
    variable, program, path = told.groups()
    service = start()
    command = ["env", variable, sys.executable, "-m", program, f"ws://{service.address}{path}"]
    result = subprocess.run(
        command,
        env=behind(default_project, **PROXIES),
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Connected to" in result.stdout, result.stdout + result.stderr


# --- Checkouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [".env*", "*.example", ".env.example"])
def test_no_ignore_of_the_user_loses_the_example(project: Path, ignored: str) -> None:
    (project.parent / "ignore").write_text(f"{ignored}\n")
    git(project, "init", "--quiet")
    git(project, "config", "core.excludesFile", str(project.parent / "ignore"))
    (project / ".env").write_text("")
    commit(project)
    committed = git(project, "ls-files").splitlines()
    assert ".env.example" in committed
    assert ".env" not in committed


def test_no_ignore_of_a_folder_above_loses_the_example(project: Path) -> None:
    git(project.parent, "init", "--quiet")
    (project.parent / ".gitignore").write_text(".env*\n")
    git(project.parent, "add", "--all", ".")
    assert "my-service/.env.example" in git(project.parent, "ls-files").splitlines()


def test_a_checkout_has_the_same_bytes_on_every_system(history: History, tmp_path: Path) -> None:
    project = history.render(PRESENT, tmp_path)
    git(tmp_path, "-c", "core.autocrlf=true", "-c", "core.eol=crlf", "clone", "--quiet", str(project), "clone")
    assert not [name for name in (tmp_path / "clone").rglob("*.*") if name.is_file() and b"\r\n" in name.read_bytes()]
    assert (ROOT / ".gitattributes").read_text() in (tmp_path / "clone" / ".gitattributes").read_text()


def test_what_the_developer_has_set_changes_no_test(project: Path) -> None:
    (project / ".env").write_text("MY_SERVICE_PORT=nothing\nMY_SERVICE_NOTHING=1\nMY_SERVICE_MAX_CONNECTIONS=1\n")
    assert_it_is_tested(project, LITESTAR_DEBUG="1", MY_SERVICE_LOG_LEVEL="loud", MY_SERVICE_MAX_CONNECTIONS="1")


@pytest.mark.exhaustive
def test_a_long_folder_for_temporary_files_is_long_enough(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    assert_it_is_tested(project, TMPDIR=str(folder))


@pytest.mark.exhaustive
@pytest.mark.parametrize("plugin", ["xdist", "cacheprovider"])
def test_the_tests_need_no_plugin_that_only_makes_them_fast(project: Path, plugin: str) -> None:
    assert_it_is_tested(project, "-p", f"no:{plugin}")


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="takes the rights of root away, as Linux does")
def test_a_checkout_may_be_read_only(project: Path) -> None:
    (project / "tests" / "test_served.py").write_text(SERVED)
    folders = [project, *(path for path in project.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q"],
            cwd=project,
            env=environment(project),
            preexec_fn=lambda: ctypes.CDLL(None).prctl(DROP_CAPABILITY, MAY_WRITE_ANYWHERE),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not (project / ".pytest_cache").exists(), "it was not read-only"


# --- Larger repositories ----------------------------------------------------------------------------------------------

ROOT_PROJECT = """\
[project]
name = "everything"
version = "0"
requires-python = ">=3.11"

[tool.uv.workspace]
members = ["services/*"]
"""


def two_services(template: Path, repository: Path) -> list[Path]:
    """Make a repository of two services, as a workspace of uv."""
    services = [
        render(template, repository / "services" / name, project_name=name.title(), **answers)
        for name, answers in (("talk", {}), ("news", {"demo_page": False, "auth": "jwt"}))
    ]
    (repository / "pyproject.toml").write_text(ROOT_PROJECT)
    git(repository, "init", "--quiet")
    commit(repository)
    return services


@pytest.mark.exhaustive
def test_one_pytest_tests_two_services(template: Path, tmp_path: Path) -> None:
    """Their tests have the same names, and are no package."""
    services = two_services(template, tmp_path)
    paths = os.pathsep.join(environment(service)["PYTHONPATH"] for service in services)
    status, written = forked.run_pytest(
        tmp_path,
        "-q",
        *map(str, services),
        environment=environment(services[0]) | {"PYTHONPATH": paths},
        timeout=TIMEOUT,
    )
    assert status == 0, written
    alone, _ = run_pytest(services[0], "-q")
    assert alone == 0


def test_a_floor_is_where_the_member_of_a_workspace_has_it(renders: Renders) -> None:
    """uv reads constraints in the root of a workspace alone."""
    told = tomllib.loads((renders.of() / "pyproject.toml").read_text())
    assert "uv" not in told["tool"]


@pytest.mark.exhaustive
def test_services_are_members_of_a_workspace(template: Path, tmp_path: Path) -> None:
    """With uv itself: locked, installed, tested one by one and together, and checked before a commit."""
    repository = tmp_path / "repository"
    talk, news = two_services(template, repository)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIRTUAL_ENV"))}
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "uv").symlink_to(find_uv_bin())
    kept["PATH"] = os.pathsep.join([str(tmp_path / "programs"), kept["PATH"]])

    def uv(*arguments: str, cwd: Path = repository) -> str:
        result = subprocess.run(
            ["uv", *arguments], cwd=cwd, env=kept, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert result.returncode == 0, f"{arguments}\n{result.stdout}{result.stderr}"
        return result.stdout

    uv("sync", "--quiet", "--all-packages")
    for service in (talk, news):
        assert " passed" in uv("run", "--all-packages", "pytest", "-q", cwd=service)
    assert " passed" in uv("run", "--all-packages", "pytest", "-q", "services/talk", "services/news")
    assert "talk" in uv("run", "--all-packages", "talk", "--help", cwd=talk)
    config = talk / ".pre-commit-config.yaml"
    config.write_text(config.read_text().replace("--directory .", "--directory services/talk"))
    commit(repository)
    uv("run", "--all-packages", "pre-commit", "run", "--all-files", cwd=talk)


def test_the_page_of_setups_names_these_tests() -> None:
    page = (ROOT / "docs" / "setups.md").read_text()
    for file in set(re.findall(r"`(test_\w+\.py)`", page)):
        assert (ROOT / "tests" / file).exists(), file
