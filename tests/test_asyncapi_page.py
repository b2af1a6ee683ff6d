"""The page at /asyncapi: readable in the light and in the dark, and complete behind a prefix of the path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from .browser import MILLISECONDS
from .service import Service, running

expect.set_options(timeout=MILLISECONDS)

EXPAND = """() => {
  const buttons = [...document.querySelectorAll(".aui-root button")];
  for (const button of buttons) if (button.textContent === "Expand all") button.click();
  for (const button of document.querySelectorAll(".examples button")) button.click();
}"""


@pytest.fixture(scope="module")
def service(default_project: Path) -> Iterator[Service]:
    with running(default_project) as service:
        yield service


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(244, 245, 249)"), ("dark", "rgb(12, 15, 21)")])
def test_it_can_be_read_in_each_mode(browser: Browser, service: Service, axe: str, scheme: Any, ground: str) -> None:
    with browser.new_context(color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://{service.address}/asyncapi")
        expect(page.get_by_text("A client says something.").first).to_be_visible()
        expect(page.get_by_text("My Service 0.1.0")).to_be_visible()
        page.evaluate(EXPAND)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        page.evaluate(axe)
        found = page.evaluate("async () => await axe.run(document, { runOnly: ['color-contrast'] })")
        assert [
            (node["html"][:200], node["any"][0]["data"]) for each in found["violations"] for node in each["nodes"]
        ] == []
        assert found["passes"]


def test_it_is_complete_behind_a_prefix(browser: Browser, default_project: Path) -> None:
    """A proxy strips /chat from the path of each request; here the browser does."""
    with running(default_project, root_path="/chat") as service, browser.new_context() as context:
        complaints: list[str] = []
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        asked: list[str] = []

        def strip(route: Any) -> None:
            asked.append(urlsplit(route.request.url).path)
            route.continue_(url=route.request.url.replace(f"{service.address}/chat/", f"{service.address}/"))

        page.route("**/*", strip)
        page.goto(f"http://{service.address}/chat/asyncapi")
        expect(page.get_by_text("A client says something.").first).to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).display") == "flex"
        assert {path.split("/")[1] for path in asked} == {"chat"}
        assert complaints == []
