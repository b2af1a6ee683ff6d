"""The tokens of `client.js`: asked for before each connection, and a new one after the old one has expired."""

from collections.abc import Iterator
from pathlib import Path
from time import sleep, time

import pytest
from playwright.sync_api import Browser, Page

from .browser import Network
from .client import becomes, begin, first_close, open_socket, say, statuses, wait_for_text
from .rendering import check, render
from .service import Service, running


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that asks for a token."""
    project = render(template, tmp_path_factory.mktemp("client") / "my-service", auth="jwt")
    (project / ".env").write_text(f"MY_SERVICE_AUTH_SECRET={'only-for-this-test-' * 4}\n")
    return project


@pytest.fixture(scope="module")
def service(project: Path) -> Iterator[Service]:
    with running(project) as service:
        yield service


def token(project: Path, seconds: int = 60) -> str:
    return check(project, "python", "-m", "my_service.realtime", "token", "ada", "--seconds", str(seconds)).strip()


def test_each_connection_asks_for_its_token(page: Page, way: Network, project: Path) -> None:
    open_socket(page, tokens=[token(project)])
    way.cut()
    page.wait_for_function("() => asked === 2 && socket.state.status === 'open'", polling=10)


def test_a_token_that_is_missing_or_rejected_is_asked_for_again(page: Page, project: Path) -> None:
    open_socket(page, tokens=[None, "a.bad.token", token(project)])
    assert first_close(page) == {"code": 1006, "reason": "no token: Error: nobody is logged in"}
    assert page.evaluate("asked") == 3


def test_a_token_that_no_handshake_can_carry_is_asked_for_again(page: Page, project: Path) -> None:
    open_socket(page, tokens=["not a token", token(project)])
    reason = "the token has characters that no subprotocol may have"
    assert first_close(page) == {"code": 1006, "reason": reason}


def test_it_renews_its_token_on_the_open_connection(page: Page, project: Path) -> None:
    lasting, first = token(project), token(project, seconds=8)
    end_of_first = time() + 8
    page.clock.install()
    open_socket(page, tokens=[first, lasting])
    page.clock.fast_forward(7_500)  # it is renewed now, so that a busy machine has time for it
    page.wait_for_function("() => asked === 2", polling=10)
    sleep(max(0, end_of_first - time()))
    assert say(page, "still here") == "sent"
    wait_for_text(page, "still here")
    assert statuses(page) == ["connecting", "open"]


def test_it_reconnects_with_another_token_when_the_old_one_expires(page: Page, project: Path) -> None:
    lasting, first = token(project), token(project, seconds=8)
    open_socket(page, tokens=[first, "a.bad.token", "a.bad.token", lasting])
    assert first_close(page) == {"code": 1008, "reason": "the token has expired"}
    becomes(page, "open")
    assert page.evaluate("asked") == 4


def test_it_stays_closed_where_there_is_no_other_token(page: Page, project: Path) -> None:
    open_socket(page, tokens=[token(project)])
    page.evaluate("for (let i = 0; i < 6; i++) socket.sendText('rubbish')")
    assert becomes(page, "closed")["lastClose"]["code"] == 1008
    assert page.evaluate("asked") == 2
    page.evaluate("socket.open()")
    becomes(page, "open")


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_page_of_another_origin_is_told_why_it_is_refused_where_it_may_connect(
    browser: Browser, service: Service, project: Path, is_allowed: bool
) -> None:
    origin = f"http://{service.address}" if is_allowed else "https://app.example"
    detail = "the token is not valid" if is_allowed else ""
    with running(project, allowed_origins=origin) as other, browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://{service.address}/page/style.css")
        begin(page, f"http://{other.address}/ws/echo", tokens=["a.bad.token"], baseDelay=60_000)
        assert becomes(page, "closed" if is_allowed else "waiting")["lastClose"] == {"code": 1006, "reason": detail}
        rejected = other.wait_for("handshake rejected", times=2 if is_allowed else 1)
        assert rejected["reason"] == ("token" if is_allowed else "origin")
