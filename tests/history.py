"""The template in every version since 1.0.0, with the working tree as the newest, and two that are still to come."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import copier

from .ownership import MERGED, YOURS, whose
from .rendering import ROOT, copy_of_the_template, replace

PRESENT = "1000.0.0"
"""The version of the working tree."""

FUTURE = "1001.0.0"
"""A later one, with a change in every file, and new, moved and deleted files of each kind."""

AFTER = "1002.0.0"
"""The one after it, in which a question has another name."""

ANSWERS: dict[str, Any] = {
    "project_name": "My Service",
    "fanout": "redis",
    "docker": True,
    "vscode": True,
    "dependency_bot": "dependabot",
}
"""With these, nearly every merged file is there."""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A step")


def earlier_versions() -> list[str]:
    """Return the earlier versions, oldest first.

    The first is the newest commit that wrote the heading `## 1.0.0` into the changelog: where 1.0.0 has to move
    forward, one commit takes the heading out and another writes it again. The releases since then follow. As long as
    the heading is not there, the working tree is 1.0.0, and there is no earlier version.
    """
    heading = ["log", "--first-parent", "-m", "--max-count=1", "--format=%H", r"-G^## 1\.0\.0$", "--", "CHANGELOG.md"]
    if "\n## 1.0.0\n" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        return []
    first = git(ROOT, *heading).strip()
    if not first:  # it is not committed yet
        return []
    tags = git(ROOT, "tag", "--contains", first, "--merged", "HEAD", "--sort=version:refname", "--list", "[0-9]*")
    return [first, *tags.split()]


def is_shallow() -> bool:
    return git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true"


EARLIER = earlier_versions()


class History:
    """A repository with all versions as tags, and projects made from each of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository = folder / "template"
        git(folder, "clone", "--quiet", "--shared", str(ROOT), str(self.repository))
        released = git(self.repository, "tag", "--list").split()
        self._tags = {version: version if version in released else f"1.0.{n}" for n, version in enumerate(EARLIER)}
        for version, tag in self._tags.items():
            if version not in released:
                git(self.repository, "tag", tag, version)
        for path in self.repository.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        copy_of_the_template(self.repository)
        for name in (f"{PACKAGE}/realtime/older.py", "tests/test_older.py"):
            (self.repository / "template" / name).write_text('"""The template\'s: older."""\n', "utf-8")
        self._release(PRESENT, "Older.")
        change_everything(self.repository)
        self._release(FUTURE, "Newer.")
        rename_question(self.repository)
        self._release(AFTER, "The newest of all.")

    def _release(self, version: str, changes: str) -> None:
        replace(self.repository / "CHANGELOG.md", "\n## ", f"\n## {version}\n\n{changes}\n\n## ")
        replace(self.repository / "UPGRADING.md", "\n## ", f"\n## {version}\n\nBy hand: {changes}\n\n## ")
        commit(self.repository)
        git(self.repository, "tag", version)

    def tag(self, version: str) -> str:
        """Return the tag of a version, or of a commit that stands for one."""
        return self._tags.get(version, version)

    def render(self, version: str, target: Path, **answers: Any) -> Path:
        """Render a version, once for each set of answers, and copy what was rendered."""
        made = self._folder / f"{self.tag(version)} {sorted(answers.items())}".replace("/", "") / "my-service"
        if not made.exists():
            copier.run_copy(
                str(self.repository),
                made,
                vcs_ref=self.tag(version),
                data=ANSWERS | answers,
                defaults=True,
                unsafe=False,
                quiet=True,
            )
            git(made, "init", "--quiet")
            commit(made)
        return Path(shutil.copytree(made, target / "my-service"))

    def expected(self, born: Path, version: str, target: Path, **answers: Any) -> Path:
        """Render what an update of a project is to give: the new version, and what is the user's as it was born."""
        project = self.render(version, target, **answers)
        for place in (born, project):
            for name in contents(place):
                if whose(name) == YOURS:
                    (project / name).unlink(missing_ok=True)
        for name, text in contents(born).items():
            if whose(name) == YOURS:
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                (project / name).write_text(text, "utf-8")
        commit(project)
        return project


def update(project: Path, version: str, **options: Any) -> None:
    """Update, as `update.py` does, and commit."""
    copier.run_update(
        project, vcs_ref=version, defaults=True, overwrite=True, unsafe=False, quiet=True, context_lines=3, **options
    )
    found = conflicts(project)
    assert found == [], found
    commit(project)


def conflicts(project: Path) -> list[str]:
    found = [name for name, text in contents(project).items() if "<<<<<<< before updating\n" in text]
    return found + [str(path) for path in project.rglob("*.rej")]


def contents(project: Path) -> dict[str, str]:
    files = (path for path in project.rglob("*") if path.is_file() and ".git" not in path.relative_to(project).parts)
    return {path.relative_to(project).as_posix(): path.read_text("utf-8") for path in files}


