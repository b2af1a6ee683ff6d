"""The benchmarks in short, beside plain Litestar alone: what the service promises must not be far away."""

import re
from pathlib import Path

import pytest

from benchmarks.parts import PARTS, Plan
from benchmarks.report import PAGES, Chart, Findings, Promise, pattern, write

FAR = 1.4
"""How far a ratio may be from what is promised, on a machine that does other things at the same time."""

ROUNDS = 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("benchmarks")
    return Plan(folder, ROUNDS, seconds=0.4, connections=1000, listeners=300, crowd=0, alone=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["echo", "room", "churn", "memory"])
def test_the_service_is_as_lean_as_it_promises(plan: Plan, part: str) -> None:
    findings = PARTS[part](plan)
    far = [promise for promise in findings.promises if promise.measured > promise.most * FAR]
    assert not far, f"{', '.join(map(str, far))}\n{findings.table()}"


@pytest.mark.parametrize("part", PARTS)
def test_the_docs_show_what_the_command_has_written(part: str) -> None:
    [(page, shown)] = [(page, found[2]) for page in PAGES if (found := pattern(part).search(page.read_text()))]
    lines = [line for line in shown.splitlines() if line]
    pictures = re.findall(r"!\[[^]]+\]\((.+)\)", shown)
    tables = [line for line in lines if line.startswith("| ")]
    assert all((page.parent / name).read_text().startswith("<svg") for name in pictures)
    assert len(tables) > 2, "run the command"
    assert len({line.count("|") for line in tables}) == 1
    assert re.fullmatch(r"<sub>\d{4}-\d\d-\d\d; \d+ cores of .+; Python 3\.\d+\.\d+; .+ \d.*\.</sub>", lines[-1])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- echo: written by me -->\nold\n<!-- /echo -->\n\nAfter.\n")
    return page


def test_what_is_written_around_the_numbers_stays(page: Path) -> None:
    findings = Findings(
        ["a", "b"], [["1", "2"]], {"litestar": "2"}, [Promise("a", 1, 0.5)], {"x": Chart("X", {"<a>": 1})}
    )
    for _ in range(2):
        write("echo", findings, [page])
    before, _, rest = page.read_text().partition("<!-- echo: written by me -->\n")
    shown, _, after = rest.partition("<!-- /echo -->")
    assert (before, after) == ("Before.\n\n", "\n\nAfter.\n")
    assert shown.startswith(
        "Promised: a **0.50** (at most 1.00).\n\n![X](speed-x.svg)\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )
    assert "&lt;a&gt;" in (page.parent / "speed-x.svg").read_text()
