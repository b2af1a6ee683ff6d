"""The live page, as its user sees it: a real browser, the real service, and what becomes of both."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, expect

from .browser import MILLISECONDS, Network, open_page
from .service import Service, running

expect.set_options(timeout=MILLISECONDS)


@pytest.fixture(scope="module")
def service(default_project: Path) -> Iterator[Service]:
    with running(default_project, max_messages_per_second=20) as service:
        yield service


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Page:
    return open_page(context.new_page(), service.address)


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name)


def say(where: Locator, text: str) -> None:
    where.get_by_placeholder("Say something").fill(text)
    where.get_by_role("button", name="Say", exact=True).click()


def number(where: Locator) -> Locator:
    """Return its count, or how many messages it received."""
    return where.locator(".count dd")


def identity(where: Locator) -> str:
    """Wait until it knows the id of its connection."""
    known = where.get_by_text(re.compile(r"^[0-9a-f]{32}$"))
    return known.text_content() or ""


def test_each_connection_has_an_id_and_a_count_of_its_own(page: Page) -> None:
    one, other = card(page, "Echo #1"), card(page, "Echo #2")
    expect(number(one)).to_have_text("1")  # its greeting
    for text in ("one", "two"):
        say(one, text)
    expect(one.get_by_role("log")).to_contain_text("two")
    expect(number(one)).to_have_text("3")
    expect(number(other)).to_have_text("1")
    expect(other.get_by_role("log")).not_to_contain_text("two")
    assert identity(one) != identity(other)


def test_a_room_in_two_windows(page: Page, context: BrowserContext) -> None:
    page.get_by_label("Room", exact=True).fill("two windows")
    page.get_by_role("button", name="Join").click()
    mine = card(page, "Room two windows #4")
    my_id = identity(mine)
    with context.expect_page() as opened:
        page.get_by_role("link", name="Second window").click()
    theirs = card(opened.value, "Room two windows #1")
    their_id = identity(theirs)
    say(mine, "are you there?")
    expect(theirs.get_by_role("log")).to_contain_text(f"{my_id[:6]} are you there?")
    say(theirs, "very well")
    expect(mine.get_by_role("log")).to_contain_text(f"{their_id[:6]} very well")
    expect(mine.get_by_role("log")).to_contain_text("you are you there?")
    opened.value.close()
    expect(mine.get_by_role("log")).to_contain_text(f"{their_id[:6]} left")


def test_the_page_and_its_room_come_back_after_a_reload(page: Page) -> None:
    say(card(page, "Room lobby #3"), "before the reload")
    expect(card(page, "Room lobby #3").get_by_role("log")).to_contain_text("you before the reload")
    page.reload()
    expect(card(page, "Room lobby #3").get_by_role("log")).to_contain_text("before the reload")


def test_it_reconnects_when_the_service_restarts(context: BrowserContext, default_project: Path, way: Network) -> None:
    with (
        running(default_project, drain_seconds=0) as service,
        running(default_project) as next_service,  # is there at once: the client waits longer with each failure
    ):
        way.target = service.address
        page = open_page(context.new_page(), way.address)
        say(card(page, "Echo #1"), "before")
        expect(number(card(page, "Echo #1"))).to_have_text("2")
        before = identity(card(page, "Echo #1"))
        assert service.ended(signal.SIGTERM) == 0
        expect(page.get_by_text("Service unavailable")).to_be_visible()
        log = card(page, "Echo #1").get_by_role("log")
        expect(log).to_contain_text("1012 the service restarts (service restarts): reconnects")
        way.target = next_service.address
        expect(page.get_by_text("Service ready")).to_be_visible()
        expect(log).to_contain_text("reconnected: a new connection with a new state")
        expect(number(card(page, "Echo #1"))).to_have_text("1")
        assert identity(card(page, "Echo #1")) != before
        expect(card(page, "Echo #1").locator(".close")).to_contain_text("Last close")


def test_it_says_that_the_service_refuses_it_and_where_to_look(context: BrowserContext, default_project: Path) -> None:
    with running(default_project, max_connections=1) as service:
        page = context.new_page()
        page.goto(f"http://{service.address}/")
        expect(page.locator("#service")).to_have_text("Service answers, but refuses this page")
        expect(page.locator("#refusal")).to_contain_text("503")
        expect(page.locator("#refusal")).to_contain_text("The log of the service names the cause and the fix.")


def test_it_says_that_no_websocket_gets_through(context: BrowserContext, service: Service) -> None:
    context.add_init_script("""
      const Real = WebSocket;
      WebSocket = class extends Real {
        constructor(url, ...more) { super(url.replace("/ws/", "/nowhere/"), ...more); }
      };
    """)
    page = context.new_page()
    page.goto(f"http://{service.address}/")
    expect(page.locator("#service")).to_have_text("Service answers, but refuses this page")
    expect(page.locator("#refusal")).to_contain_text("1006 before the WebSocket was open")


def test_its_title_is_the_name_of_the_project(page: Page) -> None:
    expect(page).to_have_title("My Service")
    expect(page.get_by_role("heading", level=1)).to_have_text("My Service")


def test_no_message_of_a_room_is_missed_after_a_drop(context: BrowserContext, service: Service, way: Network) -> None:
    mine = card(open_page(context.new_page(), way.address), "Room lobby #3")
    theirs = card(open_page(context.new_page(), service.address), "Room lobby #3")
    say(theirs, "said before")
    expect(mine.get_by_text("said before")).to_be_visible()
    way.target = "127.0.0.1:1"  # where nobody listens
    way.cut()
    expect(mine.locator(".badge")).to_contain_text("reconnects in")
    say(theirs, "said meanwhile")
    expect(theirs.get_by_text("said meanwhile")).to_be_visible()
    way.target = service.address
    expect(mine.get_by_text("said meanwhile")).to_be_visible()
    expect(mine.locator(".badge")).to_have_text("open")
    say(theirs, "said after")
    expect(mine.get_by_text("said after")).to_be_visible()
    for text in ("said before", "said meanwhile", "said after"):
        expect(mine.get_by_text(text)).to_have_count(1)


@pytest.mark.parametrize(
    ("button", "answer", "close", "status"),
    [
        ("Close", "1000 done: stays closed", "1000 done", "closed"),
        ("Drop", "1006 connection lost or rejected (abandoned): reconnects", "1006 connection lost", "open"),
        ("Invalid", "invalid_message: ", "none yet", "open"),
        ("Too big", "1009 message too big", "1009 message too big", "closed"),
        ("Flood", "(too many messages): stays closed", "1008 against the policy of the service", "closed"),
    ],
)
def test_what_breaks_it_is_answered_and_shown(page: Page, button: str, answer: str, close: str, status: str) -> None:
    broken = card(page, "Echo #1")
    broken.get_by_role("button", name=button, exact=True).click()
    expect(broken.get_by_role("log")).to_contain_text(answer)
    expect(broken.locator(".close dd")).to_contain_text(close)
    expect(broken.locator(".badge")).to_have_text(status)
    expect(card(page, "Echo #2").locator(".badge")).to_have_text("open")  # and nobody else is disturbed
    if status == "closed":
        broken.get_by_role("button", name="Connect").click()
        expect(broken.locator(".badge")).to_have_text("open")


def test_its_charts_show_the_metrics_of_the_service(context: BrowserContext, default_project: Path) -> None:
    with running(default_project) as service:
        page = open_page(context.new_page(), service.address)
        expect(page.locator("#open")).to_have_text("3")
        page.get_by_role("button", name="Remove Echo #1").click()
        expect(page.locator("#open")).to_have_text("2")
        expect(page.get_by_text("1 closed: client closed 1")).to_be_visible()
        card(page, "Echo #2").get_by_role("button", name="Invalid").click()
        expect(page.get_by_text("1 invalid")).to_be_visible()
        assert len((page.locator("#open-line").get_attribute("points") or "").split()) > 1


def test_it_sends_random_messages_when_told_to(page: Page) -> None:
    talk = page.get_by_role("button", name="Send random messages")
    talk.click()
    expect(talk).to_have_attribute("aria-pressed", "true")
    expect(number(card(page, "Echo #1"))).not_to_have_text("1")
    talk.click()
    expect(talk).to_have_attribute("aria-pressed", "false")


def test_the_timeline_shows_each_connection(page: Page) -> None:
    lane = page.locator(".lane").first
    expect(lane.locator("circle.opened")).to_have_count(1)
    card(page, "Echo #1").get_by_role("button", name="Drop").click()
    expect(lane.locator("text")).to_have_text("1006")
    expect(lane.locator("circle.opened")).to_have_count(2)
    connections = lane.locator("g.connection")
    first, second = (connections.nth(i).get_attribute("style") for i in (0, 1))
    assert first
    assert second
    assert first != second, "a new connection has a new colour"


def test_it_can_be_used_by_keyboard_alone(page: Page) -> None:
    page.get_by_role("button", name="Open echo").focus()
    page.keyboard.press("Enter")
    new = card(page, "Echo #4")
    expect(number(new)).to_have_text("1")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel") == "Message to Echo #4":
            break
    page.keyboard.type("from the keyboard")
    page.keyboard.press("Enter")
    expect(new.get_by_role("log")).to_contain_text("from the keyboard")
    for _ in range(2):  # Say, Close
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(new.locator(".badge")).to_have_text("closed")
    expect(new.get_by_role("button", name="Connect")).to_be_focused()
    page.keyboard.press("Tab")
    expect(new.get_by_role("button", name="Drop")).to_be_focused()  # of no effect now, and still in the way of nobody
    expect(new.get_by_role("button", name="Drop")).to_have_attribute("aria-disabled", "true")
    new.get_by_role("button", name="Remove Echo #4").press("Enter")
    expect(page.get_by_role("button", name="Open echo")).to_be_focused()


def test_a_screen_reader_reads_the_card_in_use_and_how_connections_end(page: Page) -> None:
    one = card(page, "Echo #1")
    log = one.get_by_role("log")
    expect(log).to_have_attribute("aria-live", "off")
    one.get_by_placeholder("Say something").focus()
    expect(log).to_have_attribute("aria-live", "polite")
    expect(card(page, "Echo #2").get_by_role("log")).to_have_attribute("aria-live", "off")
    one.get_by_role("button", name="Close").click()
    expect(page.locator("#news")).to_have_text("Echo #1: 1000 done: stays closed")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_runs_out_of_the_side(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_needs_nothing_but_the_service_and_logs_nothing(context: BrowserContext, service: Service) -> None:
    page = context.new_page()
    requests: list[Request] = []
    written: list[str] = []

    def note(message: ConsoleMessage) -> None:
        written.append(f"{message.type}: {message.text}")

    page.on("request", lambda request: requests.append(request))  # playwright cannot take the method itself
    page.on("console", note)
    page.on("pageerror", lambda error: written.append(str(error)))
    open_page(page, service.address)
    say(card(page, "Echo #1"), "hi")
    expect(number(card(page, "Echo #1"))).to_have_text("2")
    page.get_by_role("button", name="Flood").first.click()
    expect(card(page, "Echo #1").locator(".badge")).to_have_text("closed")
    assert written == []
    assert {urlsplit(request.url).netloc for request in requests} == {service.address}


def test_the_name_of_a_room_is_only_text(page: Page) -> None:
    name = '<img src=x onerror="alert(1)">&amp;'
    page.get_by_label("Room", exact=True).fill(name)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("heading", name=f"Room {name} #4")).to_be_visible()
    expect(card(page, f"Room {name} #4").locator(".badge")).to_have_text("open")
    say(card(page, "Echo #1"), name)
    expect(card(page, "Echo #1").get_by_role("log")).to_contain_text(name)


def test_closing_the_page_cleans_its_connections_up(context: BrowserContext, default_project: Path) -> None:
    with running(default_project) as service:
        open_page(context.new_page(), service.address).close()
        ended = service.wait_for("connection closed", times=3)
        assert (ended["reason"], ended["code"]) == ("client_closed", 1001)
