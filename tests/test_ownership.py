"""Whose is which file: what copier.yml says, what stands in the files, and where they stand agree."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pathspec import PathSpec

from .ownership import MERGED, TEMPLATE, YOURS, whose
from .rendering import ROOT, Renders
from .test_render import COMBINATIONS, files

BOTS = [{"dependency_bot": bot, "ci": ci} for bot in ("dependabot", "renovate") for ci in ("github", "gitlab")]
TOLD = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
ONLY_FOR_UPDATES = re.compile(r"\{% if _copier_operation == 'update' %\}\n(.*)\{% endif %\}\n", re.DOTALL)


@pytest.mark.parametrize("answers", [*COMBINATIONS, *BOTS], ids=str)
def test_what_is_the_users_is_what_copier_is_told(renders: Renders, answers: dict[str, Any]) -> None:
    """Each place twice, as it is and for updates; see the decisions for why one of the two is not enough."""
    names = files(renders.of(**answers)).keys()
    assert {whose(name) for name in names} == {YOURS, MERGED, TEMPLATE}
    told = PathSpec.from_lines("gitignore", TOLD["_skip_if_exists"])
    assert {name for name in names if told.match_file(name)} == {name for name in names if whose(name) == YOURS}
    (excluded,) = TOLD["_exclude"]
    match = ONLY_FOR_UPDATES.fullmatch(excluded)
    assert match
    assert match[1].splitlines() == TOLD["_skip_if_exists"]


def test_no_answer_decides_what_is_the_users() -> None:
    """Copier reads these lists before the answers where the user has deleted a file of the template."""
    assert "{" not in "".join(TOLD["_skip_if_exists"])


def test_what_is_the_users_holds_no_jinja_in_src() -> None:
    """So it reads in the template as in a project, and is the same for all answers."""
    package = ROOT / "template" / "src" / "{{package_name}}"
    theirs = [file for file in package.rglob("*") if file.is_file() and "realtime" not in file.parts]
    assert theirs
    for file in theirs:
        assert file.suffix != ".jinja", file
        assert not re.search(r"\{[{%]", file.read_text("utf-8")), file


def test_the_proofs_say_whose_they_are(renders: Renders) -> None:
    """They are the template's, and stand among the user's tests."""
    for answers in COMBINATIONS:
        for name, text in files(renders.of(**answers)).items():
            if name.startswith("tests/") and whose(name) == TEMPLATE:
                assert text.startswith('"""The template\'s: '), name


def test_the_user_imports_only_what_is_public(renders: Renders) -> None:
    """The rest of the framework may change with any update."""
    project = renders.of(auth="jwt", fanout="redis")
    framework = project / "src" / "my_service" / "realtime"
    public = set(re.findall(r'^    "(\w+)",$', (framework / "__init__.py").read_text("utf-8"), re.MULTILINE))
    for name, text in files(project).items():
        if whose(name) != YOURS or not name.endswith(".py") or Path(name).name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and "realtime" in (module := (node.module or "").split(".")):
                inside = module[module.index("realtime") + 1 :]
                assert inside in ([], ["testing"]), f"{name}, line {node.lineno}"
                assert inside or {each.name for each in node.names} <= public, f"{name}, line {node.lineno}"
