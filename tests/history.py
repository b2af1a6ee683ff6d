"""The template in every version that it has had, with the working tree as the newest, and one that is still to come."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import copier

from .rendering import ROOT, copy_of_the_template, replace

PRESENT = "1000.0.0"
"""The version of the working tree."""

FUTURE = "1001.0.0"
"""A later one, with a change in every shared file and in some of each other kind."""

BEFORE_THE_FIRST = ["05cb1f0", "882621e", "a77584c", "c016bb9"]
"""States that changed the changelog before the first release, oldest first: the first version, and what was to be had
later. They stand for releases as long as there are none.
"""

ANSWERS: dict[str, Any] = {"project_name": "My Service", "docker": True, "ci": "github"}
"""With these, nearly every shared file is there."""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A step")


def earlier_versions() -> list[str]:
    """The releases, oldest first. As long as there is none, some states from before it stand for them.

    Without the whole history, as in a shallow clone, there are none, and `test_the_history_is_whole` fails.
    """
    try:
        if git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true":
            return []
        if tags := git(ROOT, "tag", "--merged", "HEAD", "--sort", "version:refname", "--list", "[0-9]*").split():
            return tags
        git(ROOT, "merge-base", "--is-ancestor", BEFORE_THE_FIRST[-1], "HEAD")
    except subprocess.CalledProcessError:
        return []
    return BEFORE_THE_FIRST


EARLIER = earlier_versions()


class History:
    """A repository with all versions as tags, and projects made from each of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository = folder / "template"
        git(folder, "clone", "--quiet", str(ROOT), str(self.repository))
        released = git(self.repository, "tag", "--list").split()
        self._tags = {version: version if version in released else f"0.0.{n}" for n, version in enumerate(EARLIER)}
        for version, tag in self._tags.items():
            if version not in released:
                git(self.repository, "tag", tag, version)
        for path in self.repository.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        copy_of_the_template(self.repository)
        self._release(PRESENT, "Older.")
        change_everything(self.repository)
        self._release(FUTURE, "The newest of all.")

    def _release(self, version: str, changes: str) -> None:
        replace(self.repository / "CHANGELOG.md", "\n## ", f"\n## {version}\n\n{changes}\n\n## ")
        replace(
            self.repository / "UPGRADING.md", "# Upgrading\n", f"# Upgrading\n\n## {version}\n\nBy hand: {changes}\n"
        )
        commit(self.repository)
        git(self.repository, "tag", version)

    def tag(self, version: str) -> str:
        """Return the tag of a version, or of a commit that stands for one."""
        return self._tags.get(version, version)

    def render(self, version: str, target: Path, **answers: Any) -> Path:
        copier.run_copy(
            str(self.repository),
            target,
            vcs_ref=self.tag(version),
            data=ANSWERS | answers,
            defaults=True,
            unsafe=False,
            quiet=True,
        )
        return target

    def project(self, version: str, target: Path) -> Path:
        """A project made from a version, under git, as a user has it."""
        made = self._folder / self.tag(version) / "my-service"
        if not made.exists():
            self.render(version, made)
            git(made, "init", "--quiet")
            commit(made)
        return Path(shutil.copytree(made, target / "my-service"))

    def updated(self, version: str, newer: str, target: Path) -> Path:
        """The same, without an edit, updated to a newer version."""
        made = self._folder / f"{self.tag(version)} to {self.tag(newer)}"
        if not made.exists():
            update(self.project(version, made), self.tag(newer))
        return Path(shutil.copytree(made / "my-service", target / "my-service"))


def update(project: Path, version: str, **options: Any) -> None:
    """Update, as `update.py` does, and commit."""
    copier.run_update(
        project, vcs_ref=version, defaults=True, overwrite=True, unsafe=False, quiet=True, context_lines=3, **options
    )
    assert conflicts(project) == []
    commit(project)


def conflicts(project: Path) -> list[str]:
    found = [name for name, text in contents(project).items() if "<<<<<<< before updating\n" in text]
    return found + [str(path) for path in project.rglob("*.rej")]


def contents(project: Path) -> dict[str, str]:
    files = (path for path in project.rglob("*") if path.is_file() and ".git" not in path.relative_to(project).parts)
    return {path.relative_to(project).as_posix(): path.read_text("utf-8") for path in files}


CI = "{% if ci == 'github' %}.github{% endif %}/workflows/ci.yml.jinja"
PACKAGE = "src/{{package_name}}"
CHANGES: list[tuple[str, str, str]] = [
    # Shared: above what users add, never at the end, and no line of a list that they may bump.
    ("pyproject.toml.jinja", "constraint-dependencies = [\n", 'constraint-dependencies = [\n    "litestar>=2.25.0",\n'),
    ("pyproject.toml.jinja", "    # Yours from here on.\n", '    # Newer.\n    "newer",\n    # Yours from here on.\n'),
    ("pyproject.toml.jinja", '    "TRY003",', '    "NEW001",\n    "TRY003",'),
    ("README.md.jinja", "## Close codes\n", "## Newer\n\nA paragraph.\n\n## The close codes\n"),
    ("SECURITY.md.jinja", "## What the service does", "Newer.\n\n## What the service does"),
    (f"{PACKAGE}/app.py.jinja", "            metrics,\n", "            metrics,\n            newer,\n"),
    (f"{PACKAGE}/app.py.jinja", "import health, metrics, ready\n", "import health, metrics, newer, ready\n"),
    (f"{PACKAGE}/settings.py", "\n    fanout_url: str", '    newer: int = 0\n    """Newer."""\n\n    fanout_url: str'),
    (".env.example.jinja", "# Where to listen;", "# Newer.\n{{ prefix }}NEWER=0\n\n# Where to listen;"),
    (".gitignore.jinja", "dist/\n", "dist/\nnewer/\n"),
    (".editorconfig", "charset = utf-8\n", "charset = utf-8\nnewer = true\n"),
    (".pre-commit-config.yaml", "    hooks:\n", "    hooks:\n      - id: newer\n        language: fail\n"),
    ("tests/conftest.py.jinja", "@pytest.fixture\ndef settings", "NEWER = 1\n\n\n@pytest.fixture\ndef settings"),
    (CI, "      - run: uv sync\n", "      - run: uv sync\n      - run: uv run newer\n"),
    (
        "{% if docker %}compose.yaml{% endif %}.jinja",
        "services:\n",
        "services:\n  newer:\n    restart: unless-stopped\n",
    ),
    ("{% if docker %}Dockerfile{% endif %}.jinja", "WORKDIR /service\n", "WORKDIR /service\nRUN newer\n"),
    ("{% if docker %}.dockerignore{% endif %}", "!README.md\n", "!newer\n!README.md\n"),
    # Yours: what new projects get.
    (f"{PACKAGE}/state.py", "Yours:", "Yours, newer:"),
    (f"{PACKAGE}/listeners/echo.py", "Yours:", "Yours, newer:"),
    ("tests/listeners/test_echo.py.jinja", "Yours:", "Yours, newer:"),
    # The template's.
    (f"{PACKAGE}/headers.py", '"""', '"""Newer. '),
    (f"{PACKAGE}/connections/lifespan.py", '"""', '"""Newer. '),
]


def change_everything(template: Path) -> None:
    """Make a later version of the template: a change in each shared file, one more file, and one less."""
    for file, old, new in CHANGES:
        replace(template / "template" / file, old, new)
    (template / "template" / PACKAGE / "connections" / "newer.py").write_text('"""Newer."""\n', "utf-8")
    (template / "template" / "tests" / "test_telemetry.py.jinja").unlink()
