"""What a run found, into docs/speed.md between two comments, and as charts beside it."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from tests.rendering import ROOT

DOCS = ROOT / "docs"
PAGES = DOCS / "speed.md", DOCS / "scale.md"


@dataclass(frozen=True)
class Chart:
    """Bars, one below the other."""

    title: str
    bars: Mapping[str, float]
    unit: str = ""

    def svg(self) -> str:
        """Draw it, for light pages and dark ones."""
        left, width, line = 230, 400, 26
        most = max(self.bars.values())
        height = 44 + line * len(self.bars)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" role="img">',
            f"<title>{escape(self.title)}</title>",
            "<style>text{font:14px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}rect{fill:#8c959f}"
            ".ours{fill:#0969da}@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#6e7681}.ours{fill:#4493f8}}"
            "</style>",
            f'<text class="title" x="0" y="18">{escape(self.title)}</text>',
        ]
        for number, (name, value) in enumerate(self.bars.items()):
            y = 36 + line * number
            kind = ' class="ours"' if name.startswith("this template") else ""
            long = max(1, round(width * value / most))
            number_of = f"{value:{',.0f' if value >= 100 else '.1f' if value >= 10 else '.2f'}}{escape(self.unit)}"
            parts += [
                f'<text x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
                f'<rect{kind} x="{left}" y="{y}" width="{long}" height="18" rx="2"/>',
                f'<text x="{left + long + 8}" y="{y + 14}">{number_of}</text>',
            ]
        return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class Promise:
    """A ratio that the service has to keep."""

    what: str
    most: float
    measured: float

    def __str__(self) -> str:
        return f"{self.what} **{self.measured:.2f}** (at most {self.most:.2f})"


@dataclass(frozen=True)
class Findings:
    """A table, the versions of what was measured, and charts by their names."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    versions: Mapping[str, str]
    promises: Sequence[Promise] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict[str, Chart])

    def table(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """The date, the machine and its Python."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    system = f"{cores} cores of {models[0] if models else platform.machine()}, Linux {platform.release().split('-')[0]}"
    return f"{datetime.now(UTC):%Y-%m-%d}; {system}; Python {platform.python_version()}"


def block(findings: Findings) -> str:
    """Write the text that stands between the two comments of a part."""
    pictures = [f"![{chart.title}](speed-{each}.svg)\n" for each, chart in findings.charts.items()]
    promises = [f"Promised: {', '.join(map(str, findings.promises))}.\n"] if findings.promises else []
    made_of = ", ".join(f"{package} {number}" for package, number in sorted(findings.versions.items()))
    return "\n".join([*promises, *pictures, findings.table(), "", f"<sub>{machine()}; {made_of}.</sub>"])


def pattern(name: str) -> re.Pattern[str]:
    """The place of a part: a comment, what stands there, and another comment."""
    return re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def write(name: str, findings: Findings, pages: Sequence[Path] = PAGES) -> None:
    """Put it into the page that has a place for it, instead of what an earlier run found; the charts beside it."""
    [page] = [page for page in pages if pattern(name).search(page.read_text())]
    page.write_text(pattern(name).sub(lambda found: f"{found[1]}{block(findings)}\n{found[3]}", page.read_text()))
    for each, chart in findings.charts.items():
        (page.parent / f"speed-{each}.svg").write_text(chart.svg())
