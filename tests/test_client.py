"""`client.js` in a real browser against the real service, over a network that fails.

In a browser and not in Node, because half of what it does is the browser's: visibility, being on line, subprotocols.
"""

import json
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page
from websockets.sync.client import connect

from .browser import ELSEWHERE, Network
from .client import (
    becomes,
    begin,
    ends,
    first_close,
    open_socket,
    say,
    statuses,
    texts,
    wait_for_messages,
    wait_for_text,
)
from .rendering import check
from .service import TIMEOUT, Service, running

HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def service(default_project: Path) -> Iterator[Service]:
    with running(default_project, allowed_hosts=f"{ELSEWHERE},127.0.0.1") as service:
        yield service


def test_it_reconnects_after_a_restart_as_a_new_connection(page: Page, way: Network, default_project: Path) -> None:
    with running(default_project, drain_seconds=0) as service:
        way.target = service.address
        open_socket(page)
        say(page, "one")
        say(page, "two")
        before = wait_for_messages(page, 2)[1]
        assert service.ended(signal.SIGTERM) == 0
    assert first_close(page) == {"code": 1012, "reason": "service restarts"}
    with running(default_project) as service:
        way.target = service.address
        becomes(page, "open")
        say(page, "three")
        after = wait_for_messages(page, 3)[2]
    assert (before["count"], after["count"]) == (2, 1)
    assert before["connection"] != after["connection"]


def test_a_fragment_is_of_the_page_and_not_of_a_connection(page: Page) -> None:
    open_socket(page, "/ws/echo?a=b#talk")


def test_it_reconnects_after_a_lost_connection(page: Page, way: Network) -> None:
    open_socket(page)
    way.cut()
    assert becomes(page, "open")["lastClose"]["code"] == 1006
    page.wait_for_function("() => states.length >= 5", polling=10)
    assert statuses(page) == ["connecting", "open", "waiting", "connecting", "open"]


def test_a_ping_finds_a_dead_connection(page: Page, way: Network) -> None:
    open_socket(page, pingInterval=50, timeout=500)
    page.wait_for_function("() => socket.latency > 0", polling=10)
    way.stall()
    ends(page, "no answer to a ping")
    way.flow()
    becomes(page, "open")
    say(page, "here again")
    assert [message["type"] for message in wait_for_messages(page, 1)] == ["said"]


def test_pings_keep_a_live_connection(page: Page) -> None:
    open_socket(page, pingInterval=10)
    page.evaluate("window.latencies = new Set()")
    page.wait_for_function("() => latencies.add(socket.latency).size > 5", polling=10)
    assert statuses(page) == ["connecting", "open"]
    assert page.evaluate("received") == []


def test_a_handshake_without_an_answer_is_abandoned(page: Page, way: Network) -> None:
    page.evaluate("import('/page/client.js')")
    way.stall()
    begin(page, timeout=100)
    ends(page, "no answer to the handshake")
    way.flow()
    becomes(page, "open")


def test_what_is_sent_meanwhile_is_queued_within_a_bound_and_sent_in_order(page: Page, way: Network) -> None:
    open_socket(page, maxQueue=2, baseDelay=60_000, maxDelay=60_000)
    way.cut()
    becomes(page, "waiting")
    assert [say(page, text) for text in ("one", "two", "three")] == ["queued", "queued", "refused"]
    page.evaluate("socket.open()")  # at once
    assert [message["text"] for message in wait_for_messages(page, 2)] == ["one", "two"]


def test_its_defaults_fit_those_of_the_service(page: Page, default_project: Path) -> None:
    page.evaluate("import('/page/client.js')")
    first = [{"type": "say", "text": str(number)} for number in range(150)]
    fates = begin(page, first=first, pingInterval=20_000)  # the heartbeat, as it is by default
    queued = fates.count("queued")
    assert fates == ["queued"] * queued + ["refused"] * (150 - queued)
    burst = check(
        default_project, "python", "-c", "from my_service.settings import Settings as S; print(S().message_burst)"
    )
    assert queued + 1 <= int(burst)  # and the ping
    assert len(wait_for_messages(page, queued)) == queued
    assert statuses(page) == ["connecting", "open"]


