"""Update this project to the newest version of its template, and test the result: `uv run update.py`."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.19.1", "pyyaml>=6"]
# ///

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent
ANSWERS = ".copier-answers.yml"
CONFLICT = b"<<<<<<< before updating"
"""The line with which Copier marks a conflict. It exits with 0 all the same."""
UNDO = "Or undo the update: git reset --hard && git clean -d --force"
ADDRESS = re.compile(r"[/~\\]|[\w.+@-]+:")
"""How an absolute path, a URL, or a shortcut such as `gh:` begins."""

GIT_SETTINGS = {
    "apply.ignoreWhitespace": "no",
    "apply.whitespace": "nowarn",
    "core.attributesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.safecrlf": "false",
    "diff.suppressBlankEmpty": "false",
    "init.templateDir": "",
    "status.showUntrackedFiles": "normal",
    "submodule.recurse": "false",
}
"""What git is told, here and under Copier, whatever its user has set: with other values edits are lost in silence."""
OF_A_REPOSITORY = {"GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE"}
"""Variables that name a repository, as in a hook of git."""

RENAME = """\
the package is renamed by hand, because your own files would stay where they are. Fix:
  1. git mv src/{old} src/{new}
  2. In {answers}, write `package_name: {new}`.
  3. In all other files that `git grep --ignore-case {old}` lists, replace {old} by {new} and {OLD}_ by {NEW}_.
  4. uv run pytest
  5. git add --all && git commit -m "Rename the package"
