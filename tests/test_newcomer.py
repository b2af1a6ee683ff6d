"""A page of your own, from nothing: the commands of the example, read from its README, run, and used in Chromium."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from socket import create_server
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect
from uv import find_uv_bin

from .browser import MILLISECONDS
from .history import commit, git
from .npm import require_node
from .rendering import ROOT, copy_of_the_template
from .test_readme import TIMEOUT, fresh_environment, group, wait_until_it_serves

EXAMPLE = "examples/react"
MAKE, SERVE, SHOW = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / EXAMPLE / "README.md").read_text(), re.DOTALL | re.MULTILINE
)
PORTS = {"8000", "9000", "5173"}
"""Of the service, the provider and the page: in a test each is one that is free."""

expect.set_options(timeout=MILLISECONDS)


def free_ports(number: int) -> list[str]:
    servers = [create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [str(server.getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
    return found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(MILLISECONDS)
        yield context.new_page()


@pytest.mark.exhaustive
@pytest.mark.timeout(600)  # much is fetched and built
def test_ten_commands_make_a_page_that_signs_in_streams_and_is_in_a_room(tmp_path: Path, page: Page) -> None:
    require_node()
    assert sum(len(block.splitlines()) for block in (MAKE, SERVE, SHOW)) == 10
    ports = dict(zip(sorted(PORTS), free_ports(len(PORTS)), strict=True))

    def moved(text: str) -> str:
        return re.sub("|".join(PORTS), lambda port: ports[port[0]], text)

    template = copy_of_the_template(tmp_path / "repository")
    for file in (template / EXAMPLE).iterdir():
        if file.is_file():
            file.write_text(moved(file.read_text()))
    git(template, "init", "--quiet")
    commit(template)
    (tmp_path / "programs").mkdir()
    for name in ("uv", "uvx"):
        (tmp_path / "programs" / name).symlink_to(Path(find_uv_bin()).with_name(name))
    environment = fresh_environment(CHAT_PORT=ports["8000"])
    environment["PATH"] = f"{tmp_path / 'programs'}:{environment['PATH']}"
    work = tmp_path / "work"
    work.mkdir()

    def run(commands: str, cwd: Path) -> None:
        result = subprocess.run(
            ["bash", "-ec", moved(commands)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr

    run(MAKE.replace("TEMPLATE", str(template)), work)
    project = work / "chat"
    run("npm run build --prefix web", project)
    with group(SERVE, project, environment) as service:
        wait_until_it_serves(f"http://127.0.0.1:{ports['8000']}/ready", service)
        for command in (SHOW, "npm run preview --prefix web"):
            with group(command, project, environment) as vite:
                wait_until_it_serves(f"http://localhost:{ports['5173']}/", vite)
                sign_in(page, f"http://localhost:{ports['5173']}/")
                talk(page)


def sign_in(page: Page, url: str) -> None:
    page.context.clear_cookies()
    page.goto(url)
    page.evaluate("sessionStorage.clear()")
    page.goto(url)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_placeholder("Enter any login").fill("ada")
    page.get_by_placeholder("and password").fill("whatever")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Hello ada")).to_be_visible()


def talk(page: Page) -> None:
    room, question = page.get_by_label("Room lobby"), page.get_by_label("Question")
    expect(room.get_by_text("open")).to_be_visible()
    text = f"hello {uuid4().hex}"
    room.get_by_label("Say").first.fill(text)
    room.get_by_role("button", name="Say").click()
    expect(room.get_by_role("listitem").filter(has_text=text)).to_have_count(1)
    question.get_by_label("Ask").first.fill("one two three")
    question.get_by_role("button", name="Ask").click()
    expect(question.get_by_role("paragraph")).to_have_text("one two three")
    question.get_by_label("Ask").first.fill("word " * 400)
    question.get_by_role("button", name="Ask").click()
    expect(question.get_by_role("paragraph")).to_contain_text("word word word")
    question.get_by_role("button", name="Stop").click()
    expect(question.get_by_role("paragraph")).to_contain_text("word (stopped)")
