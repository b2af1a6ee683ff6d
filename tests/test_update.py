"""Updates: from each earlier version the newest wiring arrives, and nothing of the user's moves, is lost or comes back.

Needs the whole history: in a shallow clone or an exported folder `test_the_history_is_whole` fails, and says so.
"""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import copier
import pytest
from copier.errors import UserMessageError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import history as history_module
from .edits import BEFORE_THE_LAYOUT, EDITS, PACKAGE, REFORMATTED, Edit, NotHereError
from .history import EARLIER, FUTURE, PRESENT, History, commit, contents, earlier_versions, git, update
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
