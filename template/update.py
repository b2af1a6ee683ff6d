"""The template's: `uv run update.py` brings its newest version into this project, and tests the result.

Options are handed on to `copier update`: `--data demo_page=false` changes an answer, `--vcs-ref 1.2.0` takes a version.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.19.1"]
# ///

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent
ANSWERS = ".copier-answers.yml"
CONFLICT = "^<<<<<<< before updating$"
"""What Copier writes where the template's change and yours meet. It succeeds all the same."""
TAKE_BACK = "Or take it all back: git reset --hard && git clean -d --force"


class StopError(Exception):
    """The update cannot begin, or did not come through; the message says why and what to do."""


def main() -> int:
    """Update, and say how it went.

    Returns:
        The exit status: 0 for nothing new, or an update that passes the tests; 1 otherwise.
    """
    try:
        outcome, status = update(sys.argv[1:]), 0
    except StopError as error:
        outcome, status = str(error), 1
    sys.stderr.write(f"\nupdate.py: {outcome}\n")
    return status


def update(options: list[str]) -> str:
    refuse_unsaved_work()
    refuse_relative_template()
    versions = json.loads(copier("check-update", "--output-format=json", stdout=subprocess.PIPE))
    if not versions["update_available"] and not options:
        return f"nothing new; this project has the newest version, {versions['current_version']}"
    # An edit is known by the three lines around it; by fewer, it may be taken for one of another block.
    copier("update", "--defaults", "--context-lines=3", f"--data=updated_from={versions['current_version']}", *options)
    conflicts = run("git", "grep", "--name-only", "--untracked", CONFLICT, stdout=subprocess.PIPE).stdout
    if conflicts:
        raise StopError(f"mend the conflicts in these files, then run `uv run pytest`:\n\n{conflicts}\n{TAKE_BACK}")
    if run(os.environ.get("UV", "uv"), "run", "pytest").returncode:
        raise StopError(f"the tests fail, and say why above.\n{TAKE_BACK}")
    return "done, and the tests pass. Look at it with `git diff`, then commit it."


def refuse_unsaved_work() -> None:
    """Git must have all, so that an update can be looked at and taken back."""
    status = run("git", "status", "--porcelain", stdout=subprocess.PIPE)
    if status.returncode:
        raise StopError("this is no git repository. Make one: git init && git add --all && git commit -m Begin")
    if status.stdout:
        raise StopError(f"commit or stash your work first:\n\n{status.stdout}")


def refuse_relative_template() -> None:
    """Copier records the template's path as it was given, and looks for it from here."""
    if re.search(r"^_src_path: \.", (ROOT / ANSWERS).read_text("utf-8"), re.MULTILINE):
        raise StopError(f"_src_path in {ANSWERS} is relative; write the whole path of the template, and commit it.")


def copier(*arguments: str, stdout: int | None = None) -> str:
    process = run(sys.executable, "-m", "copier", *arguments, stdout=stdout)
    if process.returncode:
        raise StopError("Copier has stopped, and says why above.")
    return process.stdout


def run(*command: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}  # the one of this script
    return subprocess.run(  # noqa: S603 - nothing but the commands above
        command, cwd=ROOT, env=outer, stdout=stdout, text=True, encoding="utf-8", check=False
    )


if __name__ == "__main__":
    sys.exit(main())
