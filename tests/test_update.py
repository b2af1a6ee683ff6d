"""Updates: from each earlier version the newest wiring arrives, and nothing of the user's moves, is lost or comes back.

Needs the whole history: in a shallow clone or an exported folder `test_the_history_is_whole` fails, and says so.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import copier
import pytest
from copier.errors import UserMessageError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import history as history_module
from .edits import APP, BEFORE_THE_LAYOUT, EDITS, PACKAGE, REFORMATTED, Edit, NotHereError
from .history import (
    BEFORE_THE_FIRST,
    EARLIER,
    FUTURE,
    PRESENT,
    History,
    commit,
    contents,
    earlier_versions,
    git,
    update,
)
from .ownership import YOURS, Ownership
from .rendering import ROOT, WITHOUT_PROCESSES, replace, run

ALL = [*EDITS, REFORMATTED]
TRIES = int(os.environ.get("UPDATE_TRIES", "8"))
"""Of the test with random edits and versions; 200 once a week in CI."""


def edit(project: Path, version: str, edits: list[Edit]) -> list[Edit]:
    """Make those edits for which the version has a place, and return them."""
    made: list[Edit] = []
    for each in edits:
        if each.name not in BEFORE_THE_LAYOUT.get(version, ()):
            try:
                each.apply(project)
            except NotHereError:
                continue
            made.append(each)
    commit(project)
    return made


def assert_in_either_order(edited: Path, updated: Path, made: list[Edit]) -> None:
    """Assert that a project edited and then updated is the same as one updated and then edited."""
    for each in made:
        each.apply(updated)
    if REFORMATTED in made:
        REFORMATTED.apply(edited)
    assert contents(edited) == contents(updated)


def of_the_user(project: Path) -> dict[str, str]:
    owner = Ownership(project)
    return {name: text for name, text in contents(project).items() if owner.whose(name) == YOURS}


def test_the_history_is_whole() -> None:
    assert EARLIER, "the earlier versions are not here: clone the repository whole, or `git fetch --unshallow`"


def test_a_shallow_clone_is_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its one commit looks like the first version; the updates from all others would be tested no more, in silence."""
    git(tmp_path, "clone", "--quiet", "--depth=1", ROOT.as_uri(), "shallow")
    monkeypatch.setattr(history_module, "ROOT", tmp_path / "shallow")
    assert earlier_versions() == []
    monkeypatch.setattr(history_module, "ROOT", tmp_path)
    assert earlier_versions() == []


@pytest.mark.parametrize("version", EARLIER)
def test_without_edits_it_equals_a_fresh_render_except_for_what_is_yours(
    history: History, version: str, tmp_path: Path
) -> None:
    born = contents(history.project(version, tmp_path / "born"))
    project = history.updated(version, PRESENT, tmp_path / "updated")
    fresh = history.render(PRESENT, tmp_path / "fresh" / "my-service")
    yours = of_the_user(project)
    assert contents(project).items() - yours.items() == contents(fresh).items() - of_the_user(fresh).items()
    assert yours == {name: born[name] for name in yours}
    assert yours.keys() == born.keys() & of_the_user(fresh).keys()


@pytest.mark.parametrize(("version", "newer"), [*((each, PRESENT) for each in EARLIER), (PRESENT, FUTURE)])
def test_every_edit_stays_in_its_place_and_every_change_of_the_template_arrives(
    history: History, version: str, newer: str, tmp_path: Path
) -> None:
    edited = history.project(version, tmp_path / "edited")
    made = edit(edited, version, ALL)
    assert len(made) > len(ALL) * 0.8
    update(edited, newer)
    assert_in_either_order(edited, history.updated(version, newer, tmp_path / "updated"), made)


def test_release_by_release_it_comes_to_the_same(history: History, tmp_path: Path) -> None:
    each_one, at_once = history.project(EARLIER[0], tmp_path / "each"), history.project(EARLIER[0], tmp_path / "once")
    for project in (each_one, at_once):
        edit(project, EARLIER[0], ALL)
    for version in [*EARLIER[1:], PRESENT]:
        update(each_one, history.tag(version))
    update(at_once, PRESENT)
    assert contents(each_one) == contents(at_once)


