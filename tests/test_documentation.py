"""The documentation says what is there: settings, links, commands; and the start page of a project stays short."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from .cases import params
from .rendering import HOSTILE, ROOT, Renders, answers_of, check

EVERYTHING = {"auth": "jwt", "telemetry": "opentelemetry", "docker": True, "vscode": True, "dependency_bot": "renovate"}
PROJECTS: dict[str, dict[str, Any]] = {
    "default": {},
    "nothing": {"asyncapi": False, "demo_page": False, "ci": "none"},
    "redis": EVERYTHING | {"fanout": "redis"},
    "postgres": EVERYTHING | HOSTILE | {"fanout": "postgres"},
}
MAX_LINES = 120
"""Lines of a README that its reader still reads."""

NOT_OURS = {"template", ".venv", ".uv", "node_modules"}
"""Folders of this repository whose pages are rendered or somebody else's."""

TOOLS = {"copier", "mypy", "pre-commit", "pyright", "pytest", "ruff", "websockets"}
"""What `uv run` finds in the dependencies of a project or of this repository."""

SETTINGS = """
import json
from {package}.realtime import RealtimeSettings
print(json.dumps({{name: field.default for name, field in RealtimeSettings.model_fields.items()}}, default=str))
"""


UNAVAILABLE = {"redis": "redis://127.0.0.1:1/0", "postgres": "postgresql://127.0.0.1:1/none"}
"""Engines that are not there, which has metrics of its own."""

METRICS = """
import os
os.environ |= {variables}
from litestar.testing import TestClient
from {package}.app import create_app
with TestClient(create_app()) as client:
    print(client.get("/metrics").text)
"""


@pytest.fixture(params=params(PROJECTS.keys(), {"default", "nothing", "postgres"}))
def documented(request: pytest.FixtureRequest, renders: Renders) -> Path:
    """A project, not to be changed."""
    return renders.of(**PROJECTS[request.param])


def pages(folder: Path) -> list[Path]:
    """The pages of a project or of this repository."""
    return sorted(page for page in folder.rglob("*.md") if not {*page.relative_to(folder).parts} & NOT_OURS)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_code(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(folder: Path) -> Iterator[str]:
    for page in pages(folder):
        text = without_code(page.read_text("utf-8"))
        for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text):
            target, _, anchor = unquote("".join(link)).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = page.parent / target if target else page
            if not file.exists():
                yield f"{page.relative_to(folder)}: {target} does not exist"
            elif anchor and anchor not in headings(file):
                yield f"{page.relative_to(folder)}: {target}#{anchor} does not exist"


def rows_of(project: Path, head: str) -> list[str]:
    """The rows of each table of the reference that has this head."""
    text = "\n".join(page.read_text("utf-8") for page in pages(project / "src"))
    tables = re.findall(rf"^\| {head}\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def commands(folder: Path) -> set[str]:
    """Each `uv run …` that a page names, up to the end of its quotation, its line, or what the shell does with it."""
    texts = [page.read_text("utf-8") for page in pages(folder)]
    found = [command for text in texts for command in re.findall(r"\buv run ([^`\n)]+)", text)]
    return {re.split(r" (?:[|>#]|>>|&&) ", command)[0].strip() for command in found}


def subcommands(project: Path) -> set[str]:
    package = answers_of(project)["package_name"]
    listed = check(project, "python", "-m", f"{package}.realtime", "--help")
    return set(re.findall(r"^ {2,4}([a-z][a-z-]+)(?:\s|$)", listed, re.MULTILINE))


def test_the_start_page_is_short(documented: Path) -> None:
    assert len((documented / "README.md").read_text("utf-8").splitlines()) <= MAX_LINES


def test_every_setting_is_described_with_its_default_and_no_other(documented: Path) -> None:
    package = answers_of(documented)["package_name"]
    defaults = json.loads(check(documented, "python", "-c", SETTINGS.format(package=package)))
    rows = [re.findall(r"^\| `(\w+)` \| ?(.*?) ?\|", row)[0] for row in rows_of(documented, r"setting \| default \|.*")]
    assert dict(rows) == {name.upper(): as_written(default, package) for name, default in defaults.items()}
    assert len(rows) == len(defaults), "each in one place"


def test_every_metric_is_described_and_no_other(documented: Path) -> None:
    answers = answers_of(documented)
    package = answers["package_name"]
    secret = {"AUTH_SECRET": "x" * 32} if answers["auth"] == "jwt" else {}
    engine = {"FANOUT_URL": UNAVAILABLE[answers["fanout"]]} if answers["fanout"] != "memory" else {}
    variables = {f"{package.upper()}_{name}": value for name, value in (secret | engine).items()}
    found = check(documented, "python", "-c", METRICS.format(variables=variables, package=package))
    metrics = set(re.findall(r"^# TYPE (\w+)", found, re.MULTILINE))
    rows = rows_of(documented, r"metric \|.*")
    assert metrics == set(re.findall(r"`(\w+)(?:\{\w+\})?`", "".join(row.split(" | ")[0] for row in rows)))


def as_written(default: object, package: str) -> str:
    """A default as an environment variable has it: a list is empty, a boolean in lower case."""
    text = "" if default == [] else str(default)
    return (text.lower() if isinstance(default, bool) else text).replace(package, "<package>")


def test_no_link_is_broken(documented: Path) -> None:
    assert list(broken_links(documented)) == []


def test_no_link_of_the_repository_is_broken() -> None:
    assert list(broken_links(ROOT)) == []


def test_every_command_exists(documented: Path) -> None:
    answers = answers_of(documented)
    known = TOOLS | {answers["project_slug"], "update.py"}
    found = commands(documented)
    assert found
    for command in found:
        program, *arguments = command.split()
        if program != "python":
            assert program in known, command
        elif arguments[:1] == ["-m"]:
            assert arguments[1] in {f"{answers['package_name']}.realtime", "<package>.realtime"}, command
            assert {*arguments[2:3]} <= subcommands(documented) | {"--help"}, command


def test_every_command_of_the_repository_exists() -> None:
    for command in commands(ROOT) - commands(ROOT / "examples"):  # which test_newcomer.py runs
        program, *arguments = re.sub(r"^--(group|directory) \S+ ", "", command).split()
        if program == "python":
            module = ROOT / f"{arguments[1].replace('.', '/')}"
            assert module.with_suffix(".py").exists() or module.is_dir(), command
        else:
            assert program in TOOLS | {"my-service", "update.py"}, command
        for path in arguments:
            assert not path.startswith("tests/") or (ROOT / path).exists(), command
