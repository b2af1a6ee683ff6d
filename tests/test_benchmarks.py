"""The benchmarks in short, beside plain Litestar alone, and what is written about them."""

import re
from pathlib import Path

import pytest

from benchmarks.parts import PARTS, Plan
from benchmarks.releases import last, read, record, worse
from benchmarks.report import DOCS, PAGES, Chart, Findings, Promise, overview, pattern, summary, write
from benchmarks.servers import BASELINE, SERVICE

ROUNDS = 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("benchmarks")
    return Plan(folder, ROUNDS, seconds=0.4, connections=1000, listeners=300, crowd=0, alone=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["echo", "room", "churn", "memory"])
def test_a_part_measures_what_it_promises(plan: Plan, part: str) -> None:
    """Times are compared with the last release, each week: here other tests run beside them. Memory is no time."""
    findings = PARTS[part](plan)
    assert findings.promises
    for promise in findings.promises:
        assert promise.measured > 0
        assert part != "memory" or promise.measured <= promise.most, findings.table()


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


def test_the_first_screen_shows_the_last_release() -> None:
    found = pattern("summary").search((DOCS / "speed.md").read_text())
    assert found
    assert found[2].strip() == summary(read()), "run `python -m benchmarks --release VERSION`"
    assert (DOCS / "speed.svg").read_text() == overview(last())


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    path = tmp_path / "releases.json"
    path.write_text("{}")
    record("1.0.0", {"echo": {SERVICE: 0.5049, BASELINE: 1.0}, "start": {SERVICE: 1.0}}, path)
    record("1.1.0", {"echo": {SERVICE: 0.4, BASELINE: 1.0}, "start": {SERVICE: 1.2}}, path)
    return path


def test_a_release_is_recorded_part_by_part(releases: Path) -> None:
    record("1.1.0", {"start": {SERVICE: 1.1}}, releases)
    assert list(read(releases)) == ["1.0.0", "1.1.0"]
    assert read(releases)["1.0.0"]["echo"] == {SERVICE: 0.5, BASELINE: 1.0}
    assert last(releases) == {"echo": {SERVICE: 0.4, BASELINE: 1.0}, "start": {SERVICE: 1.1}}


@pytest.mark.parametrize(
    ("echo", "is_worse"), [pytest.param(0.3, False), pytest.param(0.5, False), pytest.param(0.51, True)]
)
def test_a_ratio_is_worse_when_it_is_beyond_the_tolerance(releases: Path, echo: float, is_worse: bool) -> None:
    lines = worse({"echo": {SERVICE: echo}, "start": {SERVICE: 1.2}}, last(releases), tolerance=1.25)
    assert bool(lines) is is_worse
    assert all("echo: 0.51" in line and "0.40" in line for line in lines)


def test_what_the_last_release_did_not_measure_is_not_compared(releases: Path) -> None:
    assert worse({"new": {SERVICE: 9.0}}, last(releases)) == []


def test_the_file_of_releases_has_ratios_alone() -> None:
    for ratios in read().values():
        assert all(SERVICE in servers for servers in ratios.values())
        assert all(servers.get(BASELINE, 1.0) == 1.0 for servers in ratios.values())
