"""Updates: each change of the template arrives, and nothing of the user's moves, is lost or comes back.

Needs the whole history since 1.0.0: in a shallow clone `test_the_history_is_whole` fails, and says so.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import pytest
import yaml
from copier.errors import UserMessageError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from . import history as history_module
from .cases import params
from .edits import EDITS, PACKAGE, Edit, NotHereError
from .history import AFTER, ANSWERS, EARLIER, FUTURE, PRESENT, History, change_everything, commit, contents, git, update
from .ownership import TEMPLATE, YOURS, whose
from .rendering import ROOT, check, replace

TRIES = int(os.environ.get("UPDATE_TRIES", "4"))
"""Of the test with random edits, versions and answers; 200 once a week in CI."""

OTHER_ANSWERS: list[dict[str, Any]] = [
    {"asyncapi": False},
    {"auth": "jwt"},
    {"demo_page": False},
    {"docker": False},
    {"fanout": "memory"},
    {"fanout": "postgres"},
    {"telemetry": "opentelemetry"},
    {"ci": "gitlab", "dependency_bot": "renovate", "vscode": False},
]
"""Each of them differs from the answers of the history; an update goes there, and another comes back."""

QUICK_ANSWERS = OTHER_ANSWERS[1:3]
"""Those that are changed every time; the others are `exhaustive`."""

DEFAULTS = {
    name: question["default"]
    for name, question in yaml.safe_load((ROOT / "copier.yml").read_text("utf-8")).items()
    if not name.startswith("_")
}

CONFLICTING = {"package in the image", "ecosystem of the bot"}
"""Edits in the very lines that come and go with an answer."""


def edit(project: Path, edits: list[Edit], *, among: set[str] | None = None) -> list[Edit]:
    """Make those edits for which the project has a place, and return them.

    Args:
        project: It has nothing to commit.
        edits: They are made in this order, and committed.
        among: The only files of the project that may change; all, where it is not given.
    """
    made: list[Edit] = []
    for each in edits:
        try:
            each.apply(project)
        except NotHereError:
            continue
        made.append(each)
    if among is not None and (others := set(git(project, "ls-files").splitlines()) - among):
        git(project, "checkout", "--", *others)
    commit(project)
    return made


def assert_in_either_order(edited: Path, expected: Path, made: list[Edit], *, among: set[str] | None = None) -> None:
    """Assert that a project edited and then updated is the same as one that is edited after the update."""
    edit(expected, made, among=among)
    assert contents(edited) == contents(expected)


def of_the_user(project: Path) -> dict[str, str]:
    return {name: text for name, text in contents(project).items() if whose(name) == YOURS}


def test_the_history_is_whole() -> None:
    assert not history_module.is_shallow(), "clone the repository whole, or `git fetch --unshallow`"


def test_the_edits_touch_every_file(history: History, tmp_path: Path) -> None:
    """But for the framework, and for what is empty or written by Copier."""
    born = history.render(PRESENT, tmp_path / "born")
    project = history.render(PRESENT, tmp_path / "edited")
    made = edit(project, [each for each in EDITS if each.name not in {"rooms deleted", "echo renamed"}])
    assert len(made) == len(EDITS) - 2
    unchanged = contents(born).items() & contents(project).items()
    for name, text in unchanged:
        small = not text or (whose(name) == TEMPLATE and text.count("\n") <= 10)
        assert small or name == ".copier-answers.yml" or "/realtime/" in name, name


@pytest.mark.parametrize(("version", "newer"), [*((each, PRESENT) for each in EARLIER), (PRESENT, FUTURE)])
def test_without_edits_it_equals_a_fresh_render_but_for_what_is_the_users(
    history: History, version: str, newer: str, tmp_path: Path
) -> None:
    project = history.render(version, tmp_path / "project")
    expected = history.expected(project, newer, tmp_path / "expected")
    born = of_the_user(project)
    update(project, history.tag(newer))
    assert contents(project) == contents(expected)
    assert of_the_user(project) == born


@pytest.mark.parametrize(("version", "newer"), [*((each, PRESENT) for each in EARLIER), (PRESENT, FUTURE)])
def test_every_edit_stays_in_its_place_and_every_change_of_the_template_arrives(
    history: History, version: str, newer: str, tmp_path: Path
) -> None:
    edited = history.render(version, tmp_path / "edited")
    expected = history.expected(edited, newer, tmp_path / "expected")
    made = edit(edited, EDITS)
    assert len(made) == len(EDITS)
    update(edited, history.tag(newer))
    assert_in_either_order(edited, expected, made)


@pytest.mark.exhaustive
def test_version_by_version_it_comes_to_the_same(history: History, tmp_path: Path) -> None:
    versions = [*EARLIER, PRESENT, FUTURE, AFTER]
    each_one, at_once = (history.render(versions[0], tmp_path / name) for name in ("each", "once"))
    for project in (each_one, at_once):
        edit(project, EDITS)
    for version in versions[1:]:
        update(each_one, history.tag(version))
    update(at_once, AFTER)
    assert contents(each_one) == contents(at_once)


@pytest.mark.exhaustive
@pytest.mark.timeout(300 + 30 * TRIES)
@settings(
    max_examples=TRIES, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(data=st.data())
def test_no_edits_ever_conflict_between_any_two_versions(history: History, data: st.DataObject) -> None:
    """Random edits, versions and answers. `UPDATE_TRIES=200 uv run pytest -k any_two_versions` takes longer."""
    versions = [*EARLIER, PRESENT, FUTURE]
    older = data.draw(st.integers(0, len(versions) - 1), label="from")
    newer = data.draw(st.integers(older, len(versions) - 1), label="to")
    before, after = (data.draw(st.sampled_from([{}, *OTHER_ANSWERS]), label=label) for label in ("before", "after"))
    chosen = data.draw(st.sets(st.sampled_from(EDITS), min_size=1), label="edits")
    wanted = [each for each in EDITS if each in chosen and (before == after or each.name not in CONFLICTING)]
    with TemporaryDirectory() as folder:
        edited = history.render(versions[older], Path(folder, "edited"), **before)
        expected = history.expected(edited, versions[newer], Path(folder, "expected"), **before | after)
        both = contents(edited).keys() & contents(expected).keys()
        made = edit(edited, wanted, among=both)
        update(edited, history.tag(versions[newer]), data=after)
        assert_in_either_order(edited, expected, made, among=both)


@pytest.mark.parametrize(
    "answers", params({str(answers): answers for answers in OTHER_ANSWERS}, {str(answers) for answers in QUICK_ANSWERS})
)
@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_an_answer_may_change_later(history: History, answers: dict[str, Any], back: bool, tmp_path: Path) -> None:
    """An update brings all that the new answer asks for, and takes all that it no longer asks for.

    Edits in files that come or go are left out: nothing can be expected of them.
    """
    before, after = (answers, {name: ANSWERS.get(name, DEFAULTS[name]) for name in answers}) if back else ({}, answers)
    edited = history.render(PRESENT, tmp_path / "edited", **before)
    expected = history.expected(edited, PRESENT, tmp_path / "expected", **after)
    both = contents(edited).keys() & contents(expected).keys()
    made = edit(edited, [each for each in EDITS if each.name not in CONFLICTING], among=both)
    update(edited, PRESENT, data=after)
    assert_in_either_order(edited, expected, made, among=both)


@pytest.mark.exhaustive
def test_a_project_that_was_edited_and_updated_passes_its_tests(history: History, tmp_path: Path) -> None:
    """From the oldest version to a later one. Edits that name what is nowhere are left out."""
    project = history.render([*EARLIER, PRESENT][0], tmp_path)
    elsewhere = {"port in the example", "setting in the example", "setting", "rooms deleted", "echo renamed"}
    edit(project, [each for each in EDITS if each.name not in elsewhere])
    update(project, FUTURE)
    check(project, "pytest", "-q", "-n0", "-x")


def test_what_is_the_users_is_never_touched_whatever_the_template_does(history: History, tmp_path: Path) -> None:
    """FUTURE changes all of it; here it is as it was born, deleted and edited. What is new of it does not arrive."""
    project = history.render(PRESENT, tmp_path)
    state, echo, test = PACKAGE / "state.py", PACKAGE / "listeners" / "echo.py", Path("tests/listeners/test_echo.py")
    born = (project / state).read_text("utf-8")
    (project / echo).unlink()
    (project / "README.md").unlink()
    (project / test).write_text("# Mine.\n", "utf-8")
    commit(project)
    update(project, FUTURE)
    assert (project / state).read_text("utf-8") == born
    assert not (project / echo).exists()
    assert not (project / "README.md").exists()
    assert (project / test).read_text("utf-8") == "# Mine.\n"
    assert sorted(path.relative_to(project).as_posix() for path in project.rglob("*newer.py")) == [
        "src/my_service/realtime/newer.py",
        "tests/test_newer.py",
    ]


def test_a_proof_that_was_deleted_stays_so(history: History, tmp_path: Path) -> None:
    """FUTURE changes it."""
    project = history.render(PRESENT, tmp_path)
    proof = project / "tests" / "test_state_independence.py"
    proof.unlink()
    commit(project)
    update(project, FUTURE)
    assert not proof.exists()


def test_recopy_leaves_what_is_the_users_alone(history: History, tmp_path: Path) -> None:
    project = history.render(PRESENT, tmp_path)
    for name in (yours := of_the_user(project)):
        (project / name).write_text("# Mine.\n", "utf-8")
    commit(project)
    copier.run_recopy(project, vcs_ref=FUTURE, defaults=True, overwrite=True, unsafe=False, quiet=True)
    assert {name: (project / name).read_text("utf-8") for name in yours} == dict.fromkeys(yours, "# Mine.\n")
    assert (project / PACKAGE / "realtime" / "newer.py").exists()


def test_a_second_update_changes_nothing(history: History, tmp_path: Path) -> None:
    project = history.render(PRESENT, tmp_path)
    edit(project, EDITS)
    update(project, FUTURE)
    first = contents(project)
    update(project, FUTURE)
    assert contents(project) == first


def test_a_downgrade_is_refused(history: History, tmp_path: Path) -> None:
    project = history.render(FUTURE, tmp_path)
    with pytest.raises(UserMessageError, match=f"downgrading from {FUTURE} to {PRESENT}"):
        update(project, PRESENT)
    assert git(project, "status", "--short") == ""


def test_it_updates_from_a_checkout_without_a_tag(template: Path, tmp_path: Path) -> None:
    """As from a clone of a branch: there the commits are the versions."""
    untagged = Path(shutil.copytree(template, tmp_path / "untagged"))
    for name in (f"{history_module.PACKAGE}/realtime/older.py", "tests/test_older.py"):
        (untagged / "template" / name).write_text('"""Older."""\n', "utf-8")
    git(untagged, "init", "--quiet")
    commit(untagged)
    project = tmp_path / "my-service"
    copier.run_copy(str(untagged), project, defaults=True, unsafe=False, quiet=True)
    git(project, "init", "--quiet")
    made = edit(project, EDITS)
    change_everything(untagged)
    commit(untagged)
    update(project, "HEAD")
    assert len(made) > len(EDITS) / 2
    assert (project / PACKAGE / "realtime" / "newer.py").exists()
    assert "Where the data is." in (project / PACKAGE / "settings.py").read_text("utf-8")


def test_uv_add_appends_to_the_lists(project: Path, tmp_path: Path) -> None:
    """What the edits called `uv add` and `bump` do, the real command does, wherever the name sorts."""
    by_hand = Path(shutil.copytree(project, tmp_path / "by-hand"))
    for requirement, name in [
        ("aiofiles", "uv add aiofiles"),
        ("mmh3>=5", "uv add mmh3>=5"),
        ("zstandard", "uv add zstandard"),
        ("structlog>=99", "bump structlog"),
    ]:
        command = [sys.executable, "-m", "uv", "add", "--quiet", "--frozen", requirement]
        subprocess.run(command, cwd=project, check=True, timeout=60)
        next(each for each in EDITS if each.name == name).apply(by_hand)
    assert (project / "pyproject.toml").read_text("utf-8") == (by_hand / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("page", [True, False])
def test_a_version_may_rename_a_question(history: History, page: bool, tmp_path: Path) -> None:
    """The old answer is the default of the new question."""
    project = history.render(FUTURE, tmp_path, demo_page=page)
    edit(project, EDITS)
    update(project, AFTER)
    assert (project / PACKAGE / "realtime" / "page").exists() == page
    assert f"live_page: {str(page).lower()}\n" in (project / ".copier-answers.yml").read_text("utf-8")


def test_a_conflict_is_seen(history: History, tmp_path: Path) -> None:
    """The assertions above rest on it."""
    project = history.render(PRESENT, tmp_path)
    replace(project / "Dockerfile", "WORKDIR /service\n", "WORKDIR /service\nRUN mine\n")
    commit(project)
    with pytest.raises(AssertionError, match="Dockerfile"):
        update(project, FUTURE)
