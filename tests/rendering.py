"""Render the template as it stands in the working tree, and run what is rendered with the tools of this repository."""

import compileall
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import yaml

from . import forked

ROOT = Path(__file__).parent.parent

HOSTILE = {
    "project_name": "O\"Neil's <b>`{{x}}`</b> \\o/ 🚀",
    "project_slug": "a-very-long-name-of-forty-characters-abc",
    "package_name": "a_very_long_name_of_a_package_with_48_characters",
    "description": 'A "quoted" service: it\'s #1 \\o/ & <b>{{x}}</b> 🚀',
    "author_name": 'Zoë O\'Neil "Z"',
    "author_email": "zoe.o'neil@example.com".replace("'", ""),
}
"""Free text with everything that breaks something somewhere, and names as long as they may be."""

FRAMEWORK = ROOT / "tests" / "framework"
"""The tests of the framework, one folder for each concern. They import `my_service`, and run in what is rendered."""

NEEDED_ANSWERS: dict[str, tuple[str, set[Any]]] = {
    "asyncapi": ("asyncapi", {True}),
    "auth": ("auth", {"jwt"}),
    "engine": ("fanout", {"redis", "postgres"}),
    "independence": ("auth", {"jwt"}),  # some of its listeners have users
    "page": ("demo_page", {True}),
    "postgres": ("fanout", {"postgres"}),
    "redis": ("fanout", {"redis"}),
}
"""The folders of them that are about what only some answers bring: the question, and these answers."""


def copy_of_the_template(target: Path) -> Path:
    """Copy what git tracks, or would, into a plain folder."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def render(template: Path, target: Path, **answers: Any) -> Path:
    """Render without a question and without trust; whatever needs either fails."""
    answers = {"project_name": "My Service"} | answers
    copier.run_copy(str(template), target, data=answers, defaults=True, unsafe=False, quiet=True)
    return target


class Renders:
    """What is rendered, once for each set of answers, in a folder that all workers share. Nobody changes it."""

    def __init__(self, template: Path, folder: Path) -> None:
        self._template = template
        self._folder = folder

    def of(self, **answers: Any) -> Path:
        return self._once("plain", answers, lambda made: render(self._template, made, **answers))

    def compiled(self, **answers: Any) -> Path:
        """The same with the tests of the framework, and with all bytecode, so that a copy of it starts at once."""

        def compile_all(made: Path) -> None:
            shutil.copytree(self.of(**answers), made)
            add_framework_tests(made)
            collect = [sys.executable, "-m", "pytest", "-q", "-n0", "--collect-only", "-p", "no:cacheprovider"]
            remembering = environment(made) | {"PYTHONDONTWRITEBYTECODE": ""}
            subprocess.run(collect, cwd=made, env=remembering, check=True, capture_output=True, timeout=240)

        return self._once("compiled", answers, compile_all)

    def _once(self, kind: str, answers: dict[str, Any], make: Callable[[Path], object]) -> Path:
        name = hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()[:16]
        finished = self._folder / kind / name
        if not finished.exists():
            finished.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self._folder) as folder:
                make(Path(folder) / "made")
                with suppress(OSError):  # another worker was faster
                    (Path(folder) / "made").rename(finished)
        return finished


def add_framework_tests(project: Path) -> None:
    """Copy the tests of the framework into a project, as far as its answers have brought what they are about."""
    answers = answers_of(project)
    left_out = [folder for folder, (question, wanted) in NEEDED_ANSWERS.items() if answers[question] not in wanted]
    ignore = shutil.ignore_patterns("__pycache__", *left_out)
    shutil.copytree(FRAMEWORK, project / "tests" / "framework", ignore=ignore)


def compile_package(project: Path) -> None:
    """Compile what is started again and again; no process of the tests writes it by itself."""
    compileall.compile_dir(project / "src", quiet=1)


def names(project: Path) -> list[Path]:
    """The files of a project, without what is there because it was run here."""
    ours = {"__pycache__", ".metadata"}
    return [path for path in project.rglob("*") if path.is_file() and ours.isdisjoint(path.parts)]


def answers_of(project: Path) -> dict[str, Any]:
    answers: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return answers


def environment(project: Path) -> dict[str, str]:
    """Make a rendered project importable, with its metadata, without installing it."""
    answers = answers_of(project)
    metadata = project / ".metadata" / f"{answers['project_slug'].replace('-', '_')}-0.1.0.dist-info" / "METADATA"
    if not metadata.exists():
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.4\nName: {answers['project_slug']}\nVersion: 0.1.0\n")
    paths = os.pathsep.join([str(project / "src"), str(project / ".metadata"), str(project / "tests")])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return inherited | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


def run(project: Path, *command: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command in a rendered project; `python` and the tools are those of this repository."""
    program, *rest = command
    found = [sys.executable] if program == "python" else [sys.executable, "-m", program]
    return subprocess.run(
        [*found, *rest],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_pytest(project: Path, *options: str, timeout: float = 240) -> tuple[int, str]:
    """Run pytest in a rendered project, sooner than `run` does; return its exit status and what it has written."""
    return forked.run_pytest(project, *options, environment=environment(project), timeout=timeout)


def check(project: Path, *command: str) -> str:
    """Run a command that must succeed."""
    result = run(project, *command)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def replace(file: Path, old: str, new: str) -> None:
    """Edit a file, as a user does; the old text must be there."""
    text = file.read_text()
    assert old in text, f"{old!r} is not in {file}"
    file.write_text(text.replace(old, new, 1))