Updates work as before then."""


class StopError(Exception):
    """The update cannot start or has failed; the message says why, and the fix."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Update, and report the outcome.

    Args:
        arguments: The options; those of the process by default.

    Returns:
        The exit status: 0 if there is nothing new or the updated project passes its tests; 1 otherwise.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for a wrong option.
    """
    parser = argparse.ArgumentParser(
        prog="update.py",
        allow_abbrev=False,
        description="Update to the newest version of the template, and run the tests.",
    )
    parser.add_argument("--data", action="append", default=[], metavar="NAME=VALUE", help="change an answer")
    parser.add_argument("--vcs-ref", metavar="VERSION", help="update to this version (default: the newest)")
    parser.add_argument(
        "--conflict", choices=["inline", "rej"], default="inline", help="write conflicts into the file, or beside it"
    )
    options = parser.parse_args(arguments)
    data: dict[str, str] = {}
    for answer in options.data:
        name, equals, data[name] = answer.partition("=")
        if not (name and equals):
            parser.error(f"argument --data: {answer!r} is not NAME=VALUE")
    try:
        outcome, status = update(data, options.vcs_ref, options.conflict), 0
    except StopError as error:
        outcome, status = str(error), 1
    sys.stderr.write(f"\nupdate.py: {outcome}\n")
    return status


def update(data: dict[str, str], version: str | None, conflict: str) -> str:
    refuse_unsaved_work()
    refuse_new_package(data, read_answers())
    present = json.loads(copier("check-update", "--output-format=json", stdout=subprocess.PIPE))
    if not (present["update_available"] or data or version):
        return f"nothing new: this project has the newest version, {present['current_version']}"
    # With fewer than three lines of context, an edit may be applied to another block that looks alike.
    options = ["--defaults", "--context-lines=3", f"--conflict={conflict}"]
    options += [f"--data={name}={value}" for name, value in data.items()]
    options += [f"--vcs-ref={version}"] if version else []
    copier("update", f"--data=updated_from={present['current_version']}", *options)
    if names := "\n".join(conflicts()):
        raise StopError(f"there are conflicts. Fix: resolve them, then run `uv run pytest`:\n\n{names}\n\n{UNDO}")
    if unknown := data.keys() - read_answers().keys():
        raise StopError(f"the template does not ask for {', '.join(sorted(unknown))}. Fix: see {ANSWERS}.\n{UNDO}")
    if run(os.environ.get("UV", "uv"), "run", "pytest").returncode:
        raise StopError(f"the tests fail; their output is above. Fix: change what they name.\n{UNDO}")
    return "done, and the tests pass. Review the changes with `git diff`, then commit them."


def refuse_unsaved_work() -> None:
    """Raise unless everything is committed, so that the update can be reviewed and undone."""
    if changes := git("status", "--porcelain"):
        raise StopError(f"there are uncommitted changes. Fix: commit or stash them first:\n\n{changes}")


def read_answers() -> dict[str, Any]:
    """Return what Copier has recorded of this project.

    Raises:
        StopError: It cannot find the template, or the version of it that this project has.
    """
    try:
        answers = yaml.safe_load((ROOT / ANSWERS).read_bytes())
    except FileNotFoundError:
        lost = f"git log --diff-filter=D -- {ANSWERS}"
        raise StopError(f"{ANSWERS} is missing. Fix: restore it; `{lost}` finds it.") from None
    except yaml.YAMLError:
        answers = None
    if not isinstance(answers, dict) or not isinstance(address := answers.get("_src_path"), str):
        raise StopError(f"{ANSWERS} does not name the template. Fix: restore it with git.")
    if not ADDRESS.match(address):
        raise StopError(f"_src_path in {ANSWERS} is relative. Fix: write the template's absolute path, and commit it.")
    if "_commit" not in answers:
        raise StopError(
            f"{ANSWERS} has no version, because the template was copied without git. "
            "Fix: write `_commit: VERSION`, and the address of its repository as _src_path; commit both."
        )
    return answers


def refuse_new_package(data: dict[str, str], answers: dict[str, Any]) -> None:
    """Raise if the package is to have another name."""
    old = str(answers.get("package_name"))
    if (new := data.get("package_name", old)) != old:
        raise StopError(RENAME.format(old=old, new=new, OLD=old.upper(), NEW=new.upper(), answers=ANSWERS))


def conflicts() -> list[str]:
    """Return the files in which Copier has marked a conflict, and those into which it has written one (.rej)."""
    tracked = set(filter(None, git("ls-files", "-z").split("\0")))
    new = set(filter(None, git("ls-files", "-z", "--others", "--exclude-standard").split("\0")))
    marked = {name for name in tracked | new if (ROOT / name).is_file() and is_marked(ROOT / name)}
    unmerged = {line.partition("\t")[2] for line in git("ls-files", "-z", "--unmerged").split("\0") if line}
    rejected = {name for name in new if name.endswith(".rej")}
    rejected |= {f"{name}.rej" for name in tracked if (ROOT / f"{name}.rej").is_file()} - tracked  # git may ignore it
    return sorted(marked | unmerged | rejected)


def is_marked(file: Path) -> bool:
    return CONFLICT in file.read_bytes().splitlines()


def git(*arguments: str) -> str:
    """Run git, and return what it writes.

    Raises:
        StopError: It is not installed, or has failed.
    """
    try:
        process = run("git", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise StopError("git is not installed. Fix: install it.") from None
    if "not a git repository" in process.stderr:
        raise StopError("this folder is not in a git repository. Fix: git init && git add --all && git commit -m Begin")
    if "dubious ownership" in process.stderr:
        raise StopError(
            "this folder belongs to another user, and git refuses it. "
            f"Fix: become that user, or git config --global --add safe.directory {ROOT}"
        )
    if process.returncode:
        raise StopError(f"git {arguments[0]} has failed: {process.stderr.strip()}")
    return process.stdout


def copier(*arguments: str, stdout: int | None = None) -> str:
    process = run(sys.executable, "-m", "copier", *arguments, stdout=stdout)
    if process.returncode:
        raise StopError("Copier has failed; its error is above.")
    return process.stdout


def run(*command: str, stdout: int | None = None, stderr: int | None = None) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY | {"VIRTUAL_ENV"}}
    given = int(outer.get("GIT_CONFIG_COUNT") or 0)
    for number, (name, value) in enumerate(GIT_SETTINGS.items(), given):
        outer |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    outer |= {"GIT_CONFIG_COUNT": str(given + len(GIT_SETTINGS)), "LC_ALL": "C.UTF-8"}
    return subprocess.run(  # noqa: S603 - nothing but the commands above
        command, cwd=ROOT, env=outer, stdout=stdout, stderr=stderr, text=True, encoding="utf-8", check=False
    )


if __name__ == "__main__":
    sys.exit(main())
