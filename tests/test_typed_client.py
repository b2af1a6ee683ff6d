"""`client --typescript`: typed under every strict option, laid out as Prettier does, and used in Chromium."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from .browser import MILLISECONDS
from .npm import install
from .rendering import check, render, run
from .service import add_listener, running
from .test_asyncapi import EXOTIC
from .test_page_streams import ASK

STRICTEST = {
    "strict": True,
    "exactOptionalPropertyTypes": True,
    "noUncheckedIndexedAccess": True,
    "noImplicitReturns": True,
    "noImplicitOverride": True,
    "noFallthroughCasesInSwitch": True,
    "noPropertyAccessFromIndexSignature": True,
    "noUnusedLocals": True,
    "noUnusedParameters": True,
    "allowUnreachableCode": False,
    "allowUnusedLabels": False,
    "verbatimModuleSyntax": True,
    "isolatedModules": True,
    "target": "es2022",
    "lib": ["es2023", "dom", "dom.iterable"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
    "outDir": "built",
}

USER = """
import { ask, echo, point, rooms } from "./api.js";
import { MessageRejected } from "./client.js";

export async function use(base: string): Promise<unknown> {
  const found: string[] = [];
  const options = { base, pingInterval: 0 };

  const room = rooms({ room: "the lobby?", after: 0 }, options);
  const received = new Promise<string>((resolve) => {
    const stop = room.on("said", (message) => {
      stop();
      resolve(`${message.text} in ${message.room} ${typeof message.sequence}`);
    });
  });
  room.send({ text: "hi" });
  found.push(await received);
  room.close();

  const one = echo(options);
  const said = await one.request({ type: "say", text: "a question" }, { timeout: 10_000 });
  found.push(`${said.text} ${said.count.toFixed()}`);
  one.close();

  const model = ask({ ...options, token: () => undefined });
  for await (const token of model.stream({ prompt: "count" })) found.push(token.text);
  for await (const token of model.stream({ prompt: "for ever" })) {
    found.push(token.text);
    break;
  }
  try {
    // @ts-expect-error no such message
    for await (const token of model.stream({ prompt: 1 })) found.push(token.text);
  } catch (error) {
    if (error instanceof MessageRejected) found.push(error.code);
  }
  model.close();

  const drawing = point(options);
  // @ts-expect-error an array has no `ref`
  if (found.length === 0) await drawing.request(["point", 1, 2]);
  drawing.on("error", (error) => found.push(error.code));
  drawing.send(["point", 1, 2]);
  drawing.close();
  return found;
}
"""
"""An application that uses the client."""

NAMED = """\
from msgspec import Struct, field

from ..realtime import listener


class {message}(Struct, tag="{name}"):
    area: float = field(name="m²")


@listener("/{name}")
async def {name}(data: {message}) -> {message}: ...
"""
"""A listener whose names are none in TypeScript, or the same as those of its own types."""

POINT = """\
from msgspec import Struct

from ..realtime import listener


class Point(Struct, tag="point", array_like=True):
    x: int
    y: int


@listener("/point")
async def point(data: Point) -> Point: ...
"""
"""A listener whose messages are arrays."""

MISTAKES = [
    ('room: "the lobby?", ', ""),
    ("after: 0", 'after: "0"'),
    ('on("said"', 'on("says"'),
    ("message.room", "message.count"),
    ("message.sequence", "message.number"),
    ('send({ text: "hi" })', "send({ text: 1 })"),
    ('send({ text: "hi" })', 'send({ type: "ask", text: "hi" })'),
    ("one.request(", "room.request("),
    ("one.request({", "one.stream({"),
    ("said.count", "said.room"),
    ('prompt: "count"', 'question: "count"'),
    ("token.text);\n    break", "token.texts);\n    break"),
]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("typescript"), "typescript", "prettier") / ".bin"


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service with many kinds of listeners."""
    project = render(template, tmp_path_factory.mktemp("typed") / "my-service")
    add_listener(project, "ask", ASK)
    for name, kind in {"chat": [], "price_feed": ["--class"]}.items():  # their messages have the same names
        check(project, "python", "-m", "my_service.realtime", "new-listener", name, *kind)
    for name, message in {"eval": "Evaluated", "_1": "First", "area": "AreaSocket"}.items():
        add_listener(project, name, NAMED.format(name=name, message=message))
    add_listener(project, "point", POINT)
    add_listener(project, "exotic", EXOTIC)
    package = project / "src/my_service"
    app = (package / "app.py").read_text()
    app = app.replace("import exotic\n", "import Files, exotic\n").replace("exotic,\n", "exotic,\n            Files,\n")
    (package / "app.py").write_text(app)
    return project


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """An application in TypeScript with the client of that service."""
    folder = tmp_path / "application"
    folder.mkdir()
    for file in (project / "src/my_service/realtime/client").glob("client.*"):
        shutil.copy(file, folder)
    (folder / "api.ts").write_text(written(project))
    (folder / "user.ts").write_text(USER)
    return folder


def written(project: Path) -> str:
    result = run(project, "python", "-m", "my_service.realtime", "client", "--typescript")
    assert result.returncode == 0, result.stderr
    return result.stdout


def complaints(tools: Path, folder: Path, **options: object) -> str:
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": STRICTEST | options, "include": ["*.ts"]}))
    command = [str(tools / "tsc"), "--project", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


def test_it_is_typed_laid_out_and_the_same_each_time(tools: Path, folder: Path, project: Path) -> None:
    assert complaints(tools, folder) == ""
    command = [str(tools / "prettier"), "--check", str(folder / "api.ts")]
    laid_out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert laid_out.returncode == 0, laid_out.stdout + laid_out.stderr
    assert written(project) == (folder / "api.ts").read_text()


def test_each_mistake_is_found(tools: Path, folder: Path) -> None:
    for number, (right, wrong) in enumerate(MISTAKES):
        assert USER.count(right), right
        (folder / f"mistake{number}.ts").write_text(USER.replace(right, wrong))
    found = complaints(tools, folder, noEmit=True)
    assert {number for number in range(len(MISTAKES)) if f"mistake{number}.ts" not in found} == set()
    assert "user.ts" not in found


def test_it_talks_to_the_service(tools: Path, folder: Path, project: Path, context: BrowserContext) -> None:
    assert complaints(tools, folder) == ""
    shutil.copy(folder / "client.js", folder / "built")
    with running(project) as service:
        base = f"http://{service.address}"
        page = context.new_page()
        page.route(
            "**/app/*", lambda route: route.fulfill(path=folder / "built" / route.request.url.rpartition("/")[2])
        )
        page.goto(f"{base}/page/style.css")  # a document of the same origin
        page.evaluate(
            "(base) => void import('/app/user.js').then(async ({ use }) => (window.found = await use(base)))", base
        )
        found = page.wait_for_function("() => window.found", timeout=MILLISECONDS).json_value()
    assert found == ["hi in the lobby? number", "a question 1", " 1", " 2", " 3", " 4", " 5", " 1", "invalid_message"]
