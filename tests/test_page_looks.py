"""How the live page looks: accessible, by axe-core, in each mode and at each size; and its pictures in the README.

The pictures are taken in each run, and kept only where the environment says so:

    SCREENSHOTS=docs uv run pytest tests/test_page_looks.py -k picture
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import MILLISECONDS, open_page
from .rendering import ROOT
from .service import Service, running

DESKTOP, PHONE = (1280, 984), (390, 844)
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

EVERY_COLOUR = """async () => {
  const { hue, kept } = await import("/page/timeline.js");
  kept.clear();
  const used = new Set();
  for (let i = 0; i < 7; i++) {
    const line = document.createElement("p");
    line.className = "said";
    line.style.setProperty("--hue", hue(`connection ${i}`));
    used.add(hue(`connection ${i}`));
    line.append(Object.assign(document.createElement("b"), { textContent: "somebody" }), " says this");
    document.querySelector(".log").append(line);
  }
  if (used.size !== 7) throw new Error(`seven connections have ${used.size} colours`);
}"""
"""A connection gets one of seven colours, and which of them is chance."""

NEAREST_HUE = """() => {
  const hueOf = (color) => {
    const probe = document.createElement("p");
    document.body.append(probe);
    probe.style.color = `oklch(from ${color} l c h)`;
    const hue = Number(getComputedStyle(probe).color.match(/oklch\\(\\S+ \\S+ ([\\d.]+)/)[1]);
    probe.remove();
    return hue;
  };
  const apart = (one, other) => Math.min(Math.abs(one - other), 360 - Math.abs(one - other));
  const own = [...document.querySelectorAll(".log b")].map((each) => hueOf(getComputedStyle(each).color));
  return Math.min(...own.flatMap((hue) => [apart(hue, hueOf("var(--bad)")), apart(hue, hueOf("var(--good)"))]));
}"""
"""The least distance of hues, in degrees, between a connection and the colours of the states."""

THREE_CLOSES = """async () => {
  const { Lane } = await import("/page/timeline.js");
  const lane = new Lane(document.getElementById("lanes"), "test");
  for (const code of [1006, 1012, 1006]) {
    lane.begin();
    lane.end(code, false);
  }
}"""


@pytest.fixture(scope="module")
def service(default_project: Path) -> Iterator[Service]:
    with running(default_project, max_messages_per_second=20) as service:
        yield service


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_in(browser: Browser, service: Service, scheme: Any, size: tuple[int, int]) -> Page:
    """Open the page without anything that moves, so that it looks the same each time."""
    width, height = size
    context = browser.new_context(
        color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": height}
    )
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    page.clock.install()
    return open_page(page, service.address)


def use(page: Page, seconds: int) -> None:
    """Bring the page into each of its states, in the seconds of its own clock, which runs faster than ours."""

    def pass_time(seconds: int) -> None:
        for _ in range(seconds * 2):
            page.clock.run_for(500)

    one, other = (page.get_by_role("article", name=name) for name in ("Echo #1", "Echo #2"))
    page.get_by_role("button", name="Join").click()
    page.get_by_role("button", name="Send random messages").click()
    pass_time(seconds)
    other.get_by_role("button", name="Invalid").click()
    expect(other.get_by_text("invalid_message")).to_be_visible()
    other.get_by_role("button", name="Drop").click()
    expect(other.get_by_text("reconnected")).to_be_visible()
    pass_time(seconds)
    one.get_by_role("button", name="Flood").click()
    expect(one.locator(".badge")).to_have_text("closed")
    pass_time(seconds // 2)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: Browser, service: Service, axe: str, scheme: str, size: tuple[int, int]) -> None:
    page = open_in(browser, service, scheme, size)
    page.get_by_text("What the buttons do").click()
    use(page, seconds=2)
    page.evaluate(EVERY_COLOUR)
    page.evaluate(axe)
    options = {"runOnly": STANDARDS}
    found = page.evaluate("async (options) => await axe.run(document, options)", options)
    problems = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
    assert problems == []
    assert len(found["passes"]) > 20
    page.context.close()


def test_a_phone_shows_it_at_a_size_for_fingers(browser: Browser, service: Service) -> None:
    page = open_in(browser, service, "light", PHONE)
    assert page.evaluate("document.documentElement.scrollHeight") < 2 * PHONE[1]
    small = page.locator("button:visible, input:visible").evaluate_all(
        "all => all.filter(each => each.offsetHeight < 44 || parseFloat(getComputedStyle(each).fontSize) < 16)"
        ".map(each => each.outerHTML)"
    )
    assert small == []
    page.context.close()


def test_no_colour_of_a_connection_is_that_of_an_error_or_of_what_is_open(
    browser: Browser, service: Service, scheme: str
) -> None:
    page = open_in(browser, service, scheme, DESKTOP)
    page.evaluate(EVERY_COLOUR)
    assert page.evaluate(NEAREST_HUE) > 35
    page.context.close()


def test_close_codes_near_each_other_do_not_overlap(browser: Browser, service: Service) -> None:
    page = open_in(browser, service, "light", DESKTOP)
    page.evaluate(THREE_CLOSES)
    boxes = [each.bounding_box() for each in page.locator("[data-name=test] text").all()]
    assert len(boxes) == 2  # there is no place for the third
    upper, lower = boxes
    assert upper
    assert lower
    assert upper["y"] + upper["height"] <= lower["y"]
    page.context.close()


def test_the_lanes_fill_the_timeline(browser: Browser, service: Service) -> None:
    page = open_in(browser, service, "light", DESKTOP)
    free = "document.querySelector('.timeline').offsetHeight - document.querySelector('#lanes').offsetHeight"
    assert page.evaluate(free) < 120  # its caption and its text
    page.context.close()


def test_forced_colours_keep_the_marks(browser: Browser, service: Service) -> None:
    page = open_in(browser, service, "light", DESKTOP)
    page.emulate_media(forced_colors="active")
    for mark in ("#service", ".key.opened", ".log .said"):
        painted = page.locator(mark).first.evaluate("each => getComputedStyle(each, '::before').forcedColorAdjust")
        assert painted == "none", mark
    page.context.close()


def test_a_picture(browser: Browser, service: Service, scheme: str, tmp_path: Path) -> None:
    folder = ROOT / os.environ["SCREENSHOTS"] if "SCREENSHOTS" in os.environ else tmp_path
    page = open_in(browser, service, scheme, DESKTOP)
    use(page, seconds=16)
    page.evaluate("scrollTo(0, 0)")
    file = folder / f"page-{scheme}.png"
    page.screenshot(path=file)
    assert 10_000 < file.stat().st_size < 400_000
    page.context.close()
