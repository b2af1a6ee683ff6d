"""The edits that people make to a generated project, each as a function that can be applied to any version of it.

An edit and an update may come in either order: `update(edit(old))` must equal `edit(update(old))`. That says at once
that nothing conflicts, that the edit is in its right place, and that every change of the template has arrived.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--quiet",
        "--no-cache",
        "--isolated",
        "--line-length",
        "100",
        *files,
    ]
    subprocess.run(command, cwd=project, check=True)


def _delete_rooms(project: Path) -> None:
    app = _file(project, PACKAGE / "app.py")
    text = app.read_text("utf-8")
    app.write_text(
        text.replace("from .listeners.rooms import Rooms\n", "").replace("            Rooms,\n", ""), "utf-8"
    )
    (project / PACKAGE / "listeners" / "rooms.py").unlink()
    (project / "tests" / "listeners" / "test_rooms.py").unlink()


def _rename_echo(project: Path) -> None:
    app = _file(project, PACKAGE / "app.py")
    text = app.read_text("utf-8")
    app.write_text(text.replace("from .listeners.echo import", "from .listeners.ping import"), "utf-8")
    (project / PACKAGE / "listeners" / "echo.py").rename(project / PACKAGE / "listeners" / "ping.py")
    (project / "tests" / "listeners" / "test_echo.py").rename(project / "tests" / "listeners" / "test_ping.py")


LISTENER = '''"""Mine."""

from litestar.di import NamedDependency

from ..connections import listener
from ..messages import Said, Say
from ..state import Connection


@listener("/ws/{name}")
async def {name}(data: Say, connection: NamedDependency[Connection]) -> Said:
    return Said(text=data.text, connection=connection.id, count=0)
'''


def _add_listener(name: str, where: str) -> Edit:
    """A file in listeners/, its import in sorted order, and its name at some place in `route_handlers`."""

    def apply(project: Path) -> None:
        app = _file(project, PACKAGE / "app.py")
        lines = app.read_text("utf-8").splitlines(keepends=True)
        imported = f"from .listeners.{name} import {name}\n"
        listeners = [i for i, line in enumerate(lines) if line.startswith("from .listeners.")]
        place = next((i for i in listeners if lines[i] > imported), listeners[-1] + 1)
        lines.insert(place, imported)
        text, count = re.subn(where, rf"\1            {name},\n", "".join(lines), count=1, flags=re.MULTILINE)
        if not count:
            raise NotHereError(f"{where!r} is not in app.py")
        app.write_text(text, "utf-8")
        (project / PACKAGE / "listeners" / f"{name}.py").write_text(LISTENER.format(name=name), "utf-8")

    return Edit(f"listener {name}", apply)


BELOW_YOURS = (
    r"(            # Yours: name your listeners here\.\n(?:            \w+,\n)*?)(?=            # The template's\.\n)"
)
AT_THE_END = r"(route_handlers=\[\n(?:            .*\n)*)"

PYPROJECT = [
    *(_add_dependency(name, "^dependencies") for name in ("aiofiles", "mmh3>=5", "zstandard")),
    _add_dependency("respx", "^dev"),
    _add_dependency("opentelemetry-instrumentation-redis", "^opentelemetry"),
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

SETTINGS = [
    _substitute(
        "setting",
        PACKAGE / "settings.py",
        r'(    grace_seconds: .*\n    """.*"""\n)',
        r'\1    database_url: str = "sqlite://"\n    """Where the data is."""\n',
    ),
    _append("setting in the example", ".env.example", "\n# Where the data is.\nMY_SERVICE_DATABASE_URL=sqlite://\n"),
    _substitute("port", PACKAGE / "settings.py", r"port: int = Field\(default=8000", "port: int = Field(default=9000"),
    _substitute("port in the example", ".env.example", "^MY_SERVICE_PORT=8000$", "MY_SERVICE_PORT=9000"),
]

APP = [
    _add_listener("alpha", BELOW_YOURS),
    _add_listener("mine", BELOW_YOURS),
    _add_listener("zeta", AT_THE_END),
    _substitute(
        "middleware",
        PACKAGE / "app.py",
        r"middleware=\[SecurityHeaders\(\)\]",
        "middleware=[SecurityHeaders(), Timing()]",
    ),
    _substitute(
        "lifespan",
        PACKAGE / "app.py",
        r"^(        logging_config=.*\n)    \)$",
        r"\1        lifespan=[database],\n    )",
    ),
    Edit("rooms deleted", _delete_rooms),
    Edit("echo renamed", _rename_echo),
]

README = [
    _substitute(
        "about",
        "README.md",
        r"^(A \[Litestar\].*\n(?:.+\n)*)",
        r"\1\nIt is run by the team of Ada.\n",
    ),
    _substitute("section", "README.md", "^## The checks$", "## Ours\n\nA paragraph of ours.\n\n## The checks"),
    _append("last section", "README.md", "\n## Who to call\n\nAda.\n"),
    _substitute("title", "README.md", "^# My Service$", "# Our Service"),
]

OTHERS = [
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
    _append("service in compose", "compose.yaml", "  cache:\n    image: valkey/valkey\n    restart: unless-stopped\n"),
    _substitute("port in compose", "compose.yaml", '"127.0.0.1:8000:8000"', '"127.0.0.1:9000:8000"'),
    _substitute("stop in compose", "compose.yaml", "stop_grace_period: 45s", "stop_grace_period: 90s"),
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
    _append("fixture", "tests/conftest.py", "\n\n@pytest.fixture\ndef mine() -> int:\n    return 1\n"),
    _append("editor", ".editorconfig", "\n[*.sql]\nindent_size = 2\n"),
    _append("licence", "LICENSE", "\nWith our additions.\n"),
    _append("security", "SECURITY.md", "- Ours.\n"),
]

YOURS = [
    _append(f"{file.name}, yours", file, "\n\n# Mine.\n")
    for file in (
        PACKAGE / "state.py",
        PACKAGE / "hooks.py",
        PACKAGE / "messages.py",
        PACKAGE / "listeners" / "__init__.py",
        PACKAGE / "listeners" / "rooms.py",
    )
]

EDITS = [*YOURS, *PYPROJECT, *SETTINGS, *APP, *README, *OTHERS]

REFORMATTED = Edit("reformatted", _reformat)
"""With longer or shorter lines than the template has. Whatever an update brings is formatted with the next run."""

BEFORE_THE_LAYOUT = {
    "05cb1f0": {"rooms deleted", "echo renamed", "fixture", "port in compose"},
    "882621e": {"listener alpha", "echo renamed", "fixture", "port in compose"},
    "a77584c": {"security", "port in compose"},
    "c016bb9": {"port in compose"},
}
"""Edits that conflict from states before the first release: only then came the rule that the end is the user's, and
nginx with the port. No release may ever be here.
"""
