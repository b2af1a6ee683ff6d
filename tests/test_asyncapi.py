"""The messages, documented: valid by the official parser, whatever the answers, and types are made of them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .rendering import HOSTILE, ROOT, answers_of, environment, render

ANSWERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "token": {"auth": "jwt", "listeners": "chat, prices:class"},
    "hostile": HOSTILE | {"listeners": "a_name_of_thirty_characters_ab:class"},
}
SECONDS = 240

EXOTIC = '''\
"""Messages with everything that a schema may have, and listeners of every kind."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from litestar.params import FromQuery, QueryParameter
from msgspec import Meta, Struct

from ..connections import Listener, Socket, listener


class Colour(Enum):
    RED = "red"


class Point(Struct, tag="point", forbid_unknown_fields=True, rename="camel"):
    """A point."""

    at_x: Annotated[float, Meta(ge=0, le=1)]
    colour: Colour
    seen: datetime | None = None


class Shape(Struct, tag="shape"):
    name: Annotated[str, Meta(min_length=3, max_length=9, pattern="^[a-z]+$")]
    parts: "list[Point | Shape]"
    key: UUID
    kind: Literal["open", "closed"] = "open"
    sizes: dict[str, int] = {}
    corner: tuple[int, str] = (1, "a")


@listener(["/draw", "/paint"], sends=Point)
async def exotic(data: Point | Shape, colour: FromQuery[Colour | None] = None) -> Shape | str | None: ...


class Files(Listener):
    path = "/files/{at:int}/{name:path}"

    async def on_accept(self, socket: Socket, page: Annotated[int, QueryParameter(name="p", ge=1)] = 1) -> None: ...

    async def on_receive(self, data: bytes) -> dict[str, int]: ...
'''


def npm(folder: Path, *packages: str) -> Path:
    """Install packages into a folder of their own."""
    program = shutil.which("npm")
    assert program, "there is no npm; install it: apt-get install npm"
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    command = [program, "install", "--silent", "--no-audit", "--no-fund", *packages]
    subprocess.run(command, cwd=folder, check=True, timeout=SECONDS)
    return folder


def written(project: Path, *options: str) -> str:
    """Run the command of a generated project that writes the document."""
    answers = answers_of(project)
    package = answers["package_name"]
    secret = {f"{package.upper()}_AUTH_SECRET": "only-for-this-test-" * 2} if answers["auth"] == "jwt" else {}
    result = subprocess.run(
        [sys.executable, "-m", f"{package}.asyncapi", *options],
        cwd=project,
        env=environment(project) | secret,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_document_is_valid(template: Path, tmp_path: Path) -> None:
    node = npm(tmp_path / "node", "@asyncapi/parser", "ajv", "ajv-formats")
    shutil.copy(ROOT / "tests" / "asyncapi.mjs", node)
    projects = {name: render(template, tmp_path / name, **answers) for name, answers in ANSWERS.items()}
    projects["exotic"] = render(template, tmp_path / "exotic", listeners="exotic")
    (projects["exotic"] / "src/my_service/listeners/exotic.py").write_text(EXOTIC)
    app = projects["exotic"] / "src/my_service/app.py"
    app.write_text(
        app.read_text().replace("import exotic\n", "import Files, exotic\n").replace("  exotic,", "  exotic, Files,")
    )
    for name, project in projects.items():
        (node / f"{name}.json").write_text(written(project))
    result = subprocess.run(
        ["node", "asyncapi.mjs", *(f"{name}.json" for name in projects)],
        cwd=node,
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.stdout == ""
    exotic = json.loads((node / "exotic.json").read_text())
    assert exotic["channels"]["/draw"].keys() == exotic["channels"]["/paint"].keys()
    assert exotic["channels"]["/draw"]["bindings"]["ws"]["query"]["properties"] == {
        "colour": {"title": "Colour", "enum": ["red"]}
    }


def test_types_are_made_by_the_commands_of_the_readme(default_project: Path, tmp_path: Path) -> None:
    """And each example of the document is of its type."""
    readme = (default_project / "README.md").read_text()
    for command in re.findall(r"^uv run python -m my_service.realtime.asyncapi .*$", readme, re.MULTILINE):
        script = command.replace("uv run python", shlex.quote(sys.executable)).replace("> ", f"> {tmp_path}/")
        subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=default_project,
            env=environment(default_project),
            check=True,
            timeout=SECONDS,
        )
    document = json.loads((tmp_path / "asyncapi.json").read_text())
    messages = [message for channel in document["channels"].values() for message in channel["messages"].values()]
    lines = ['import type * as types from "./messages";']
    for number, message in enumerate(messages):
        kind = message["payload"]["$ref"].rpartition("/")[2]
        lines.append(f"export const example{number}: types.{kind} = {json.dumps(message['examples'][0]['payload'])};")
    (tmp_path / "examples.ts").write_text("\n".join(lines))
    compiler = npm(tmp_path / "node", "typescript") / "node_modules" / ".bin" / "tsc"
    command = [compiler, "--noEmit", "--strict", "examples.ts"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 0, result.stdout
    assert len(messages) == 13
