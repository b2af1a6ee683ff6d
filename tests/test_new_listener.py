"""`new-listener NAME [--class | --stream]`: what it writes is clean and green, and nothing that exists is changed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .cases import params
from .rendering import answers_of, check, names, replace, run

LONG = "a_name_of_38_characters_and_not_more_a"
PROJECTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "without what can be left out": {"asyncapi": False, "demo_page": False},
    "everything, and long names": {
        "auth": "jwt",
        "telemetry": "opentelemetry",
        "package_name": "a_very_long_name_of_a_package_with_48_characters",
    },
}
LIST = """\
        route_handlers=[
            echo,
            Rooms,
        ],
"""


EACH = """
import contextlib, io, json, sys
from my_service.realtime.__main__ import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        status = main(["new-listener", *arguments])
    print(json.dumps([status, complaint.getvalue()]))
"""
"""Run the command with each of some arguments, in one process."""

NOT_A_MODULE = "is not the name of a module"
RULE = "use up to 38 lower-case letters, digits and underscores, such as price_feed, and no keyword"
REFUSED = [
    (["PriceFeed"], f"The name 'PriceFeed' {NOT_A_MODULE}", RULE),
    (["price-feed"], f"The name 'price-feed' {NOT_A_MODULE}", RULE),
    (["../chat"], f"The name '../chat' {NOT_A_MODULE}", RULE),
    (["7"], f"The name '7' {NOT_A_MODULE}", RULE),
    (["größe"], f"The name 'größe' {NOT_A_MODULE}", RULE),
    (["x" * 39], NOT_A_MODULE, RULE),
    (["class"], f"The name 'class' {NOT_A_MODULE}", RULE),
    (["class", "--class"], f"The name 'class' {NOT_A_MODULE}", RULE),
    (["input"], "The name 'input' is used in Python", "such as input_feed"),
    (["warning", "--class"], "The name 'Warning' is used in Python", "such as warning_feed"),
    (["settings"], "The name 'settings' is used in app.py", "such as settings_feed"),
    (["create_app"], "The name 'create_app' is used in app.py", "such as create_app_feed"),
    (["connection", "--class"], "The name 'Connection' is used in the file of a listener", "such as connection_feed"),
    (["messages"], "The name 'messages' is used in the package my_service", "such as messages_feed"),
    (["listener"], "The name 'listener' is used in the file of a listener", "such as listener_feed"),
    (["send", "--class"], "The name 'Send' is used in the file of a listener", "such as send_feed"),
]
"""Arguments that are refused, and what the mistake and the fix say."""


def files_of(project: Path, name: str) -> tuple[Path, Path]:
    package = project / "src" / answers_of(project)["package_name"]
    return package / "listeners" / f"{name}.py", project / "tests" / "listeners" / f"test_{name}.py"


def new_listener(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(project, "python", "-m", f"{answers_of(project)['package_name']}.realtime", "new-listener", *arguments)


def contents(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in names(project)}


@pytest.mark.parametrize("answers", params(PROJECTS, {"everything, and long names"}))
def test_what_it_writes_is_clean_and_its_tests_pass(rendered: Callable[..., Path], answers: dict[str, Any]) -> None:
    project = rendered(**answers)
    listeners = {"a": "a", "chat10": "chat10", "chat9": "chat9", LONG: LONG}
    for name in listeners:
        assert new_listener(project, name).returncode == 0
    for name in (streams := {"talk": "talk", f"{LONG[:-1]}c": f"{LONG[:-1]}c"}):
        assert new_listener(project, name, "--stream").returncode == 0
    listeners |= streams
    classes = {"b": "B", "price_feed": "PriceFeed", f"{LONG[:-1]}b": "ANameOf38CharactersAndNotMoreB"}
    for name, symbol in classes.items():
        result = new_listener(project, name, "--class")
        app = f"src/{answers_of(project)['package_name']}/app.py"
        assert result.stdout.splitlines() == [
            f"Wrote {files_of(project, name)[0].relative_to(project)}",
            f"Wrote {files_of(project, name)[1].relative_to(project)}",
            f"Registered {symbol} in {app}",
        ]
    files = [str(file) for name in listeners | classes for file in files_of(project, name)]
    check(project, "ruff", "check", app, *files)
    check(project, "ruff", "format", "--check", app, *files)
    check(project, "mypy", app, *files)
    check(project, "pyright", "--pythonpath", sys.executable, app, *files)
    written = [str(files_of(project, name)[1]) for name in listeners | classes]
    assert f"{len(written) + len(streams)} passed" in check(
        project, "pytest", "-q", "-n0", "-p", "no:cacheprovider", *written
    )
    if answers_of(project)["asyncapi"]:
        check(project, "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/test_messages.py")


def test_what_exists_stays_as_it_is(project: Path) -> None:
    assert new_listener(project, "chat").returncode == 0
    before = contents(project)
    for arguments in (["chat"], ["chat", "--class"], ["echo"]):
        result = new_listener(project, *arguments)
        assert result.returncode == 1
        assert "Fix: choose another" in result.stderr
    assert contents(project) == before


@pytest.mark.parametrize("which", [0, 1], ids=["the listener", "its test"])
def test_a_file_of_that_name_is_in_the_way(project: Path, which: int) -> None:
    file = files_of(project, "chat")[which]
    file.write_text('"""Mine."""\n')
    before = contents(project)
    result = new_listener(project, "chat")
    assert result.returncode == 1
    assert result.stderr == (
        f"{file.relative_to(project)} exists already.\nFix: choose another name, or rename that file.\n"
    )
    assert contents(project) == before


def test_a_name_that_cannot_be_used_is_refused(default_project: Path) -> None:
    """And nothing is written: the project is one that no test may change."""
    written = check(default_project, "python", "-c", EACH, json.dumps([arguments for arguments, *_ in REFUSED]))
    for (arguments, mistake, fix), line in zip(REFUSED, written.splitlines(), strict=True):
        status, complaint = json.loads(line)
        assert status == 1, arguments
        first, second = complaint.splitlines()
        assert mistake in first
        assert second.startswith("Fix: ")
        assert fix in second


def test_without_a_name_it_says_what_it_takes(project: Path) -> None:
    result = new_listener(project)
    assert result.returncode == 2
    assert "required: NAME" in result.stderr


@pytest.mark.parametrize(
    "edited",
    [
        LIST.replace("Rooms,", "Rooms,  # one, two\n            # three"),
        LIST.replace("Rooms,", "*OTHERS,"),
        LIST.replace("            echo,\n            Rooms,\n", ""),
        LIST.replace("\n", "\r\n"),
    ],
    ids=["comments", "other handlers", "empty", "Windows"],
)
def test_a_list_with_a_name_on_each_line_is_added_to(project: Path, edited: str) -> None:
    app = project / "src/my_service/app.py"
    end = "\r\n" if "\r" in edited else "\n"
    replace(app, LIST, edited.replace("\r", ""))
    before = app.read_bytes().replace(b"\n", end.encode())
    app.write_bytes(before)
    assert "Registered chat in src/my_service/app.py" in new_listener(project, "chat").stdout
    lines = app.read_bytes().decode().splitlines(keepends=True)
    imported, named = f"from .listeners.chat import chat{end}", f"            chat,{end}"
    assert lines[lines.index(imported) + 1] == f"from .listeners.echo import echo{end}"
    assert lines[lines.index(named) + 1] == f"        ],{end}"
    lines.remove(imported)
    lines.remove(named)
    assert "".join(lines).encode() == before


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_empty_list_is_filled(project: Path, end: str) -> None:
    app = project / "src/my_service/app.py"
    replace(app, LIST, "        route_handlers=[],\n")
    app.write_bytes(app.read_bytes().replace(b"\n", end.encode()))
    assert "Registered chat in src/my_service/app.py" in new_listener(project, "chat").stdout
    expected = f"        route_handlers=[{end}            chat,{end}        ],{end}"
    assert expected in app.read_bytes().decode()


@pytest.mark.parametrize(
    "edited",
    [
        "        route_handlers=HANDLERS,\n",
        "        route_handlers=(echo, Rooms),\n",
        "        route_handlers=[echo, Rooms],\n",
        LIST.replace("Rooms,", "Rooms"),
        LIST.replace("Rooms,", 'Router("/", route_handlers=[Rooms]),'),
        LIST.replace("[", "[["),
        LIST + LIST,
    ],
    ids=["a name", "a tuple", "one line", "no last comma", "a router", "not Python", "twice"],
)
def test_where_the_list_is_another_it_says_what_to_add(project: Path, edited: str) -> None:
    app = project / "src/my_service/app.py"
    replace(app, LIST, edited)
    before = app.read_bytes()
    result = new_listener(project, "chat")
    assert result.returncode == 0
    assert result.stdout.endswith("\n\n    from .listeners.chat import chat\n    chat,  # in route_handlers\n")
    assert app.read_bytes() == before
    assert files_of(project, "chat")[0].exists()


def test_where_no_import_is_relative_it_says_what_to_add(project: Path) -> None:
    app = project / "src/my_service/app.py"
    app.write_text(
        app.read_text().replace("from .", "from my_service.").replace("my_service. import", "my_service import")
    )
    before = app.read_bytes()
    assert "from .listeners.chat import chat" in new_listener(project, "chat").stdout
    assert app.read_bytes() == before


def test_the_listeners_of_the_template_may_be_gone(project: Path) -> None:
    """With them their folders are gone, and the service begins with what the command writes."""
    app = project / "src/my_service/app.py"
    for line in (
        "from .listeners.echo import echo\n",
        "from .listeners.rooms import Rooms\n",
        "            echo,\n            Rooms,\n",
    ):
        replace(app, line, "")
    for folder in (files_of(project, "echo")[0].parent, files_of(project, "echo")[1].parent):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert new_listener(project, "chat").returncode == 0
    check(project, "ruff", "check", "src/my_service/app.py", *map(str, files_of(project, "chat")))
    assert "1 passed" in check(project, "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/listeners")
