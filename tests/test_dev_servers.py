"""The service beside the dev servers of Vite, Next and webpack, with the configuration that the reference shows."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from threading import Thread

import pytest
from playwright.sync_api import BrowserContext, Page

from .cases import params
from .npm import install, require_node
from .rendering import Renders
from .service import TIMEOUT, Service, running

SCRIPT = """
import { ReconnectingWebSocket } from "./client.js";

const socket = new ReconnectingWebSocket("/ws/echo", { base: "" }).open();
socket.request({ type: "say", text: "one" }).then(({ text }) => (document.body.dataset.said = text));
"""
COMPONENT = """
"use client";
import { useEffect } from "react";
import { ReconnectingWebSocket } from "./client.js";

export default function Page() {
  useEffect(() => {
    const socket = new ReconnectingWebSocket("/ws/echo", { base: "" }).open();
    socket.request({ type: "say", text: "one" }).then(({ text }) => (document.body.dataset.said = text), () => {});
    return () => socket.close();
  }, []);
  return null;
}
"""
LAYOUT = """
export default function Layout({ children }) {
  return <html><body>{children}</body></html>;
}
"""
ADMITS = "pages of localhost may connect from any port"
COMPILED = 90_000
"""Milliseconds in which a dev server has compiled a page."""
HEARD = """
const heard = (window.heard = new Set());
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", () => heard.add(new URL(this.url).pathname));
  }
};
"""
"""In a page before its own scripts: note the path of every WebSocket on which a message has come."""
DOCUMENT = '<!doctype html><html><body><script type="module" src="/main.js"></script></body></html>'


@dataclass
class Tool:
    """A dev server, and a page that says something and shows the answer."""

    packages: list[str]
    command: list[str]
    configuration: str
    page: str
    """The file in which the page connects; the client is put beside it."""
    files: dict[str, str] = field(default_factory=dict[str, str])


TOOLS = {
    "vite": Tool(
        ["vite"],
        ["vite", "--strictPort", "--port"],
        "vite.config.js",
        "main.js",
        {"main.js": SCRIPT, "index.html": DOCUMENT},
    ),
    "next": Tool(
        ["next", "react", "react-dom"],
        ["next", "dev", "--port"],
        "next.config.mjs",
        "app/page.jsx",
        {"app/page.jsx": COMPONENT, "app/layout.jsx": LAYOUT},
    ),
    "webpack": Tool(
        ["webpack", "webpack-cli", "webpack-dev-server"],
        ["webpack", "serve", "--mode", "development", "--port"],
        "webpack.config.js",
        "src/index.js",
        {"src/index.js": SCRIPT, "public/index.html": DOCUMENT},
    ),
}


@pytest.fixture(scope="module", params=params(TOOLS.keys(), {"vite"}))
def tool(request: pytest.FixtureRequest) -> Tool:
    return TOOLS[str(request.param)]


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page is, with its tools."""
    folder = tmp_path_factory.mktemp("page")
    require_node()
    install(folder, *tool.packages)
    return folder


@pytest.fixture(scope="module")
def project(renders: Renders) -> Path:
    return renders.of()


def recipe(project: Path, file: str) -> str:
    """What the reference says to write into a file."""
    reference = (project / "src/my_service/realtime/README.md").read_text()
    [found] = re.findall(rf"^```js\n// {file}\n(.*?)^```", reference, re.DOTALL | re.MULTILINE)
    return str(found)


def write(tool: Tool, folder: Path, project: Path, configuration: str) -> Path:
    """Write the page; return the file in which it connects."""
    for name, text in (tool.files | {tool.configuration: configuration}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    page = folder / tool.page
    shutil.copy(project / "src/my_service/realtime/client/client.js", page.parent)
    return page


@contextmanager
def serving(tool: Tool, folder: Path) -> Generator[str]:
    """Run the dev server until it has said its address, and end it with all that it has started."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [f"node_modules/.bin/{tool.command[0]}", *tool.command[1:], str(port)],
        cwd=folder,
        env=os.environ | {"NEXT_TELEMETRY_DISABLED": "1", "NO_COLOR": "1", "CI": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    reader = Thread(target=process.stdout.read)
    try:
        said = next((line for line in process.stdout if f"localhost:{port}" in line), None)  # pytest-timeout bounds it
        assert said, "it has ended"
        reader.start()
        yield f"http://localhost:{port}/"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=TIMEOUT)
        if reader.is_alive():
            reader.join(timeout=TIMEOUT)
        process.stdout.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    context.set_default_timeout(COMPILED)
    return context.new_page()


def test_the_recipe_forwards_the_service_and_leaves_the_dev_server_its_own_socket(
    tool: Tool, folder: Path, project: Path, page: Page
) -> None:
    page.add_init_script(HEARD)
    with running(project) as service:
        configuration = recipe(project, tool.configuration)
        write(tool, folder, project, configuration.replace("127.0.0.1:8000", service.address))
        with serving(tool, folder) as url:
            page.goto(url)
            page.wait_for_function("() => document.body.dataset.said === 'one' && window.heard.size === 2")
        assert not service.happened("handshake rejected")


def test_a_page_connects_to_the_service_itself_with_reload_or_where_it_is_named(
    tool: Tool, folder: Path, project: Path, page: Page
) -> None:
    file = write(tool, folder, project, "")
    file.write_text(tool.files[tool.page].replace('base: ""', "base: location.hash.slice(1)"))

    def visit(service: Service) -> None:
        page.goto("about:blank")  # another fragment of the same page would not load it again
        page.goto(f"{url}#http://{service.address}")

    with serving(tool, folder) as url:
        origin = url.rstrip("/")
        with running(project) as service:
            visit(service)
            refused = service.wait_for("handshake rejected")
            assert refused["reason"] == "origin"
            assert refused["fix"].startswith(f"set MY_SERVICE_ALLOWED_ORIGINS={origin} ")
            assert not service.happened(ADMITS)
        for options, settings in ((["--reload"], {}), ([], {"allowed_origins": origin})):
            with running(project, *options, **settings) as service:
                assert len(service.happened(ADMITS)) == len(options)
                visit(service)
                page.wait_for_function("() => document.body.dataset.said === 'one'")
