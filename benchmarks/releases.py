"""What each release measured: `benchmarks/releases.json`, ratios to plain Litestar in the same run."""

import json
from collections.abc import Mapping
from pathlib import Path

from .servers import SERVICE

RELEASES = Path(__file__).with_suffix(".json")

TOLERANCE = 1.25
"""How many times the last release's a ratio may be: what is more is no noise of another machine."""

Ratios = dict[str, dict[str, float]]
"""The ratio of each server, by what was measured."""


def read(path: Path = RELEASES) -> dict[str, Ratios]:
    """Return the ratios of each release, the last release last."""
    releases: dict[str, Ratios] = json.loads(path.read_text())
    return releases


def record(version: str, ratios: Mapping[str, Mapping[str, float]], path: Path = RELEASES) -> None:
    """Put ratios into those of a release, in place of what was measured of the same before."""
    releases = read(path)
    rounded = {what: {name: round(ratio, 2) for name, ratio in each.items()} for what, each in ratios.items()}
    releases[version] = releases.get(version, {}) | rounded
    path.write_text(json.dumps(releases, indent=2) + "\n")


def last(path: Path = RELEASES) -> Ratios:
    """Return the ratios of the last release."""
    return list(read(path).values())[-1]


def worse(measured: Mapping[str, Mapping[str, float]], released: Ratios, tolerance: float = TOLERANCE) -> list[str]:
    """Return a line for each ratio of the service that is more than `tolerance` times what the release has.

    What the release did not measure is not compared.
    """
    lines: list[str] = []
    for what, ratios in measured.items():
        now, then = ratios[SERVICE], released.get(what, {}).get(SERVICE)
        if then is not None and now > then * tolerance:
            lines.append(
                f"{what}: {now:.2f}, and {then:.2f} in the last release, of which {tolerance} times are allowed"
            )
    return lines
