"""Whose is which file: the table of the README, held to what is rendered, to its first lines and to copier.yml."""

import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml

from .ownership import SHARED, TEMPLATE, YOURS, Ownership
from .rendering import ROOT, render
from .test_render import COMBINATIONS, files

FIRST_WORDS = {YOURS: "Yours: ", SHARED: "Shared: ", TEMPLATE: "The template's: "}
WITHOUT_A_COMMENT = {
    *("LICENSE", "README.md", "AGENTS.md", "SECURITY.md", "py.typed", ".copier-answers.yml"),
    *("renovate.json", "extensions.json", "launch.json", "settings.json"),
}
BOTS = [{"dependency_bot": bot, "ci": ci} for bot in ("dependabot", "renovate") for ci in ("github", "gitlab")]


@pytest.mark.parametrize("answers", [*COMBINATIONS, *BOTS], ids=str)
def test_every_file_is_in_one_row_and_every_row_names_what_is_there(
    rendered: Callable[..., Path], answers: dict[str, Any]
) -> None:
    project = rendered(**answers)
    owner, names = Ownership(project), set(files(project))
    assert owner.rows.keys() == {YOURS, SHARED, TEMPLATE}
    assert {owner.whose(name) for name in names} == {YOURS, SHARED, TEMPLATE}
    fitting = {path for name in names for _, path in owner.matches(name)}
    assert {path for paths in owner.rows.values() for path in paths} - fitting == {"uv.lock"}  # made by the first run


@pytest.mark.parametrize(
    "answers",
    [
        COMBINATIONS[0] | {"fanout": "redis", "docker": True},
        {"auth": "jwt", "ci": "gitlab", "listeners": ["chat"], "fanout": "postgres", "vscode": True},
        BOTS[0],
    ],
)
def test_the_first_line_of_a_file_says_the_same(rendered: Callable[..., Path], answers: dict[str, Any]) -> None:
    """Its own, or where a whole folder of code is the template's, the docstring of its __init__.py."""
    project = rendered(**answers)
    owner = Ownership(project)
    for name in files(project).keys() - WITHOUT_A_COMMENT:
        file, kind = project / name, owner.whose(name)
        if file.name in WITHOUT_A_COMMENT:
            continue
        first = file.read_text("utf-8").splitlines()[0].lstrip('"#/ ')
        folder = file.parent / "__init__.py"
        of_the_folder = folder.read_text("utf-8").split('"""')[1] if folder.exists() else ""
        whole_folder = kind == TEMPLATE and file.parent.name not in {"my_service", "tests"}
        assert first.startswith(FIRST_WORDS[kind]) or (whole_folder and FIRST_WORDS[kind] in of_the_folder), name


def test_what_is_yours_is_what_copier_is_told(default_project: Path) -> None:
    """Each file twice, as it is and for updates; see the decisions for why one of the two is not enough."""
    told = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    owner = Ownership(default_project)
    yours = {name for name in files(default_project) if owner.whose(name) == YOURS}
    assert {
        name for name in files(default_project) for path in told["_skip_if_exists"] if PurePath(name).match(path)
    } == yours
    *for_updates, of_the_answer = told["_exclude"]
    paths = {path.replace("src/my_service/", "src/*/") for path in yours}
    assert set(for_updates) == {"{% if _copier_operation == 'update' %}" + path + "{% endif %}" for path in paths}
    assert "listeners" in of_the_answer


def test_no_answer_decides_what_is_excluded() -> None:
    """A question that an older project has not answered breaks its update, and so does any answer in `_skip_if_exists`
    where the user has deleted a file. File names that come and go with an answer do neither.
    """
    told = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    *for_updates, of_the_answer = told["_exclude"]
    assert "_external_data.before.listeners" in of_the_answer, "not the answer, but the file that the project has"
    for pattern in (*told["_skip_if_exists"], *for_updates):
        assert set(re.findall(r"\{[{%].*?[%}]\}", pattern)) <= {"{% if _copier_operation == 'update' %}", "{% endif %}"}


def test_the_table_in_the_docs_is_the_same(template: Path, tmp_path: Path) -> None:
    """That of a project with all there is."""
    project = render(
        template, tmp_path / "all", docker=True, auth="jwt", ci="github", dependency_bot="renovate", vscode=True
    )
    in_docs = tmp_path / "docs"
    in_docs.mkdir()
    (in_docs / "README.md").write_text((ROOT / "docs" / "updates.md").read_text("utf-8"), "utf-8")
    assert Ownership(in_docs).rows == Ownership(project).rows
