"""What is rendered, for every answer that changes files."""

import ast
import filecmp
import itertools
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from .rendering import HOSTILE, Renders, names, render
from .wheels import check_wheel

Rendered = Callable[..., Path]

OPTIONS: dict[str, list[Any]] = {
    "asyncapi": [True, False],
    "demo_page": [True, False],
    "telemetry": ["none", "opentelemetry"],
    "auth": ["none", "jwt"],
    "fanout": ["memory", "redis", "postgres"],
    "docker": [False, True],
    "ci": ["github", "gitlab", "none"],
}
EVERY = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
MINIMAL = {"asyncapi": False, "demo_page": False}


def pairs(answers: dict[str, Any]) -> set[tuple[tuple[str, Any], ...]]:
    return set(itertools.combinations(sorted(answers.items()), 2))


def choose_combinations() -> list[dict[str, Any]]:
    """Choose a few of all combinations, so that any two answers meet in one; the first is that of all defaults."""
    chosen, missing = [EVERY[0]], set.union(*map(pairs, EVERY)) - pairs(EVERY[0])
    while missing:
        best = max(EVERY, key=lambda answers: len(pairs(answers) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


COMBINATIONS = choose_combinations()
each_combination = pytest.mark.parametrize(
    "answers",
    [
        *COMBINATIONS,
        *(pytest.param(each, marks=pytest.mark.exhaustive) for each in EVERY if each not in COMBINATIONS),
    ],
    ids=lambda answers: "-".join(map(str, answers.values())),
)

LEFT_OVER: dict[tuple[str, Any], str] = {
    ("asyncapi", False): "asyncapi|polyfactory",
    ("demo_page", False): "live page|demo page|/page/",
    ("telemetry", "none"): "opentelemetry|otlp|otel_",
    ("auth", "none"): "jwt|json web token|_auth_|authsettings|logout",
    ("docker", False): "docker|kubernetes|compose.yaml|deploy/",
    ("fanout", "memory"): "fanout_url",
}
"""What is nowhere after an answer, in names and contents. For `fanout` and `ci` it is the names of the others."""

NAMES = {
    "redis": "redis|valkey",
    "postgres": "postgres|psycopg",
    "github": r"\.github/",
    "gitlab": "gitlab",
}


AT_RUN_TIME = {
    "realtime/client/client.js",  # whether there are tokens
    "realtime/page/__init__.py",  # whether /asyncapi is there
    "realtime/page/index.html",
    "realtime/page/page.js",  # whether /logout is there
}
"""Files that find out by themselves what is there; they may name a path or a setting of it."""


def unwanted(answers: dict[str, Any]) -> Iterator[str]:
    """Yield the patterns that nothing in a project with these answers may match."""
    yield from (pattern for answer, pattern in LEFT_OVER.items() if answer in answers.items())
    yield from (pattern for name, pattern in NAMES.items() if name not in {answers["fanout"], answers["ci"]})


LICENCES = {
    "MIT": "MIT License",
    "Apache-2.0": "Apache License",
    "BSD-3-Clause": "BSD 3-Clause License",
    "GPL-3.0-or-later": "GNU GENERAL PUBLIC LICENSE",
    "proprietary": "Copyright (c) Ada Lovelace. All rights reserved.",
}


def files(project: Path) -> dict[str, str]:
    return {path.relative_to(project).as_posix(): path.read_text("utf-8") for path in names(project)}


@each_combination
def test_every_combination_is_clean_text(renders: Renders, answers: dict[str, Any]) -> None:
    for name, text in files(renders.of(**answers)).items():
        assert not re.search(r"\{%|%\}|\{#", text), f"{name}: Jinja is left over"
        assert "jinja" not in name, f"{name}: Jinja is left over in its name"
        assert not re.search(r"[ \t]$", text, re.MULTILINE), f"{name}: white space at the end of a line"
        assert text.endswith("\n") or not text, f"{name}: no new line at the end"
        assert not text.endswith("\n\n"), f"{name}: a blank line at the end"
        assert not text.startswith("\n"), f"{name}: a blank line at the beginning"
        if not name.endswith(".py"):
            prose = re.sub(r"^```python\n.*?^```", "code", text, flags=re.MULTILINE | re.DOTALL)
            assert "\n\n\n" not in prose, f"{name}: two blank lines"


@each_combination
def test_only_what_was_asked_for_is_there(renders: Renders, answers: dict[str, Any]) -> None:
    whole = files(renders.of(**answers))
    others = {".copier-answers.yml", *(f"src/my_service/{name}" for name in AT_RUN_TIME)}  # the first names questions
    present = {name: text for name, text in whole.items() if name not in others}
    lines = [f"{name}: {line}" for name, text in present.items() for line in (name, *text.splitlines())]
    found = [line for pattern in unwanted(answers) for line in lines if re.search(pattern, line, re.IGNORECASE)]
    assert found == []


@each_combination
def test_every_combination_can_be_installed(renders: Renders, answers: dict[str, Any], tmp_path: Path) -> None:
    check_wheel(renders.of(**answers), tmp_path)


def test_what_was_asked_for_is_there(renders: Renders) -> None:
    """Each pattern finds something where its answer is another, or it would prove nothing."""
    everything = {name: values[-1] for name, values in OPTIONS.items()} | {"asyncapi": True, "demo_page": True}
    text = "".join(
        f"{name}\n{text}"
        for fanout, ci in (("redis", "github"), ("postgres", "gitlab"))
        for name, text in files(renders.of(**everything | {"fanout": fanout, "ci": ci})).items()
    )
    for pattern in (*LEFT_OVER.values(), *NAMES.values()):
        for word in pattern.split("|"):
            assert re.search(word, text, re.IGNORECASE), word


@pytest.mark.parametrize(("answers", "most"), [({}, 87), (MINIMAL, 75)], ids=["defaults", "minimal"])
def test_a_project_is_small(renders: Renders, answers: dict[str, Any], most: int) -> None:
    """No more files than issue 11 left, with what issues 12 to 15 brought: a new one has to be worth it."""
    assert len(files(renders.of(**answers))) <= most


@each_combination
def test_each_setting_is_explained_as_where_it_is_defined(renders: Renders, answers: dict[str, Any]) -> None:
    """The comment in .env.example is the docstring of the field, so what it says of 0 and of units is true."""
    project = renders.of(**answers)
    documented: dict[str, str] = {}
    for module in sorted((project / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
                for field, docstring in itertools.pairwise(node.body):
                    match field, docstring:
                        case (
                            ast.AnnAssign(target=ast.Name(id=name)),
                            ast.Expr(value=ast.Constant(value=str(text))),
                        ):
                            documented[name] = " ".join(text.split())
    entries = re.findall(
        r"^((?:# .*\n)+)MY_SERVICE_(\w+)=", (project / ".env.example").read_text("utf-8"), re.MULTILINE
    )
    assert entries
    for comment, name in entries:
        assert " ".join(comment.replace("# ", "").split()) == documented[name.lower()], name


def test_a_second_render_is_byte_identical(template: Path, tmp_path: Path) -> None:
    one, other = (render(template, tmp_path / name / "my-service", **HOSTILE) for name in ("one", "other"))
    difference = filecmp.dircmp(one, other)
    assert files(one) == files(other)
    assert not difference.left_only
    assert not difference.right_only


def test_defaults_alone_need_no_name(template: Path, tmp_path: Path) -> None:
    import copier

    copier.run_copy(str(template), tmp_path / "chat-rooms", defaults=True, unsafe=False, quiet=True)
    answers = yaml.safe_load((tmp_path / "chat-rooms" / ".copier-answers.yml").read_text())
    names = {name: answers[name] for name in ("project_name", "project_slug", "package_name")}
    assert names == {"project_name": "Chat Rooms", "project_slug": "chat-rooms", "package_name": "chat_rooms"}


@pytest.mark.parametrize("licence", LICENCES)
def test_each_licence_is_whole(rendered: Rendered, licence: str) -> None:
    project = rendered(license=licence, author_name="Ada Lovelace")
    text = (project / "LICENSE").read_text()
    assert LICENCES[licence] in text
    assert "{{" not in text
    if licence in {"MIT", "BSD-3-Clause", "proprietary"}:
        assert "Copyright (c) Ada Lovelace" in text
        assert not re.search(r"\b20\d\d\b", text), "a year"
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert metadata.get("license") == (None if licence == "proprietary" else licence)


def test_free_text_is_right_wherever_it_stands(rendered: Rendered) -> None:
    project = rendered(**HOSTILE)
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert metadata["description"] == HOSTILE["description"]
    assert metadata["authors"] == [{"name": HOSTILE["author_name"], "email": HOSTILE["author_email"]}]
    tokens = MarkdownIt().parse((project / "README.md").read_text())
    texts = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    assert texts[:2] == [HOSTILE["project_name"], HOSTILE["description"]]
    assert HOSTILE["author_name"] in (project / "LICENSE").read_text()
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert {name: answers[name] for name in HOSTILE} == HOSTILE


@pytest.mark.parametrize("text", ["# one", "- one", "+ one", "1. one", "1) one", "> one", "= one", "| one", "~~one~~"])
def test_a_description_begins_no_markup(rendered: Rendered, text: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse((rendered(description=text) / "README.md").read_text())
    assert tokens[3].type == "paragraph_open"
    assert "".join(child.content for child in tokens[4].children or []) == text


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_ci_runs_the_checks_on_each_python_that_is_supported(rendered: Rendered, ci: str) -> None:
    project = rendered(ci=ci, python_version="3.13")
    file = ".github/workflows/ci.yml" if ci == "github" else ".gitlab-ci.yml"
    text = (project / file).read_text()
    assert yaml.safe_load(text)
    assert '["3.13", "3.14"]' in text
    for command in ("ruff check", "ruff format --check", "mypy", "pyright", "pytest"):
        assert f"uv run {command}\n" in text


def test_an_editor_is_set_up_only_where_it_is_asked_for(rendered: Rendered, default_project: Path) -> None:
    assert not (default_project / ".vscode").exists()
    project = rendered(vscode=True)
    files = {file.name: json.loads(file.read_text()) for file in (project / ".vscode").iterdir()}
    assert files.keys() == {"extensions.json", "launch.json", "settings.json"}
    [launch] = files["launch.json"]["configurations"]
    assert (project / "src" / launch["module"] / "__main__.py").exists()


def test_what_agents_are_told_is_there(default_project: Path) -> None:
    told = (default_project / "AGENTS.md").read_text()
    package = default_project / "src" / "my_service"
    paths = re.findall(r"`([a-z_/.]+(?:/|\.py|\.md|\.example))`", told)
    assert paths
    for path in paths:
        assert any((folder / path).exists() for folder in (package, package / "realtime", default_project)), path
    readme = (default_project / "README.md").read_text()
    for tool in re.findall(r"`uv run ([^`]+)`", told):
        assert tool in readme, tool
