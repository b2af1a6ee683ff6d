"""The edits that people make to a generated project, each as a function that can be applied to any version of it.

An edit and an update may come in either order: `update(edit(old))` must equal `edit(update(old))`. That says at once
that nothing conflicts, that the edit is in its right place, and that every change of the template has arrived.
Together they touch every file outside `realtime/`, as `test_the_edits_touch_every_file` shows.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .history import contents
from .ownership import TEMPLATE, whose

PACKAGE = Path("src/my_service")


class NotHereError(Exception):
    """The version has no such place to edit."""


@dataclass(frozen=True)
class Edit:
    """One edit, under the name that a failing test shows."""

    name: str
    apply: Callable[[Path], None]

    def __repr__(self) -> str:
        return self.name


def _file(project: Path, file: str | Path) -> Path:
    if not (project / file).is_file():
        raise NotHereError(f"there is no {file}")
    return project / file


def _substitute(name: str, file: str | Path, pattern: str, replacement: str) -> Edit:
    """Replace what a pattern finds, which must be there once."""

    def apply(project: Path) -> None:
        path = _file(project, file)
        text, count = re.subn(pattern, replacement, path.read_text("utf-8"), flags=re.MULTILINE)
        if count != 1:
            raise NotHereError(f"{pattern!r} is in {file} {count} times")
        path.write_text(text, "utf-8")

    return Edit(name, apply)


def _append(name: str, file: str | Path, text: str) -> Edit:
    def apply(project: Path) -> None:
        path = _file(project, file)
        path.write_text(path.read_text("utf-8") + text, "utf-8")

    return Edit(name, apply)


def _add_dependency(requirement: str, opening: str) -> Edit:
    """What `uv add` does to a list that is not sorted, as `test_uv_add_appends_to_the_lists` shows."""
    pattern = rf"({opening} = \[\n(?:    .*\n)*)\]"
    return _substitute(f"uv add {requirement}", "pyproject.toml", pattern, rf'\1    "{requirement}",\n]')


def _bump(name: str) -> Edit:
    """What `uv add 'name>=…'` does to a requirement that is in a list of the project already."""
    pattern = rf'(?s)\A(.*?^    "{re.escape(name)}>=)[\w.]+",$'
    return _substitute(f"bump {name}", "pyproject.toml", pattern, r'\g<1>99",')


def _reformat(project: Path) -> None:
    files = [str(PACKAGE / name) for name in ("app.py", "state.py", "hooks.py", "messages.py")]
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--no-cache", "--isolated", "--line-length", "100"]
    subprocess.run([*command, *files], cwd=project, check=True)


def _delete_rooms(project: Path) -> None:
    app = _file(project, PACKAGE / "app.py")
    text = app.read_text("utf-8")
    app.write_text(
        text.replace("from .listeners.rooms import Rooms\n", "").replace("            Rooms,\n", ""), "utf-8"
    )
    for name in (PACKAGE / "listeners" / "rooms.py", Path("tests/listeners/test_rooms.py")):
        _file(project, name).unlink()


def _rename_echo(project: Path) -> None:
    app = _file(project, PACKAGE / "app.py")
    text = app.read_text("utf-8")
    app.write_text(text.replace("from .listeners.echo import", "from .listeners.ping import"), "utf-8")
    _file(project, PACKAGE / "listeners" / "echo.py").rename(project / PACKAGE / "listeners" / "ping.py")
    _file(project, "tests/listeners/test_echo.py").rename(project / "tests" / "listeners" / "test_ping.py")


LISTENER = '''"""Mine."""

from litestar.di import NamedDependency

from ..messages import Said, Say
from ..realtime import listener
from ..state import Connection


@listener("/ws/mine")
async def mine(data: Say, connection: NamedDependency[Connection]) -> Said:
    return Said(text=data.text, connection=connection.id, count=0)
'''


def _add_listener(project: Path) -> None:
    app = _file(project, PACKAGE / "app.py")
    text = app.read_text("utf-8").replace("        route_handlers=[\n", "        route_handlers=[\n            mine,\n")
    app.write_text(text.replace("from .realtime", "from .listeners.mine import mine\nfrom .realtime"), "utf-8")
    (project / PACKAGE / "listeners" / "mine.py").write_text(LISTENER, "utf-8")


def _append_everywhere(project: Path) -> None:
    """Add a comment at the end of each file that can hold one, but for the framework and what is empty."""
    for name, text in contents(project).items():
        framework = name.startswith(f"{PACKAGE.as_posix()}/realtime/")
        if framework or not text or name.endswith(".json") or name == ".copier-answers.yml":
            continue
        if whose(name) == TEMPLATE and text.count("\n") <= 10:
            continue
        mine = "<!-- Mine. -->" if name.endswith(".md") else "# Mine."
        (project / name).write_text(f"{text}\n{mine}\n", "utf-8")


def _recommend_extension(project: Path) -> None:
    file = _file(project, ".vscode/extensions.json")
    recommended = json.loads(file.read_text("utf-8"))
    recommended["recommendations"].append("mine.mine")
    file.write_text(json.dumps(recommended, indent=2) + "\n", "utf-8")


PYPROJECT = [
    *(_add_dependency(name, "^dependencies") for name in ("aiofiles", "mmh3>=5", "zstandard")),
    _add_dependency("respx", "^dev"),
    *(
        _bump(name)
        for name in (
            "litestar",
            "uvicorn[standard]",
            "pydantic-settings",
            "structlog",
            "pytest",
            "ruff",
            "pyright[nodejs]",
        )
    ),
    _substitute("version", "pyproject.toml", r'^version = "0.1.0"$', 'version = "2.3.4"'),
    _substitute("description", "pyproject.toml", r"^description = .*$", 'description = "Ours"'),
    _append("tool section", "pyproject.toml", "\n[tool.coverage.run]\nbranch = true\n"),
    _substitute(
        "mypy overrides",
        "pyproject.toml",
        r"^\[tool\.pyright\]$",
        '[[tool.mypy.overrides]]\nmodule = "untyped.*"\nignore_missing_imports = true\n\n[tool.pyright]',
    ),
    _substitute("ruff ignore", "pyproject.toml", r"^(ignore = \[\n(?:    .*\n)*)\]", r'\1    "D100",\n]'),
    _substitute(
        "pytest warning",
        "pyproject.toml",
        r"^(filterwarnings = \[\n(?:    .*\n)*)\]",
        r'\1    "ignore::ResourceWarning",\n]',
    ),
    _substitute("pytest timeout", "pyproject.toml", r"^timeout = 60\b", "timeout = 120"),
]

YOURS = [
    _substitute(
        "setting",
        PACKAGE / "settings.py",
        r"\A([\s\S]*)\Z",
        r'\1\n    database_url: str = "sqlite://"\n    """Where the data is."""\n',
    ),
    _substitute("title", "README.md", "^# My Service$", "# Our Service"),
    Edit("listener added", _add_listener),
    Edit("rooms deleted", _delete_rooms),
    Edit("echo renamed", _rename_echo),
    Edit("reformatted", _reformat),
]

OTHERS = [
    _append("setting in the example", ".env.example", "\n# Where the data is.\nMY_SERVICE_DATABASE_URL=sqlite://\n"),
    _substitute("port in the example", ".env.example", "^MY_SERVICE_PORT=8000$", "MY_SERVICE_PORT=9000"),
    _append("ignored files", ".gitignore", "\n# Ours\ndata/\n"),
    _append(
        "job in CI",
        ".github/workflows/ci.yml",
        "\n  deploy:\n    needs: checks\n    runs-on: ubuntu-latest\n    steps:\n      - run: ./deploy\n",
    ),
    _substitute(
        "step in CI",
        ".github/workflows/ci.yml",
        r"^(      - run: uv run pytest\n)",
        r"\1      - run: uv run coverage report\n",
    ),
    _substitute(
        "service of CI",
        ".github/workflows/ci.yml",
        r"^(    runs-on: ubuntu-latest\n)(?=    strategy:)",
        r"\1    services:\n      cache:\n        image: valkey/valkey\n",
    ),
    _append(
        "ecosystem of the bot",
        ".github/dependabot.yml",
        "  - package-ecosystem: npm\n    directory: /\n    schedule:\n      interval: weekly\n",
    ),
    _substitute("port in compose", "compose.yaml", '"127.0.0.1:8000:8080"', '"127.0.0.1:9000:8080"'),
    _substitute("stop in compose", "compose.yaml", "stop_grace_period: 45s", "stop_grace_period: 90s"),
    _substitute("replicas", "deploy/kubernetes.yaml", "^  replicas: 3$", "  replicas: 5"),
    _substitute(
        "host", "deploy/kubernetes.yaml", r"^    - host: service\.example\.com$", "    - host: chat.example.org"
    ),
    _substitute("TLS", "deploy/nginx/listen.conf", "^# listen 8443 ssl reuseport;$", "listen 8443 ssl reuseport;"),
    _substitute("workers", "deploy/nginx/nginx.conf", "^worker_processes auto;$", "worker_processes 2;"),
    _substitute("balancing", "deploy/nginx/upstream.conf", "^    least_conn;$", "    ip_hash;"),
    _substitute(
        "package in the image",
        "Dockerfile",
        "^(RUN useradd .*\n)",
        r"RUN apt-get update && apt-get install --yes libpq5\n\1",
    ),
    _append("files of the image", ".dockerignore", "!migrations\n"),
    _append(
        "pre-commit hook",
        ".pre-commit-config.yaml",
        "      - id: mine\n        name: mine\n        entry: ./mine\n        language: system\n",
    ),
    _substitute(
        "format on save", ".vscode/settings.json", '"editor.formatOnSave": true', '"editor.formatOnSave": false'
    ),
    _substitute("console", ".vscode/launch.json", '"integratedTerminal"', '"internalConsole"'),
    Edit("extension", _recommend_extension),
    Edit("the end of every file", _append_everywhere),
]

EDITS = [*PYPROJECT, *YOURS, *OTHERS]
