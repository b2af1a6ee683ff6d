"""What is rendered, for every answer that changes files."""

import filecmp
import itertools
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from .rendering import HOSTILE, names, render

Rendered = Callable[..., Path]

OPTIONS: dict[str, list[Any]] = {
    "demo_page": [True, False],
    "docker": [True, False],
    "ci": ["github", "gitlab", "none"],
    "listeners": [[], ["chat", "prices:class"]],
    "auth": ["none", "jwt"],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
LICENCES = {
    "MIT": "MIT License",
    "Apache-2.0": "Apache License",
    "BSD-3-Clause": "BSD 3-Clause License",
    "GPL-3.0-or-later": "GNU GENERAL PUBLIC LICENSE",
    "proprietary": "Copyright (c) Ada Lovelace. All rights reserved.",
}


def files(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): path.read_text() for path in names(project)}


@pytest.mark.parametrize("answers", COMBINATIONS, ids=str)
def test_every_combination_is_clean_text(rendered: Rendered, answers: dict[str, Any]) -> None:
    for name, text in files(rendered(**answers)).items():
        assert not re.search(r"\{%|%\}|\{#", text), f"{name}: Jinja is left over"
        assert "jinja" not in name, f"{name}: Jinja is left over in its name"
        assert not re.search(r"[ \t]$", text, re.MULTILINE), f"{name}: white space at the end of a line"
        assert text.endswith("\n") or not text, f"{name}: no new line at the end"
        assert not text.endswith("\n\n"), f"{name}: a blank line at the end"
        assert not text.startswith("\n"), f"{name}: a blank line at the beginning"
        if not name.endswith(".py"):
            assert "\n\n\n" not in text, f"{name}: two blank lines"


@pytest.mark.parametrize("answers", COMBINATIONS, ids=str)
def test_nothing_is_left_over_from_an_answer_that_was_not_given(rendered: Rendered, answers: dict[str, Any]) -> None:
    project = rendered(**answers)
    present = files(project)
    everything = "\n".join(present.values())
    package = "src/my_service"
    assert ((project / package / "page").exists(), "live page" in everything) == (answers["demo_page"],) * 2
    assert ((project / "Dockerfile").exists(), "docker" in everything.replace("docker: false", "")) == (
        answers["docker"],
    ) * 2
    assert (project / ".github").exists() == (answers["ci"] == "github")
    assert (project / ".gitlab-ci.yml").exists() == (answers["ci"] == "gitlab")
    auth = answers["auth"] == "jwt"
    assert (project / package / "auth").exists() == (project / "tests" / "auth").exists() == auth
    rest = "\n".join(text for name, text in present.items() if "/page/" not in name)  # it finds out at run time
    for word in ("jwt", "JSON Web Token", "_AUTH_", "AuthSettings", "logout", "bearer"):
        assert (word in rest) == auth, word
    for listener, name in (("chat", "chat"), ("prices", "Prices")):
        wanted = bool(answers["listeners"])
        assert (f"{package}/listeners/{listener}.py" in present) == wanted
        assert (f"tests/listeners/test_{listener}.py" in present) == wanted
        assert (f"            {name},\n" in present[f"{package}/app.py"]) == wanted


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
    for path in re.findall(r"`([a-z_/.]+(?:/|\.py|\.example))`", told):
        assert any((folder / path).exists() for folder in (package, default_project)), path
    readme = (default_project / "README.md").read_text()
    for command in re.findall(r"`(uv run [^`]+)`", told):
        assert f"`{command}`" in readme, command
    for heading in re.findall(r'"([A-Z][^"]+)" in the README', told):
        assert f"## {heading}\n" in readme
