"""The proof of state independence is as good as docs/proof.md says."""

import re
from pathlib import Path

import pytest

from . import proof
from .rendering import FRAMEWORK

PLACES = 10
SHAPES = 5
SEEDS = range(1000, 1140, 7)
"""None of those that the table is made of."""


def test_the_table_is_one_that_the_command_has_written() -> None:
    page = proof.PAGE.read_text()
    assert proof.write(page, "new") != page
    (measured,) = re.findall(r"<!-- measured -->\n(.*)\n<!-- end -->", page, re.DOTALL)
    listeners, alarms = re.findall(r"^(\d+) correct listeners, .* (\d+) false alarms\.$", measured, re.MULTILINE)[0]
    assert int(listeners) == proof.LISTENERS
    assert alarms == "0"
    rows = re.findall(r"^\| (.*) \|$", measured, re.MULTILINE)
    assert [len(row.split(" | ")) for row in rows] == [SHAPES + 2] * (PLACES + 3)
    found, planted = map(int, re.findall(r"(\d+) of (\d+)$", rows[-1])[0])
    assert planted >= 200
    assert found >= 0.9 * planted


def test_every_listener_is_measured() -> None:
    text = (FRAMEWORK / "independence" / "listeners.py").read_text()
    names = re.findall(r"\w+", text.partition("FIFTY: list[Any] = [")[2])
    assert len({*names}) == len(names) == proof.LISTENERS


def test_a_table_is_made_of_what_was_measured() -> None:
    def planted(number: int, *, found: bool) -> proof.Line:
        names = {"shape": "counts", "place": "in_a_module", "listener": "/echo"}
        return {"what": "planted", "number": number, "found": found} | names

    correct = {"what": "correct", "listener": "/a", "examples": 40, "report": "", "vacuous": False, "messages": 7}
    written = proof.table([correct, correct | {"report": "an alarm"}, planted(0, found=True), planted(1, found=False)])
    assert "2 correct listeners, 40 dialogues each: 7 messages, 1 false alarms.\n- /a\n" in written
    assert "| in a module | 1 of 2 | 1 of 2 |\n" in written
    assert "- 1: `/echo` counts, in a module" in written


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return proof.project_to_measure(tmp_path_factory.mktemp("proof"))


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_nine_of_ten_planted_mistakes_are_found(project: Path) -> None:
    lines = [proof.measure(project, "planted", seed) for seed in SEEDS]
    missed = [line for line in lines if not line["found"]]
    assert len(missed) <= len(SEEDS) / 10, missed


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", range(proof.LISTENERS))
def test_no_correct_listener_is_reported(project: Path, number: int) -> None:
    line = proof.measure(project, "correct", number)
    assert not line["report"], line["report"]
    assert not line["vacuous"], line["listener"]
