"""The CPU time of `copier copy` and `copier update`, beside what Copier itself takes for a template of one file."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.history import commit, git
from tests.rendering import copy_of_the_template

from .report import Findings, Promise
from .rounds import tell
from .servers import COMPILED

FLOOR = "a template of one file"
OURS = "this template"


def measure(folder: Path, rounds: int) -> Findings:
    templates = {FLOOR: _single_file(folder / "floor"), OURS: copy_of_the_template(folder / "released")}
    for template in templates.values():
        git(template, "init", "--quiet")
        for release in ("1.0.0", "1.1.0"):
            commit(template)  # nothing has changed in the second: what an update takes at least
            git(template, "tag", release)
        git(template, "gc", "--quiet")  # packed, as a clone of what a server holds is
    _copier("copy", str(templates[FLOOR]), str(folder / "compiled"))  # the first compiles Copier
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        tell(f"\r  round {number + 1} of {rounds} ")
        for name, template in templates.items():
            project = folder / f"copied-{template.name}-{number}"
            copied = _copier("copy", "--vcs-ref", "1.0.0", str(template), str(project))
            git(project, "init", "--quiet")
            commit(project)
            updated = _copier("update", str(project))
            seconds.setdefault((name, "copy"), []).append(copied)
            seconds.setdefault((name, "update"), []).append(updated)
            tell(".")
    tell("\n")
    rows = [
        [
            f"`copier {command}`",
            *(f"{median(seconds[name, command]):.2f}" for name in (FLOOR, OURS)),
            f"{median(_ratios(seconds[OURS, command], seconds[FLOOR, command])):.2f}",
        ]
        for command in ("copy", "update")
    ]
    promises = [
        Promise(command, most, median(_ratios(seconds[OURS, command], seconds[FLOOR, command])))
        for command, most in (("copy", 2.0), ("update", 2.5))
    ]
    ratios = {f"copier {promise.what}": {OURS: promise.measured} for promise in promises}
    return Findings(["CPU, s", FLOOR, OURS, "ratio"], rows, {"copier": version("copier")}, promises, ratios=ratios)


def _ratios(ours: list[float], floor: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, floor, strict=True)]


def _single_file(folder: Path) -> Path:
    (folder / "template").mkdir(parents=True)
    (folder / "copier.yml").write_text("_subdirectory: template\nname:\n  type: str\n  default: it\n")
    (folder / "template" / "{{ _copier_conf.answers_file }}.jinja").write_text("{{ _copier_answers | to_nice_yaml }}")
    return folder


def _copier(*arguments: str) -> float:
    """Run a command of Copier; return the seconds of CPU that it and its children took."""
    command = [sys.executable, "-m", "copier", arguments[0], "--defaults", "--quiet", *arguments[1:]]
    before = os.times()
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=os.environ | COMPILED)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
