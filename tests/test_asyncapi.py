"""The AsyncAPI document: valid by the official parser, whatever the answers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .npm import install
from .rendering import HOSTILE, ROOT, answers_of, check, environment, render, replace

ANSWERS: dict[str, dict[str, Any]] = {"defaults": {}, "token": {"auth": "jwt"}, "hostile": HOSTILE}
SECONDS = 240

EXOTIC = '''\
"""Messages with all that a schema may have, and listeners of every kind."""

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from litestar.params import FromQuery, QueryParameter
from msgspec import Meta, Struct

from ..realtime import Listener, Socket, listener


class Colour(Enum):
    RED = "red"


class Money:
    """A type that msgspec does not know."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


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
    price: Money | None = None


DECODERS = [(lambda kind: kind is Money, lambda _, value: Money(value))]


@listener(["/draw", "/paint"], sends=Point, type_decoders=DECODERS, type_encoders={Money: lambda money: money.cents})
async def exotic(data: Point | Shape, colour: FromQuery[Colour | None] = None) -> Shape | str | None: ...


class Files(Listener):
    path = "/files/{at:int}/{name:path}"

    async def on_accept(
        self, socket: Socket, page: Annotated[int, QueryParameter(name="p", ge=1)] = 1, of: FromQuery[Path] = Path()
    ) -> None: ...

    async def on_receive(self, data: bytes) -> dict[str, int]: ...
'''


def written(project: Path) -> str:
    """Run the command of a project that writes the document."""
    answers = answers_of(project)
    package = answers["package_name"]
    secret = {f"{package.upper()}_AUTH_SECRET": "only-for-this-test-" * 2} if answers["auth"] == "jwt" else {}
    result = subprocess.run(
        [sys.executable, "-m", f"{package}.realtime", "asyncapi"],
        cwd=project,
        env=environment(project) | secret,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.exhaustive
def test_every_document_is_valid(template: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    install(node, "@asyncapi/parser", "ajv", "ajv-formats")
    shutil.copy(ROOT / "tests" / "asyncapi.mjs", node)
    projects = {name: render(template, tmp_path / name, **answers) for name, answers in ANSWERS.items()}
    for project in projects.values():  # two listeners whose messages have the same names
        command = ["python", "-m", f"{answers_of(project)['package_name']}.realtime", "new-listener"]
        check(project, *command, "chat")
        check(project, *command, "prices", "--class")
    projects["exotic"] = render(template, tmp_path / "exotic")
    (projects["exotic"] / "src/my_service/listeners/exotic.py").write_text(EXOTIC)
    app = projects["exotic"] / "src/my_service/app.py"
    replace(app, "from .listeners.rooms", "from .listeners.exotic import Files, exotic\nfrom .listeners.rooms")
    replace(app, "            Rooms,\n", "            Rooms,\n            exotic,\n            Files,\n")
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
