"""What a run found, into the pages of docs/ between two comments, and as charts beside them."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from tests.rendering import ROOT

from .releases import Ratios, last, read
from .servers import BASELINE, SERVICE

DOCS = ROOT / "docs"
PAGES = DOCS / "speed.md", DOCS / "scale.md"

SUMMARY = (SERVICE, "bare ASGI", "Starlette", "FastAPI", "Django Channels", "chanx", "websockets", "aiohttp", "node ws")
"""Servers of the first table, as far as they were measured."""

STYLE = (
    "<style>text{font:14px system-ui,sans-serif;fill:#1f2328}.title,text.ours{font-weight:600}.small{font-size:12px}"
    "rect,circle{fill:#8c959f}.ours{fill:#0969da}path{stroke:#d1d9e0}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect,circle{fill:#8b949e}.ours{fill:#4493f8}path{stroke:#3d444d}}"
    "</style>"
)
"""For light pages and dark ones."""


@dataclass(frozen=True)
class Chart:
    """Bars, one below the other."""

    title: str
    bars: Mapping[str, float]
    unit: str = ""

    def svg(self) -> str:
        """Draw it."""
        left, width, line = 230, 400, 26
        most = max(self.bars.values())
        height = 44 + line * len(self.bars)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" role="img">',
            f"<title>{escape(self.title)}</title>",
            STYLE,
            f'<text class="title" x="0" y="18">{escape(self.title)}</text>',
        ]
        for number, (name, value) in enumerate(self.bars.items()):
            y = 36 + line * number
            kind = ' class="ours"' if name.startswith(SERVICE) else ""
            long = max(1, round(width * value / most))
            number_of = f"{value:{',.0f' if value >= 100 else '.1f' if value >= 10 else '.2f'}}{escape(self.unit)}"
            parts += [
                f'<text x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
                f'<rect{kind} x="{left}" y="{y}" width="{long}" height="18" rx="2"/>',
                f'<text x="{left + long + 8}" y="{y + 14}">{number_of}</text>',
            ]
        return "\n".join([*parts, "</svg>", ""])


def overview(ratios: Ratios) -> str:
    """Draw where the service stands between its peers, in each thing that is measured beside plain Litestar."""
    left, width, line, most = 260, 340, 34, 2.0
    shown = {what: servers for what, servers in ratios.items() if BASELINE in servers}
    height = 66 + line * len(shown)
    title = "CPU and memory beside plain Litestar = 1.00; less is better"

    def x(ratio: float) -> int:
        return round(left + width * min(ratio, most) / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img">',
        f"<title>{escape(title)}</title>",
        STYLE,
        f'<text class="title" x="0" y="18">{escape(title)}</text>',
        f'<circle class="ours" cx="8" cy="38" r="7"/><text x="22" y="43">{SERVICE}</text>',
        '<circle cx="138" cy="38" r="4"/><text x="148" y="43">another server</text>',
        f'<path d="M{x(1)} 52V{height - 8}"/>',
        *(
            f'<text class="small" x="{x(at)}" y="46" text-anchor="middle">{text}</text>'
            for at, text in ((0, "0"), (1, "Litestar"), (most, f"{most:.0f} or more"))
        ),
        f'<text class="small" x="{left + width + 46}" y="46">best other</text>',
    ]
    for number, (what, servers) in enumerate(shown.items()):
        y = 70 + line * number
        ours = servers[SERVICE]
        best = min((name for name in servers if name != SERVICE), key=lambda name: servers[name])
        parts += [
            f'<text x="{left - 18}" y="{y + 5}" text-anchor="end">{escape(what)}</text>',
            f'<path d="M{left} {y}H{left + width}"/>',
            *(f'<circle cx="{x(each)}" cy="{y}" r="4"/>' for name, each in servers.items() if name != SERVICE),
            f'<circle class="ours" cx="{x(ours)}" cy="{y}" r="7"/>',
            f'<text class="ours" x="{x(ours)}" y="{y - 10}" text-anchor="middle">{ours:.2f}</text>',
            f'<text class="small" x="{left + width + 46}" y="{y + 5}">{escape(best)} {servers[best]:.2f}</text>',
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
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """What a release records: CPU and memory, for each thing that is measured and each server."""

    def table(self) -> str:
        return table(self.head, self.rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


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


def summary(releases: Mapping[str, Ratios]) -> str:
    """Write the first screen of docs/speed.md: the last release beside its peers, and the releases before it."""
    version, ratios = list(releases.items())[-1]
    beside = [name for name in SUMMARY if any(name in servers for servers in ratios.values())]
    rows = [
        [what, *(f"{servers[name]:.2f}" if name in servers else "" for name in beside)]
        for what, servers in ratios.items()
        if BASELINE in servers
    ]
    names = [f"{SERVICE} {version}", *beside[1:]]
    return f"![CPU and memory beside plain Litestar](speed.svg)\n\n{table(['Litestar = 1.00', *names], rows)}"


def write_summary(folder: Path = DOCS) -> None:
    """Put the first screen of docs/speed.md in step with `releases.json`."""
    releases = read()
    page = folder / "speed.md"
    page.write_text(
        pattern("summary").sub(lambda found: f"{found[1]}{summary(releases)}\n{found[3]}", page.read_text())
    )
    (folder / "speed.svg").write_text(overview(last()))


def write(name: str, findings: Findings, pages: Sequence[Path] = PAGES) -> None:
    """Put it into the page that has a place for it, instead of what an earlier run found; the charts beside it."""
    [page] = [page for page in pages if pattern(name).search(page.read_text())]
    page.write_text(pattern(name).sub(lambda found: f"{found[1]}{block(findings)}\n{found[3]}", page.read_text()))
    for each, chart in findings.charts.items():
        (page.parent / f"speed-{each}.svg").write_text(chart.svg())
