"""The JavaScript of the live page is typed, by comments, and TypeScript finds no error."""

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

STRICTEST = {"exactOptionalPropertyTypes": True, "noUncheckedIndexedAccess": True}
"""What an application may ask for besides, of the client too."""

USER = """
import { CLOSE_CODES, ConnectionLost, MessageRejected, ReconnectingWebSocket, type State } from "./client.js";

type Message = { type: "said"; text: string } | { type: "joined" };
interface Rename { type: "rename"; name: string }
interface Renamed { type: "renamed"; name: string }
interface Ask { type: "ask"; prompt: string }
interface Token { type: "token"; text: string }
type Calls = ((message: Rename) => Renamed) | ((message: Ask) => Token);

const socket = new ReconnectingWebSocket<Message, Calls>("/ws/rooms/lobby", {
  onMessage: (message) => console.log(message.type === "said" ? message.text.length : message.type),
  onState: ({ status, lastClose }: State) => console.log(status, lastClose && CLOSE_CODES.get(lastClose.code)?.meaning),
  token: async () => (await fetch("/token")).text(),
  after: 0,
}).open();
const fate: "sent" | "queued" | "refused" = socket.send({ type: "say", text: "hi" });
console.log(fate, socket.latency?.toFixed(), socket.sequence);

const { signal } = new AbortController();
try {
  const { name } = await socket.request({ type: "rename", name: "Ada" }, { timeout: 1000, retry: true });
  console.log(name.length);
  for await (const { text } of socket.stream({ type: "ask", prompt: "why?" }, { signal })) console.log(text.length);
} catch (error) {
  if (error instanceof MessageRejected) console.log(error.detail, error.extra);
  else if (error instanceof ConnectionLost) console.log(error.code.toFixed(), error.reason);
}

const untyped = new ReconnectingWebSocket("wss://example.com/ws/echo");
console.log((await untyped.request({ anything: 1 })).whatever);
"""
"""An application that uses the client."""

MISTAKES = [
    ("message.text.length", "message.text.size"),
    ("after: 0", "after: '0'"),
    ("after: 0", "reconnects: true"),
    ('"queued"', '"waits"'),
    ('name: "Ada"', "name: 1"),
    ('type: "ask", prompt', 'type: "asks", prompt'),
    ("const { name }", "const { text }"),
    ("text.length);\n} catch", "name.length);\n} catch"),
    ("retry: true", "retries: 3"),
    ("error.detail", "error.reason"),
]

CHECK = """
import * as declared from "./client.js"; // the types: TypeScript prefers `client.d.ts`
import * as real from "./real.js";

export const check: typeof declared = real;
"""


@pytest.fixture(scope="module")
def tsc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("typescript"), "typescript") / ".bin" / "tsc"


def errors(tsc: Path, folder: Path, *files: str, **options: bool) -> str:
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS | options, "include": files}))
    command = [str(tsc), "--project", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def test_typescript_finds_nothing(tsc: Path, project: Path) -> None:
    realtime = project / "src" / "my_service" / "realtime"
    for file in (realtime / "client").iterdir():  # served beside the page, in one folder
        shutil.copy(file, realtime / "page")
    assert errors(tsc, realtime / "page", "*.js") == ""


def test_the_client_is_what_its_types_say(tsc: Path, project: Path) -> None:
    package = project / "src" / "my_service" / "realtime" / "client"
    shutil.copy(package / "client.js", package / "real.js")
    (package / "check.ts").write_text(CHECK)
    assert errors(tsc, package, "*.js", "*.ts", **STRICTEST) == ""
    (package / "real.js").write_text((package / "client.js").read_text().replace("async request(", "async ask("))
    assert "'request' is missing" in errors(tsc, package, "*.js", "*.ts", **STRICTEST)


def test_an_application_in_typescript_can_use_the_client(tsc: Path, project: Path) -> None:
    package = project / "src" / "my_service" / "realtime" / "client"
    (package / "user.ts").write_text(USER)
    assert errors(tsc, package, "user.ts", **STRICTEST) == ""


def test_each_mistake_is_found(tsc: Path, project: Path) -> None:
    package = project / "src" / "my_service" / "realtime" / "client"
    files = []
    for number, (right, wrong) in enumerate(MISTAKES):
        assert USER.count(right), right
        files.append(f"mistake{number}.ts")
        (package / files[-1]).write_text(USER.replace(right, wrong))
    found = errors(tsc, package, *files, **STRICTEST)
    assert [file for file in files if file not in found] == [], found