def test_it_backs_off_exponentially_with_full_jitter(page: Page, way: Network, service: Service) -> None:
    open_socket(page, baseDelay=10, maxDelay=50)
    page.evaluate("Math.random = () => 0.5; Date.now = () => 1e12")  # no time passes before a delay is read
    way.target = "127.0.0.1:1"  # where nobody listens
    way.cut()
    page.wait_for_function("() => delays.length >= 5", polling=10)
    assert page.evaluate("delays.slice(0, 5)") == [5, 10, 20, 25, 25]
    page.evaluate("Math.random = () => 0")
    way.target = service.address
    becomes(page, "open")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("socket.close()", 1000),
        ("socket.close(4000, 'enough')", 4000),
        ("socket.send({ type: 'say', text: 'x'.repeat(70_000) })", 1009),
        ("for (let i = 0; i < 6; i++) socket.sendText('rubbish')", 1008),
    ],
)
def test_it_stays_closed_after_a_final_close(page: Page, act: str, code: int) -> None:
    open_socket(page)
    page.evaluate(act)
    assert becomes(page, "closed")["lastClose"]["code"] == code
    assert say(page, "anybody?") == "refused"
    assert statuses(page) == ["connecting", "open", "closed"]
    page.evaluate("socket.open()")
    becomes(page, "open")


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (1000, "done", "closed"),
        (1000, "", "waiting"),  # a proxy ends an idle connection
        (1000, "idle timeout", "waiting"),
        (1001, "", "waiting"),  # a proxy restarts
        (1008, "", "closed"),
        (1014, "", "waiting"),  # a proxy does not reach the service
        (4001, "", "closed"),
    ],
)
def test_whether_it_reconnects_after_the_other_side_closed(page: Page, code: int, reason: str, status: str) -> None:
    page.route_web_socket("**/ws/echo", lambda route: route.close(code=code, reason=reason))
    begin(page, baseDelay=60_000, maxDelay=60_000)
    assert becomes(page, status)["lastClose"] == {"code": code, "reason": reason}


def test_it_waits_while_the_page_is_hidden(page: Page, way: Network) -> None:
    open_socket(page, baseDelay=1)
    page.evaluate(HIDE, True)
    way.cut()
    becomes(page, "paused")
    assert say(page, "for later") == "queued"
    page.evaluate(HIDE, False)
    assert wait_for_messages(page, 1)[0]["text"] == "for later"


def test_it_stays_connected_while_the_page_is_hidden_where_it_is_told_to(page: Page, way: Network) -> None:
    open_socket(page, baseDelay=1, pauseHidden=False, pingInterval=50)
    page.evaluate(HIDE, True)
    way.cut()
    first_close(page)
    becomes(page, "open")
    page.evaluate("window.latencies = new Set()")
    page.wait_for_function("() => latencies.add(socket.latency).size > 3", polling=10)
    assert "paused" not in statuses(page)


def test_a_page_that_is_shown_again_pings_at_once(page: Page, way: Network) -> None:
    open_socket(page, pingInterval=60_000, timeout=200)
    page.wait_for_function("() => socket.latency > 0", polling=10)
    page.evaluate(HIDE, True)
    way.stall()
    page.evaluate(HIDE, False)
    ends(page, "no answer to a ping")
    way.flow()
    becomes(page, "open")


def test_it_waits_while_there_is_no_network(context: BrowserContext, way: Network) -> None:
    page = context.new_page()
    page.goto(f"http://{ELSEWHERE}:{way.port}/page/style.css")
    open_socket(page, pingInterval=60_000, timeout=200, baseDelay=1)
    page.wait_for_function("() => socket.latency > 0", polling=10)
    way.stall()
    context.set_offline(True)
    becomes(page, "paused")
    way.flow()
    context.set_offline(False)
    becomes(page, "open")