PACKAGE = "src/{{package_name}}"
CHANGES: dict[str, tuple[str, str]] = {
    "pyproject.toml": (
        "    # Yours from here on.\n",
        '    "newer",\n    "litestar>=2.25.0",  # newer\n    # Yours from here on.\n',
    ),
    ".env.example": ("# The address to listen on.\n", "# Newer.\n{{ prefix }}NEWER=0\n\n# The address to listen on.\n"),
    ".gitattributes": ("* text", "*.newer binary\n* text"),
    ".gitignore": ("dist/\n", "dist/\nnewer/\n"),
    ".pre-commit-config.yaml": ("    hooks:\n", "    hooks:\n      - id: newer\n        language: fail\n"),
    ".github/workflows/ci.yml": ("      - run: uv sync\n", "      - run: uv sync\n      - run: uv run newer\n"),
    ".github/dependabot.yml": ("version: 2\n", "version: 2\nnewer: true\n"),
    ".vscode/settings.json": ("{\n", '{\n  "newer": true,\n'),
    ".vscode/launch.json": ("{\n", '{\n  "newer": true,\n'),
    "AGENTS.md": ("\n- ", "\n- Newer.\n- "),
    "SECURITY.md": ("\n\n", "\n\nNewer.\n\n"),
    "Dockerfile": ("WORKDIR /service\n", "WORKDIR /service\nRUN newer\n"),
    ".dockerignore": ("!README.md\n", "!newer\n!README.md\n"),
    "compose.yaml": ("services:\n", "services:\n  newer:\n    restart: unless-stopped\n"),
    "deploy/README.md": ("\n\n", "\n\nNewer.\n\n"),
    "deploy/kubernetes.yaml": ("    spec:\n", "    spec:\n      newer: true\n"),
    "deploy/nginx/nginx.conf": ("daemon off;\n", "daemon off;\nnewer on;\n"),
    "deploy/nginx/listen.conf": ("\n", "\n# Newer.\n"),
    "deploy/nginx/upstream.conf": ("\n", "\n# Newer.\n"),
    "update.py": ('"""', '"""Newer. '),
}
"""What a later version changes in merged files: above what users add, never at the end, and no line of a list."""

UNCHANGED = {"LICENSE", ".copier-answers.yml", ".gitlab-ci.yml", "renovate.json", ".vscode/extensions.json"}
"""Merged files in which a later version changes nothing."""


def rendered_name(file: Path, template: Path) -> str:
    """Return the name that a file of the template has in a project in which it is present."""
    name = file.relative_to(template / "template").as_posix().removesuffix(".jinja")
    name = re.sub(r"\{%.*?%\}", "", name).replace("{{_copier_conf.answers_file}}", ".copier-answers.yml")
    return name.replace("{{package_name}}", "my_service").removesuffix(".jinja")


def change_everything(template: Path) -> None:
    """Make a later version of the template: a change in each file, and a new and a deleted one of each kind."""
    for file in sorted((template / "template").rglob("*")):
        if not file.is_file():
            continue
        name, text = rendered_name(file, template), file.read_text("utf-8")
        if name in CHANGES:
            replace(file, *CHANGES[name])
        elif whose(name) == MERGED:
            assert name in UNCHANGED, f"{name} is a merged file in which no version changes anything"
        elif name.endswith(".py") and text and (whose(name) == YOURS or text.count("\n") > 10):
            file.write_text("# Newer.\n" + text, "utf-8")
    folder = template / "template"
    replace(
        folder / PACKAGE / "realtime" / "settings.py", '    host: str = "', '    newer: int = 0\n\n    host: str = "'
    )
    for name in (
        f"{PACKAGE}/newer.py",
        f"{PACKAGE}/listeners/newer.py",
        f"{PACKAGE}/realtime/newer.py",
        "tests/listeners/test_newer.py",
        "tests/test_newer.py",
    ):
        (folder / name).write_text('"""Newer."""\n', "utf-8")
    for name in (f"{PACKAGE}/realtime/older.py", "tests/test_older.py"):
        (folder / name).unlink()


def rename_question(template: Path) -> None:
    """Give a question another name, as docs/updates.md says: the old answer is the default of the new question."""
    for file in sorted(path for path in (template / "template").rglob("*") if path.is_file()):
        if "demo_page" in (text := file.read_text("utf-8")):
            file.write_text(text.replace("demo_page", "live_page"), "utf-8")
    for path in sorted((template / "template").rglob("*demo_page*"), reverse=True):
        path.rename(path.with_name(path.name.replace("demo_page", "live_page")))
    questions = template / "copier.yml"
    questions.write_text(questions.read_text("utf-8").replace("demo_page", "live_page"), "utf-8")
    help_line = "  help: A live page at / that shows the connections at work?\n  default: "
    replace(questions, f"{help_line}true", f'{help_line}"{{{{ demo_page | default(true) }}}}"')
