"""Render the template as it stands in the working tree, and run what is rendered with the tools of this repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import copier
import yaml

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

WITHOUT_PROCESSES = (
    "tests/connections",
    "tests/listeners",
    "tests/asyncapi",
    "tests/fanout/test_channels.py",
    "tests/test_state_independence.py",
)
"""The tests of a generated service that start no process of their own: seconds, and most of what there is to find."""


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


def answers_of(project: Path) -> dict[str, Any]:
    answers: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return answers


def environment(project: Path) -> dict[str, str]:
    """Make a rendered project importable, with its metadata, without installing it."""
    answers = answers_of(project)
    metadata = project / ".metadata" / f"{answers['project_slug'].replace('-', '_')}-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.4\nName: {answers['project_slug']}\nVersion: 0.1.0\n")
    paths = os.pathsep.join([str(project / "src"), str(project / ".metadata")])
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