def test_no_message_of_an_abandoned_connection_is_received(page: Page, way: Network) -> None:
    open_socket(page)
    way.stall()
    say(page, "lost")
    page.evaluate("socket.abandon()")
    way.flow()
    becomes(page, "open")
    say(page, "received")
    assert [message["text"] for message in wait_for_messages(page, 1)] == ["received"]


def test_opening_and_closing_at_once_leaves_one_connection_or_none(page: Page) -> None:
    page.evaluate("""() => {
        window.made = 0;
        window.WebSocket = class extends WebSocket {
          constructor(...given) {
            super(...given);
            made++;
          }
        };
    }""")
    open_socket(page)
    page.evaluate("socket.close(); socket.open(); socket.close(); socket.open(); socket.open()")
    becomes(page, "open")
    say(page, "one")
    assert len(wait_for_messages(page, 1)) == 1
    assert page.evaluate("made") == 2
    page.evaluate("socket.close(); socket.open(); socket.close()")
    assert page.evaluate("new Promise((resolve) => setTimeout(() => resolve(made)))") == 2
    assert statuses(page)[-1] == "closed"


@contextmanager
def somebody_else(service: Service, room: str) -> Generator[Callable[[str], None]]:
    """Be in a room without a browser: what is called says something, and waits until the room has received it."""
    with connect(service.url(f"/ws/rooms/{room}")) as other:

        def say(text: str) -> None:
            other.send(json.dumps({"type": "say", "text": text}))
            while json.loads(other.recv(timeout=TIMEOUT)).get("text") != text:
                pass

        yield say


def test_what_was_missed_is_received_later_in_order_and_once(page: Page, way: Network, service: Service) -> None:
    with somebody_else(service, "resumed") as say_there:
        open_socket(page, "/ws/rooms/resumed", after=0)
        say_there("one")
        wait_for_messages(page, 3)  # the other joined, this one joined, and that
        for before, after in (("two", "three"), ("four", "five")):
            way.target = "127.0.0.1:1"
            way.cut()
            becomes(page, "waiting")
            say_there(before)
            way.target = service.address
            becomes(page, "open")
            say_there(after)
        wait_for_text(page, "five")
    assert texts(page) == ["one", "two", "three", "four", "five"]
    sequences = [message["sequence"] for message in page.evaluate("received")]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert page.evaluate("socket.sequence") == sequences[-1]


def test_another_page_resumes_where_one_has_ended(page: Page, service: Service) -> None:
    with somebody_else(service, "continued") as say_there:
        say_there("one")
        open_socket(page, "/ws/rooms/continued", after=0)
        wait_for_messages(page, 3)
        assert texts(page) == ["one"]
        sequence = page.evaluate("socket.close() ?? socket.sequence")
        becomes(page, "closed")
        say_there("two")
        open_socket(page, "/ws/rooms/continued", after=sequence)
        say_there("three")
        wait_for_text(page, "three")
    assert texts(page) == ["two", "three"]


def test_what_the_history_no_longer_has_is_a_gap(page: Page, way: Network, default_project: Path) -> None:
    with running(default_project, history=2) as service, somebody_else(service, "short") as say_there:
        way.target = service.address
        open_socket(page, "/ws/rooms/short", after=0)
        say_there("one")
        wait_for_text(page, "one")
        way.target = "127.0.0.1:1"
        way.cut()
        becomes(page, "waiting")
        for text in ("two", "three", "four", "five"):
            say_there(text)
        way.target = service.address
        page.wait_for_function("() => received.some(({ type }) => type === 'gap')", polling=10)
        say_there("six")
        wait_for_text(page, "six")
    gap = next(message for message in page.evaluate("received") if message["type"] == "gap")
    assert gap["channel"] == "short"
    assert gap["missed"] > 0
    assert texts(page)[-1] == "six"
    assert texts(page) == sorted(set(texts(page)), key=texts(page).index), "something was received twice"


def test_without_after_it_asks_for_no_history(page: Page) -> None:
    open_socket(page, "/ws/rooms/plain")
    assert "sequence" not in wait_for_messages(page, 1)[0]
    assert page.evaluate("socket.sequence") is None
