"""The JavaScript of the live page is typed, by comments, and TypeScript finds nothing to complain about."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .npm import install

OPTIONS = {
    "allowJs": True,
    "checkJs": True,
    "strict": True,
    "noEmit": True,
    "noUnusedLocals": True,
    "noUnusedParameters": True,
    "target": "es2022",
    "lib": ["es2023", "dom", "dom.iterable"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
}

USER = """
import { CLOSE_CODES, ReconnectingWebSocket } from "./client.js";

type Message = { type: "said"; text: string } | { type: "joined" };

const socket = new ReconnectingWebSocket<Message>("/ws/rooms/lobby", {
  onMessage: (message) => console.log(message.type === "said" ? message.text.length : message.type),
  onState: ({ status, lastClose }) => console.log(status, lastClose && CLOSE_CODES.get(lastClose.code)?.meaning),
  token: async () => (await fetch("/token")).text(),
  after: 0,
}).open();
const fate: "sent" | "queued" | "refused" = socket.send({ type: "say", text: "hi" });
console.log(fate, socket.latency?.toFixed(), socket.sequence);
"""
"""An application that uses the client."""


@pytest.fixture(scope="module")
def tsc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("typescript"), "typescript") / ".bin" / "tsc"


def complaints(tsc: Path, folder: Path) -> str:
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "include": ["**/*.js", "*.ts"]}))
    command = [str(tsc), "--project", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def test_typescript_finds_nothing(tsc: Path, project: Path) -> None:
    realtime = project / "src" / "my_service" / "realtime"
    for file in (realtime / "client").iterdir():  # served beside the page, in one folder
        shutil.copy(file, realtime / "page")
    assert complaints(tsc, realtime / "page") == ""


def test_an_application_in_typescript_can_use_the_client(tsc: Path, project: Path) -> None:
    package = project / "src" / "my_service" / "realtime" / "client"
    (package / "user.ts").write_text(USER)
    assert complaints(tsc, package) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("message.text.length", "message.text.size"),
        ("after: 0", "after: '0'"),
        ("after: 0", "reconnects: true"),
        ('"queued"', '"waits"'),
    ],
)
def test_its_mistakes_are_found(tsc: Path, project: Path, right: str, wrong: str) -> None:
    package = project / "src" / "my_service" / "realtime" / "client"
    (package / "user.ts").write_text(USER.replace(right, wrong))
    assert "user.ts" in complaints(tsc, package)
