"""Measure the proof of state independence, and write docs/proof.md: `uv run python -m tests.proof`.

It takes some two hours on two idle cores. What is in `--journal FILE` already is not measured again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .rendering import ROOT, add_framework_tests, copy_of_the_template, environment, render

PAGE = ROOT / "docs" / "proof.md"
MODULE = "framework.independence.measuring"
LISTENERS = 54
"""How many correct listeners there are."""
EXAMPLES = 40
"""The default of the proof."""

TIMEOUT = 1800  # s, for a listener with a thousand dialogues on a busy machine

Line = dict[str, Any]


def measure(project: Path, what: str, number: int, examples: int = EXAMPLES) -> Line:
    """Return what is measured in a project that has the tests of the framework.

    Args:
        project: It has authentication: some of the listeners ask for a user.
        what: "correct" or "planted".
        number: Of a listener, or a seed.
        examples: Dialogues with the listener.
    """
    command = [sys.executable, "-m", MODULE, what, str(number)]
    options = environment(project) | {"PROOF_EXAMPLES": str(examples)}
    found = subprocess.run(
        command, cwd=project, env=options, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT
    )
    line: Line = json.loads(found.stdout)
    return line


def project_to_measure(folder: Path) -> Path:
    """Render what the listeners of the measurement run in."""
    project = render(copy_of_the_template(folder / "template"), folder / "project", auth="jwt")
    add_framework_tests(project)
    return project


def table(lines: Iterable[Line]) -> str:
    """Return what was measured, as Markdown."""
    lines = [*lines]
    correct = [line for line in lines if line["what"] == "correct"]
    planted = [line for line in lines if line["what"] == "planted"]
    alarms = [line["listener"] for line in correct if line["report"] or line["vacuous"]]
    examples = sorted({line["examples"] for line in correct})
    shapes = [*dict.fromkeys(line["shape"] for line in planted)]
    rows = [["kept", *(_words(shape) for shape in shapes), "found"]]
    rows.append(["---"] * len(rows[0]))
    for place in [*dict.fromkeys(line["place"] for line in planted)]:
        of_place = [line for line in planted if line["place"] == place]
        cells = [_share(line for line in of_place if line["shape"] == shape) for shape in shapes]
        rows.append([_words(place), *cells, _share(of_place)])
    of_shapes = [_share(line for line in planted if line["shape"] == shape) for shape in shapes]
    rows.append(["found", *of_shapes, _share(planted)])
    missed = [
        f"- {line['number']}: `{line['listener']}` {_words(line['shape'])}, {_words(line['place'])}"
        for line in planted
        if not line["found"]
    ]
    return "\n".join(
        [
            f"{len(correct)} correct listeners, {' to '.join(map(str, examples))} dialogues each: "
            f"{sum(line['messages'] for line in correct if not line['report'])} messages, {len(alarms)} false alarms.",
            *(f"- {listener}" for listener in alarms),
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(["Missed, by seed:", "", *missed] if missed else ["None was missed."]),
        ]
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _share(lines: Iterable[Line]) -> str:
    found = [line["found"] for line in lines]
    return f"{sum(found)} of {len(found)}" if found else "-"


def write(page: str, measured: str) -> str:
    """Return the page with another table."""
    return re.sub(r"(?<=<!-- measured -->\n).*(?=\n<!-- end -->)", lambda _: measured, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="planted mistakes")
    parser.add_argument("--examples", type=int, default=1000, help="dialogues with each correct listener")
    parser.add_argument("--journal", type=Path, default=os.devnull, help="where it is kept, for a run in several goes")
    options = parser.parse_args()
    journal: Path = options.journal
    lines: list[Line] = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    done = {(line["what"], line["number"]) for line in lines}
    jobs = [("planted", seed, EXAMPLES) for seed in range(options.seeds)]
    jobs += [("correct", number, options.examples) for number in range(LISTENERS)]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool, journal.open("a") as kept:
        project = project_to_measure(Path(folder))
        for line in pool.map(lambda job: measure(project, *job), [job for job in jobs if job[:2] not in done]):
            lines.append(line)
            kept.write(json.dumps(line) + "\n")
            kept.flush()
    PAGE.write_text(write(PAGE.read_text(), table(lines)))


if __name__ == "__main__":
    main()
