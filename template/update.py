"""Update this project to the newest version of its template, and test the result: `uv run update.py`.

Options are passed on to `copier update`: `--data demo_page=false` changes an answer, `--vcs-ref 1.2.0` selects a
version, `--conflict rej` writes conflicts into files of their own.
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
CONFLICT = b"<<<<<<< before updating"
"""The line with which Copier marks a conflict. It exits with 0 all the same."""
UNDO = "Or undo the update: git reset --hard && git clean -d --force"


class StopError(Exception):
    """The update cannot start or has failed; the message says why, and the fix."""


def main() -> int:
    """Update, and report the outcome.

    Returns:
        The exit status: 0 if there is nothing new or the updated project passes its tests; 1 otherwise.
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
        return f"nothing new: this project has the newest version, {versions['current_version']}"
    # With fewer than three lines of context, an edit may be applied to another block that looks alike.
    copier("update", "--defaults", "--context-lines=3", f"--data=updated_from={versions['current_version']}", *options)
    if names := "\n".join(conflicts()):
        raise StopError(f"there are conflicts. Fix: resolve them, then run `uv run pytest`:\n\n{names}\n\n{UNDO}")
    if run(os.environ.get("UV", "uv"), "run", "pytest").returncode:
        raise StopError(f"the tests fail; their output is above. Fix: change what they name.\n{UNDO}")
    return "done, and the tests pass. Review the changes with `git diff`, then commit them."


def refuse_unsaved_work() -> None:
    """Raise unless everything is committed, so that the update can be reviewed and undone."""
    status = run("git", "status", "--porcelain", stdout=subprocess.PIPE)
    if status.returncode:
        raise StopError("this folder is not in a git repository. Fix: git init && git add --all && git commit -m Begin")
    if status.stdout:
        raise StopError(f"there are uncommitted changes. Fix: commit or stash them first:\n\n{status.stdout}")


def refuse_relative_template() -> None:
    """Raise if Copier has recorded a relative path of the template, which it cannot find from here."""
    if re.search(r"^_src_path: \.", (ROOT / ANSWERS).read_text("utf-8"), re.MULTILINE):
        raise StopError(f"_src_path in {ANSWERS} is relative. Fix: write the template's absolute path, and commit it.")


def conflicts() -> list[str]:
    """Return the files in which Copier has marked a conflict, and those into which it has written one (.rej)."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", stdout=subprocess.PIPE)
    if listing.returncode:
        raise StopError("Git has failed; its error is above.")
    files = {name for name in listing.stdout.split("\0") if (ROOT / name).is_file()}
    return sorted(
        name for name in files if name.endswith(".rej") or CONFLICT in (ROOT / name).read_bytes().splitlines()
    )


def copier(*arguments: str, stdout: int | None = None) -> str:
    process = run(sys.executable, "-m", "copier", *arguments, stdout=stdout)
    if process.returncode:
        raise StopError("Copier has failed; its error is above.")
    return process.stdout


def run(*command: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}  # the one of this script
    return subprocess.run(  # noqa: S603 - nothing but the commands above
        command, cwd=ROOT, env=outer, stdout=stdout, text=True, encoding="utf-8", check=False
    )


if __name__ == "__main__":
    sys.exit(main())
