"""Cross-site WebSocket hijacking, tried from a real browser: a page of another port of the same host, while the browser
holds a SameSite=Strict cookie of the service. SameSite knows no ports, so the cookie travels; only the origin check is
in the way (RFC 6455, section 10.2).
"""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import BrowserContext, Page

from .browser import open_page
from .rendering import check, render
from .service import Service, running

CONNECT = """([url, protocols]) => new Promise((resolve) => {
  const socket = new WebSocket(url, protocols);
  socket.onclose = ({ code }) => resolve(`closed with ${code}`);
  socket.onopen = () => socket.send(JSON.stringify({ type: "say", text: "hi" }));
  socket.onmessage = ({ data }) => resolve(`received ${JSON.parse(data).text}`);
})"""

LOST = "closed with 1006"
"""All that a page learns of a handshake that was rejected."""


class BlankPage(BaseHTTPRequestHandler):
    """A page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another page</title>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = render(template, tmp_path_factory.mktemp("attacked") / "my-service", auth="jwt")
    (project / ".env").write_text(f"MY_SERVICE_AUTH_SECRET={'only-for-this-test-' * 4}\n")
    return project


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """The origin of a page on another port of the same host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BlankPage) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def token(project: Path) -> str:
    return check(project, "python", "-m", "my_service.realtime", "token", "ada").splitlines()[-1]


def page_with_the_cookie(context: BrowserContext, origin: str, service: Service, cookie: str) -> Page:
    """Open a page in a browser that was given the cookie by the service."""
    url = f"http://{service.address}"
    context.add_cookies([{"url": url, "name": "token", "value": cookie, "httpOnly": True, "sameSite": "Strict"}])
    page = context.new_page()
    page.goto(origin)
    return page


def connect(page: Page, service: Service, *protocols: str) -> str:
    result: str = page.evaluate(CONNECT, [service.url("/ws/echo"), list(protocols)])
    return result


def test_a_page_of_another_port_cannot_use_the_cookie(context: BrowserContext, project: Path, foreign: str) -> None:
    with running(project) as service:
        page = page_with_the_cookie(context, foreign, service, token(project))
        assert connect(page, service) == LOST
        rejected = service.wait_for("handshake rejected")
        assert (rejected["reason"], rejected["detail"]) == ("origin", "this origin may not connect")


def test_the_own_page_can(context: BrowserContext, project: Path) -> None:
    with running(project) as service:
        page = page_with_the_cookie(context, f"http://{service.address}/", service, token(project))
        assert connect(page, service) == "received hi"
        assert service.wait_for("connection accepted")["user"] == "ada"


def test_the_cookie_does_travel_so_only_the_origin_check_is_in_the_way(
    context: BrowserContext, project: Path, foreign: str
) -> None:
    with running(project, allowed_origins=foreign) as service:
        page = page_with_the_cookie(context, foreign, service, token(project))
        assert connect(page, service) == "received hi"
        assert service.wait_for("connection accepted")["user"] == "ada"


def test_a_page_shows_a_token_as_a_subprotocol(context: BrowserContext, project: Path) -> None:
    with running(project) as service:
        page = context.new_page()
        page.goto(f"http://{service.address}/")
        assert connect(page, service) == LOST
        assert connect(page, service, "bearer", "x.y.z") == LOST
        assert connect(page, service, "bearer", token(project)) == "received hi"


def test_the_live_page_takes_a_token_and_connects(context: BrowserContext, project: Path) -> None:
    with running(project) as service:
        page = context.new_page()
        page.goto(f"http://{service.address}/")
        page.get_by_label("Token").fill(token(project))
        page.get_by_role("button", name="Connect").click()
        page.locator("article[data-status=open]").nth(2).wait_for()
        assert {service.wait_for("connection accepted")["user"] for _ in range(3)} == {"ada"}


def test_the_live_page_asks_for_no_token_where_none_is_wanted(context: BrowserContext, default_project: Path) -> None:
    with running(default_project) as service:
        page = open_page(context.new_page(), service.address)
        assert not page.get_by_label("Token").is_visible()