@pytest.mark.timeout(300 + 30 * TRIES)
@settings(max_examples=TRIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_edits_ever_conflict_between_any_two_versions(history: History, data: st.DataObject) -> None:
    """Random edits, random versions. `UPDATE_TRIES=200 uv run pytest -k any_two_versions` takes longer."""
    versions = [*EARLIER, PRESENT, FUTURE]
    older = data.draw(st.integers(0, len(versions) - 2), label="from")
    newer = data.draw(st.integers(older + 1, len(versions) - 1), label="to")
    chosen = data.draw(st.sets(st.sampled_from(ALL), min_size=1), label="edits")
    with TemporaryDirectory() as folder:
        edited = history.project(versions[older], Path(folder, "edited"))
        made = edit(edited, versions[older], [each for each in ALL if each in chosen])
        update(edited, history.tag(versions[newer]))
        updated = history.updated(versions[older], versions[newer], Path(folder, "updated"))
        assert_in_either_order(edited, updated, made)


def test_a_project_that_was_edited_and_updated_passes_its_tests(history: History, tmp_path: Path) -> None:
    """From the oldest version. Edits that name what is nowhere, or change what a test knows, are left out."""
    project = history.project(EARLIER[0], tmp_path)
    elsewhere = {"middleware", "lifespan", "rooms deleted", "port", "setting", "port in the example"}
    edit(project, EARLIER[0], [each for each in ALL if each.name not in elsewhere])
    update(project, PRESENT)
    if EARLIER[0] in BEFORE_THE_FIRST:  # what UPGRADING.md asks for
        rooms = project / "src/my_service/listeners/rooms.py"
        replace(rooms, "    path = ", "    sends = Joined | Left | SaidInRoom\n    path = ")
    result = run(project, "pytest", "-q", "-n0", *WITHOUT_PROCESSES)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_answers_may_change_with_the_update(history: History, tmp_path: Path) -> None:
    """All edits but two, which touch the very lines that come and go with these answers."""
    version = EARLIER[-1]
    answers = {"auth": "jwt", "demo_page": False, "python_version": "3.12", "dependency_bot": "renovate"}
    edited, updated = history.project(version, tmp_path / "edited"), history.project(version, tmp_path / "updated")
    made = edit(edited, version, [each for each in ALL if each.name not in {"listener zeta", "package in the image"}])
    for project in (edited, updated):
        update(project, PRESENT, data=answers)
    assert_in_either_order(edited, updated, made)
    assert "Auth(AuthSettings.load())" in (edited / PACKAGE / "app.py").read_text("utf-8")
    assert (edited / "renovate.json").exists()
    assert not (edited / PACKAGE / "page").exists()


def test_what_is_yours_is_never_touched_whatever_the_template_does(history: History, tmp_path: Path) -> None:
    """FUTURE has another state.py, echo.py and test_echo.py: here they are as they were born, deleted and edited."""
    project = history.project(PRESENT, tmp_path)
    state, echo, test = PACKAGE / "state.py", PACKAGE / "listeners" / "echo.py", Path("tests/listeners/test_echo.py")
    born = (project / state).read_text("utf-8")
    (project / echo).unlink()
    replace(project / test, "Yours:", "Mine:")
    commit(project)
    update(project, FUTURE)
    assert (project / state).read_text("utf-8") == born
    assert not (project / echo).exists()
    assert "Mine:" in (project / test).read_text("utf-8")


def test_a_file_of_the_template_that_was_renamed_or_deleted_stays_so(history: History, tmp_path: Path) -> None:
    """FUTURE changes headers.py and lifespan.py."""
    project = history.project(PRESENT, tmp_path)
    (project / PACKAGE / "headers.py").rename(project / PACKAGE / "security.py")
    replace(project / PACKAGE / "app.py", "from .headers import", "from .security import")
    (project / PACKAGE / "connections" / "lifespan.py").unlink()
    commit(project)
    update(project, FUTURE)
    assert not (project / PACKAGE / "headers.py").exists()
    assert (project / PACKAGE / "security.py").exists()
    assert "from .security import" in (project / PACKAGE / "app.py").read_text("utf-8")
    assert not (project / PACKAGE / "connections" / "lifespan.py").exists()


def test_recopy_leaves_what_is_yours_alone(history: History, tmp_path: Path) -> None:
    project = history.project(EARLIER[-1], tmp_path)
    for name in (yours := of_the_user(history.updated(EARLIER[-1], PRESENT, tmp_path / "updated"))):
        (project / name).write_text("# Mine.\n", "utf-8")
    commit(project)
    copier.run_recopy(project, vcs_ref=PRESENT, defaults=True, overwrite=True, unsafe=False, quiet=True)
    assert of_the_user(project) == dict.fromkeys(yours, "# Mine.\n")
    assert "The template's: the server" in (project / PACKAGE / "server.py").read_text("utf-8")


def test_a_second_update_changes_nothing(history: History, tmp_path: Path) -> None:
    project = history.project(EARLIER[-1], tmp_path)
    edit(project, EARLIER[-1], ALL)
    update(project, PRESENT)
    first = contents(project)
    update(project, PRESENT)
    assert contents(project) == first


def test_a_downgrade_is_refused(history: History, tmp_path: Path) -> None:
    project = history.project(PRESENT, tmp_path)
    with pytest.raises(UserMessageError, match=r"downgrading from 1000\.0\.0 to"):
        update(project, history.tag(EARLIER[-1]))
    assert git(project, "status", "--short") == ""


def test_it_updates_from_a_checkout_without_a_tag(template: Path, tmp_path: Path) -> None:
    """As from a clone of a branch: there the commits are the versions."""
    untagged = Path(shutil.copytree(template, tmp_path / "untagged"))
    git(untagged, "init", "--quiet")
    commit(untagged)
    project = tmp_path / "my-service"
    copier.run_copy(str(untagged), project, defaults=True, unsafe=False, quiet=True)
    git(project, "init", "--quiet")
    made = edit(project, PRESENT, EDITS)
    history_module.change_everything(untagged)
    commit(untagged)
    update(project, "HEAD")
    assert len(made) > len(EDITS) / 2
    assert (project / PACKAGE / "connections" / "newer.py").exists()
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


def move(template: Path) -> None:
    """What UPGRADING.md and docs/updates.md call a move: a module and a question get other names."""
    package = template / "template" / history_module.PACKAGE
    (package / "endpoints.py").rename(package / "operations.py")
    (package / "endpoints.py").write_text(
        '"""The template\'s: the old name of operations.py, for one major version."""\n\n'
        "from .operations import health as health\n",
        "utf-8",
    )
    replace(package / "app.py.jinja", "from .endpoints import", "from .operations import")
    for file in [template / "copier.yml", *(template / "template").rglob("*")]:
        if file.is_file() and "demo_page" in (text := file.read_text("utf-8")):
            file.write_text(text.replace("demo_page", "live_page"), "utf-8")
        if "demo_page" in file.name:
            file.rename(file.with_name(file.name.replace("demo_page", "live_page")))
    question = "shows the connections at work?\n  default: "
    replace(template / "copier.yml", f"{question}true", f'{question}"{{{{ demo_page | default(true) }}}}"')


@pytest.mark.parametrize("page", [True, False])
def test_a_release_may_move_things(history: History, page: bool, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(history.repository, tmp_path / "template"))
    move(repository)
    commit(repository)
    git(repository, "tag", "1002.0.0")
    project = history.project(PRESENT, tmp_path)
    replace(project / ".copier-answers.yml", str(history.repository), str(repository))
    commit(project)
    update(project, PRESENT, data={"demo_page": page})
    made = edit(project, PRESENT, [each for each in APP if each.name != "listener zeta"])
    mine = project / PACKAGE / "listeners" / "mine.py"
    mine.write_text("from ..endpoints import health\n", "utf-8")
    commit(project)
    update(project, "1002.0.0")
    assert made
    assert "from .operations import" in (project / PACKAGE / "app.py").read_text("utf-8")
    assert (project / PACKAGE / "operations.py").exists()
    assert "the old name of operations.py" in (project / PACKAGE / "endpoints.py").read_text("utf-8")
    assert mine.exists()
    assert (project / PACKAGE / "page").exists() == page
