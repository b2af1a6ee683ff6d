"""`client.js` against a service that does what a test asks for: requests, streams, pings, and data that is not JSON.

In Chromium, and in Node, where there is no document, window or location.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from socket import SHUT_RDWR
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from .browser import ELSEWHERE
from .npm import install

CLIENT = Path("src/my_service/realtime/client/client.js")

BODY = """
const received = [], others = [], states = [], refusals = [];
const socket = new ReconnectingWebSocket(url, {
  baseDelay: 1, maxDelay: 20, pingInterval: 0, ...options,
  onMessage: (message) => received.push(message),
  onOther: (data) => others.push(data),
  onState: ({ status }) => states.push(status),
  onRefused: (refusal) => refusals.push(refusal),
});
const failed = async (promise) => {
  try {
    return { value: await promise };
  } catch ({ name, message, ...rest }) {
    return { name, ...rest };
  }
};
const until = async (condition) => {
  for (let i = 0; !condition(); i++) {
    if (i > 4000) throw new Error(`never: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const opened = () => until(() => socket.open().state.status === "open");
const controller = new AbortController();
const { signal } = controller;
try {
  await (async () => { CODE })();
  return result;
} finally {
  socket.close();
}
"""
NODE = """
import { pathToFileURL } from "node:url";
const [ws, file, ...given] = process.argv.slice(1);
globalThis.WebSocket ??= (await import(pathToFileURL(ws))).WebSocket; // before Node 22
const client = await import(pathToFileURL(file));
const run = Object.getPrototypeOf(async () => {}).constructor("url", "options", ...Object.keys(client), BODY);
console.log(JSON.stringify(await run(...given.map(JSON.parse), ...Object.values(client))));
process.exit();
"""
CHROMIUM = """async ([url, options, body]) => {
  const client = await import("/client.js");
  const run = Object.getPrototypeOf(async () => {}).constructor("url", "options", ...Object.keys(client), body);
  return await run(url, options, ...Object.values(client));
}"""


class Scripted:
    """A service that does what each message says, and remembers them all. Over HTTP: a page and a script."""

    def __init__(self, script: str) -> None:
        self._script = script
        self.received: list[dict[str, Any]] = []
        self.connections = 0
        self.handshakes = 0
        self.paths: list[str] = []
        self.retry_after: str | None = None
        self.refuses: list[tuple[int, str]] = []
        """The status and the body of the answers to what is no request for the page, one after the other; then none."""
        # Chromium opens connections in advance; shutting down waits for those that say nothing.
        self._server = serve(self._handle, "127.0.0.1", 0, process_request=self._respond, open_timeout=2)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.port: int = self._server.socket.getsockname()[1]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["type"] == kind]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _respond(self, _: ServerConnection, request: Request) -> Response | None:
        upgrades = "upgrade" in request.headers
        self.handshakes += upgrades
        self.paths.append(request.path)
        if self.refuses and request.path not in {"/client.js", "/favicon.ico"}:
            status, body = self.refuses.pop(0)
            headers = Headers({"content-type": "text/plain", "content-length": str(len(body))})
            if self.retry_after:
                headers["retry-after"] = self.retry_after
            return Response(status, HTTPStatus(status).phrase, headers, body.encode())
        if upgrades:
            return None
        kind, body = (
            ("text/javascript", self._script) if request.path == "/client.js" else ("text/html", "<!doctype html>")
        )
        return Response(200, "OK", Headers({"content-type": kind, "content-length": str(len(body))}), body.encode())

    def _handle(self, socket: ServerConnection) -> None:
        self.connections += 1
        with suppress(ConnectionClosed, OSError):
            for text in socket:
                message = json.loads(text)
                self.received.append(message)
                self._do(socket, message)

    def _do(self, socket: ServerConnection, message: dict[str, Any]) -> None:
        ref = {"ref": message["ref"]} if "ref" in message else {}
        if message["type"] == "ping":
            socket.send('{"type":"pong"}')
        if message["type"] == "cancel":
            socket.send(json.dumps({"type": "token", "text": "late"} | ref))
            socket.send(json.dumps({"type": "end", "cancelled": True} | ref))
        for answer in message.get("answers", ()):
            socket.send(json.dumps(answer | ref))
        for data in message.get("raw", ()):
            socket.send(data)
        if message.get("binary"):
            socket.send(b'\xff{"type":"said"}')
        if message.get("lose", 0) >= len(self.of_type(message["type"])):
            socket.socket.shutdown(SHUT_RDWR)  # without a close frame
        if "close" in message:
            socket.close(message["close"], "as asked")


@pytest.fixture
def scripted(default_project: Path) -> Iterator[Scripted]:
    scripted = Scripted((default_project / CLIENT).read_text())
    yield scripted
    scripted.stop()


Run = Callable[..., Any]


@pytest.fixture
def chromium_page(context: BrowserContext, scripted: Scripted) -> Page:
    """An empty page of the service, on a host that does not look like this machine."""
    page = context.new_page()
    page.goto(f"http://{ELSEWHERE}:{scripted.port}/")
    return page


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package `ws`, which brings a WebSocket to a Node without one."""
    return install(tmp_path_factory.mktemp("node"), "ws") / "ws" / "wrapper.mjs"


@pytest.fixture(params=["chromium", "node"])
def run(request: pytest.FixtureRequest, scripted: Scripted, default_project: Path) -> Run:
    """Run code with a socket in each of the two; return what it leaves in `result`."""
    if request.param == "node":
        ws: Path = request.getfixturevalue("ws")

        def run(code: str, **options: Any) -> Any:
            script = NODE.replace("BODY", json.dumps(body(code)))
            given = json.dumps(f"ws://127.0.0.1:{scripted.port}/"), json.dumps(options)
            result = subprocess.run(
                ["node", "--input-type=module", "--eval", script, str(ws), str(default_project / CLIENT), *given],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            return json.loads(result.stdout)

        return run
    page: Page = request.getfixturevalue("chromium_page")
    return lambda code, **options: run_in(page, scripted, code, **options)


def body(code: str) -> str:
    return f"let result;\n{BODY.replace('CODE', code)}"


def run_in(page: Page, scripted: Scripted, code: str, **options: Any) -> Any:
    """Run code in a page, in which nothing may raise unseen."""
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    result = page.evaluate(CHROMIUM, [f"ws://{ELSEWHERE}:{scripted.port}/", options, body(code)])
    assert errors == []
    return result


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (400, "the Host header cannot be read", "the Host header cannot be read"),
        (401, '{"status_code":401,"detail":"the token has expired"}', "the token has expired"),
        (403, "this origin may not connect", "this origin may not connect"),
        (404, "", ""),
    ],
)
def test_a_refusal_that_is_final_is_told_and_it_stays_closed(
    run: Run, scripted: Scripted, status: int, body: str, detail: str
) -> None:
    scripted.refuses = [(status, body)] * 2  # the handshake, and what is asked afterwards
    result = run("""
        socket.open();
        await until(() => states.at(-1) === "closed");
        result = [refusals, socket.state.lastClose];
    """)
    assert result == [[{"status": status, "detail": detail}], {"code": 1006, "reason": detail}]
    assert scripted.handshakes == 1


def test_a_refusal_is_told_where_time_outs_are_longer_than_timers_allow(run: Run, scripted: Scripted) -> None:
    scripted.refuses = [(403, "no")] * 2
    result = run("""
        const other = new ReconnectingWebSocket(url, {
          pingInterval: 0, timeout: Infinity, onRefused: ({ status }) => refusals.push(status),
        }).open();
        await until(() => ["waiting", "closed"].includes(other.state.status));
        result = [refusals.at(-1), other.state.status];
        other.close();
    """)
    assert result == [403, "closed"]


@pytest.mark.parametrize("name", ["maxQueue", "baseDelay", "maxDelay", "pingInterval", "timeout"])
def test_a_number_that_is_none_is_refused_rather_than_reconnecting_without_a_pause(run: Run, name: str) -> None:
    result = run(f"""
        result = [NaN, -1, undefined, "5"].map((value) => {{
          try {{
            return new ReconnectingWebSocket(url, {{ {name}: value }}).state.status;
          }} catch ({{ name, message }}) {{
            return `${{name}}: ${{message}}`;
          }}
        }});
    """)
    fix = "Fix: use 0 or a positive number"
    errors = [f"RangeError: {name} is {value}. {fix}" for value in ("NaN", "-1")]
    assert result == [*errors, "closed", "closed"]


def test_a_sequence_that_was_never_stored_is_none(run: Run, scripted: Scripted) -> None:
    result = run("await opened(); result = socket.sequence ?? 'none';", after=None)
    assert result == "none"
    assert [path for path in scripted.paths if "after" in path] == []


def test_a_close_that_is_invalid_throws_and_changes_nothing(run: Run) -> None:
    result = run("""
        await opened();
        const failure = await failed((async () => socket.close(4000, "x".repeat(200)))());
        socket.abandon();
        await until(() => ["closed", "open"].includes(states.at(-1)));
        result = [failure.name !== undefined, socket.state.status];
    """)
    assert result == [True, "open"]


def test_a_close_without_an_answer_ends_too(run: Run) -> None:
    result = run(
        """
        globalThis.WebSocket = class extends WebSocket { close() {} }; // as on a network that is gone
        await opened();
        socket.close();
        await until(() => states.at(-1) === "closed");
        result = socket.state.lastClose;
        """,
        timeout=500,
    )
    assert result == {"code": 1006, "reason": "no answer to the close"}


def test_a_refusal_that_passes_is_told_and_it_tries_again(run: Run, scripted: Scripted) -> None:
    scripted.refuses = [(503, "about to stop")] * 2 + [(429, "too many")] * 2 + [(403, "not told")] + [(426, "a GET")]
    result = run("""
        socket.open();
        await until(() => states.at(-1) === "open");
        result = refusals;
    """)
    assert result == [{"status": 503, "detail": "about to stop"}, {"status": 429, "detail": "too many"}]
    assert scripted.handshakes == 4


@pytest.mark.parametrize(
    ("header", "seconds", "waits"),
    [
        ("60", 60, True),
        ("0", None, False),
        ("-60", None, False),
        ("Wed, 21 Oct 2099 07:28:00 GMT", None, False),
        ("soon", None, False),
    ],
)
def test_it_waits_as_long_as_the_service_asks(
    run: Run, scripted: Scripted, header: str, seconds: int | None, waits: bool
) -> None:
    scripted.refuses = [(503, "maintenance")] * 2
    scripted.retry_after = header
    result = run("""
        const now = Date.now();
        socket.open();
        await until(() => states.includes("waiting"));
        result = [refusals[0].retryAfter ?? null, socket.state.retryAt - now >= 60_000];
    """)
    assert result == [seconds, waits]


def test_another_token_is_tried_after_401(run: Run, scripted: Scripted) -> None:
    scripted.refuses = [(401, "expired")] * 2
    result = run("""
        const tokens = ["old", "new"];
        const other = new ReconnectingWebSocket(url, {
          baseDelay: 1, pingInterval: 0, token: () => tokens.shift(), onRefused: ({ status }) => refusals.push(status),
        }).open();
        await until(() => other.state.status === "open");
        other.close();
        result = [refusals, tokens];
    """)
    assert result == [[401], []]


def test_closing_while_it_asks_is_final(run: Run, scripted: Scripted) -> None:
    scripted.refuses = [(503, "")] * 2
    result = run("""
        const other = new ReconnectingWebSocket(url, { baseDelay: 1, pingInterval: 0, onRefused: () => other.close() });
        other.open();
        await until(() => other.state.status === "closed");
        await other.request({ type: "ask" }).catch(() => {}); // refused at once: it is closed
        result = other.state.status;
    """)
    assert result == "closed"
    assert scripted.handshakes == 1


def test_messages_of_a_type_are_received_until_that_is_ended(run: Run) -> None:
    result = run("""
        const numbers = [];
        const stop = socket.on("said", ({ n }) => numbers.push(n));
        await opened();
        const say = (...said) => socket.send({ type: "ask", answers: said });
        say({ type: "said", n: 1 }, { type: "left", n: 2 });
        await until(() => received.length === 2);
        stop();
        say({ type: "said", n: 3 });
        await until(() => received.length === 3);
        result = [numbers, received.map(({ n }) => n)];
    """)
    assert result == [[1], [1, 2, 3]]


def test_the_query_and_what_every_message_has(run: Run, scripted: Scripted) -> None:
    result = run("""
        const other = new ReconnectingWebSocket("/here?a=1", {
          base: url.slice(0, -1), pingInterval: 0,
          query: { b: ["x", "y z"], c: undefined, d: 0 }, defaults: { type: "ask" },
        }).open();
        other.send({ n: 1 });
        other.send({ type: "tell" });
        result = await other.request({ answers: [{ type: "said" }] });
        other.close();
    """)
    assert result == {"type": "said"}
    assert [message["type"] for message in scripted.received] == ["ask", "tell", "ask"]
    assert scripted.paths[-1] == "/here?a=1&b=x&b=y+z&d=0"


def test_each_request_gets_its_own_answer(run: Run, scripted: Scripted) -> None:
    result = run("""
        socket.open(); // the first one is queued
        const ask = (n) => socket.request({ type: "ask", answers: [{ type: "said", n }] });
        result = await Promise.all([1, 2, 3].map(ask));
        socket.send({ type: "ask", ref: "mine", answers: [{ type: "said", n: 4 }] });
        await until(() => received.length);
        result.push(received);
    """)
    assert result == [
        {"type": "said", "n": 1},
        {"type": "said", "n": 2},
        {"type": "said", "n": 3},
        [{"type": "said", "n": 4, "ref": "mine"}],
    ]
    refs = [message["ref"] for message in scripted.received]
    assert len(set(refs)) == 4
    assert all(0 < len(ref) <= 64 for ref in refs)


def test_a_rejected_message_throws_and_the_connection_stays(run: Run, scripted: Scripted) -> None:
    result = run("""
        await opened();
        const answers = [{ type: "error", code: "name_taken", detail: "taken", extra: { field: "name" } }];
        result = [await failed(socket.request({ type: "ask", answers }))];
        result.push(await failed(socket.request({ type: "ask", answers: [{ type: "error", code: "bare" }] })));
        result.push(await failed(socket.request({ type: "ask", answers: [{ type: "ok" }] })), received);
    """)
    assert result == [
        {"name": "MessageRejected", "code": "name_taken", "detail": "taken", "extra": {"field": "name"}},
        {"name": "MessageRejected", "code": "bare", "detail": ""} | ({"extra": None} if "extra" in result[1] else {}),
        {"value": {"type": "ok"}},
        [],
    ]
    assert scripted.connections == 1


def test_a_lost_connection_rejects_what_is_pending_and_repeats_nothing(run: Run, scripted: Scripted) -> None:
    result = run("""
        await opened();
        const pending = [socket.request({ type: "wait" }), socket.request({ type: "break", lose: 1 })].map(failed);
        result = [await Promise.all(pending), socket.state.status];
        await until(() => socket.state.status === "open");
        result.push(await socket.request({ type: "ask", answers: [{ type: "ok" }] }));
    """)
    lost = {"name": "ConnectionLost", "code": 1006, "reason": ""}
    assert result[0] == [lost, lost]
    assert result[1] != "open"
    assert result[2] == {"type": "ok"}
    assert [message["type"] for message in scripted.received] == ["wait", "break", "ask"]


def test_a_request_with_retry_is_repeated_on_the_next_connection(run: Run, scripted: Scripted) -> None:
    result = run("""
        await opened();
        const answers = [{ type: "ok" }];
        const broken = socket.request({ type: "break", lose: 2 }, { retry: true, timeout: 2000 });
        const pending = socket.request({ type: "wait" });
        result = [await failed(pending)];
        await until(() => states.filter((status) => status === "open").length === 3);
        socket.send({ type: "ask", raw: [JSON.stringify({ type: "ok", ref: "~1" })] });
        result.push(await broken, await socket.request({ type: "ask", answers }, { retry: true }));
    """)
    assert result == [{"name": "ConnectionLost", "code": 1006, "reason": ""}, {"type": "ok"}, {"type": "ok"}]
    assert len(scripted.of_type("break")) == 3
    assert len({message["ref"] for message in scripted.of_type("break")}) == 1


@pytest.mark.parametrize("end", ["socket.close()", 'socket.send({ type: "bye", close: 1008 })'])
def test_a_final_end_rejects_a_request_with_retry_too(run: Run, end: str) -> None:
    result = run(f"""
        await opened();
        const pending = failed(socket.request({{ type: "wait" }}, {{ retry: true }}));
        {end};
        result = [await pending];
        await until(() => socket.state.status === "closed");
        result.push(await failed(socket.request({{ type: "ask" }})));
    """)
    assert [each["name"] for each in result] == ["ConnectionLost", "ConnectionLost"]
    assert result[0]["code"] == (1000 if "close()" in end else 1008)


def test_what_cannot_be_queued_rejects_at_once(run: Run) -> None:
    result = run(
        """
        socket.open();
        const pending = [1, 2, 3].map((n) => failed(socket.request({ type: "ask", answers: [{ type: "ok", n }] })));
        result = await Promise.all(pending);
    """,
        maxQueue=2,
    )
    assert result[:2] == [{"value": {"type": "ok", "n": 1}}, {"value": {"type": "ok", "n": 2}}]
    assert result[2]["name"] == "ConnectionLost"
    assert result[2]["reason"] == "not sent: the queue is full"


def test_a_time_without_an_end_is_none(run: Run, scripted: Scripted) -> None:
    result = run(
        """
        await opened();
        result = await socket.request({ type: "ask", answers: [{ type: "ok" }] }, { timeout: Infinity });
    """,
        pingInterval=1e12,
        timeout=1e12,
    )
    assert result == {"type": "ok"}
    assert (scripted.connections, len(scripted.of_type("ping"))) == (1, 1)


def test_a_request_that_is_given_up_leaves_nothing(run: Run, scripted: Scripted) -> None:
    result = run("""
        socket.open();
        const queued = failed(socket.request({ type: "never sent" }, { signal }));
        controller.abort();
        result = [await queued, await failed(socket.request({ type: "never sent" }, { signal }))];
        await opened();
        const other = new AbortController();
        const pending = failed(socket.request({ type: "wait" }, { signal: other.signal }));
        result.push(await failed(socket.request({ type: "wait" }, { timeout: 20 })));
        other.abort();
        result.push(await pending);
        const late = ["~1", "~2", "~3", "~4"].map((ref) => JSON.stringify({ type: "said", ref }));
        result.push(await socket.request({ type: "ask", raw: late, answers: [{ type: "ok" }] }), received);
    """)
    names = [each["name"] for each in result[:4]]
    assert names == ["AbortError", "AbortError", "TimeoutError", "AbortError"]
    assert result[4:] == [{"type": "ok"}, []]
    assert scripted.of_type("never sent") == scripted.of_type("cancel") == []


TOKENS = [{"type": "token", "text": text} for text in "abc"]


def test_a_stream_yields_in_order_until_its_end(run: Run, scripted: Scripted) -> None:
    result = run(f"""
        socket.open();
        result = [];
        const answers = [...{json.dumps(TOKENS)}, {{ type: "end" }}];
        for await (const token of socket.stream({{ type: "ask", answers }})) result.push(token);
        for await (const token of socket.stream({{ type: "ask", answers: [{{ type: "end" }}] }})) result.push(token);
        socket.stream({{ type: "never begun" }});
        result.push(await socket.request({{ type: "ask", answers }}), received);
    """)
    assert result == [*TOKENS, TOKENS[0], []]
    assert scripted.of_type("cancel") == scripted.of_type("never begun") == []


@pytest.mark.parametrize(
    ("failure", "name"),
    [
        ({"answers": [{"type": "error", "code": "tired"}], "ref": "~1"}, "MessageRejected"),
        ({"lose": 1}, "ConnectionLost"),
        ({"close": 4001}, "ConnectionLost"),
    ],
)
def test_a_stream_that_fails_throws_after_what_came_before(
    run: Run, scripted: Scripted, failure: dict[str, Any], name: str
) -> None:
    result = run(f"""
        await opened();
        result = [];
        const loop = async () => {{
          for await (const token of socket.stream({{ type: "ask", answers: {json.dumps(TOKENS)} }})) {{
            if (!result.length) await socket.request({{ type: "ask", answers: [{{ type: "all have come" }}] }});
            if (!result.length) socket.send({json.dumps({"type": "fail"} | failure)});
            result.push(token);
            await new Promise((resolve) => setTimeout(resolve, 20)); // so it breaks while nobody waits
          }}
        }};
        result.push((await failed(loop())).name);
    """)
    assert result == [*TOKENS, name]
    assert scripted.of_type("cancel") == []


@pytest.mark.parametrize("leave", ["break", "controller.abort()", "setTimeout(() => controller.abort(), 20)"])
def test_leaving_or_aborting_cancels_a_stream(run: Run, scripted: Scripted, leave: str) -> None:
    result = run(f"""
        await opened();
        const tokens = [];
        const loop = async () => {{
          for await (const token of socket.stream({{ type: "ask", answers: {json.dumps(TOKENS)} }}, {{ signal }})) {{
            tokens.push(token);
            if (tokens.length === {3 if "set" in leave else 2}) {leave};
          }}
        }};
        result = [(await failed(loop())).name ?? "left", tokens.length];
        await socket.request({{ type: "ask", answers: [{{ type: "ok" }}] }}); // all that is late has come
        result.push(received);
    """)
    assert result == ["left" if leave == "break" else "AbortError", 3 if "set" in leave else 2, []]
    assert scripted.of_type("cancel") == [{"type": "cancel", "ref": scripted.received[0]["ref"]}]


def test_what_is_not_json_goes_to_a_callback_of_its_own(run: Run) -> None:
    result = run("""
        await opened();
        const raw = ["pong", "", "{", "null", "5", '"text"', '{"type":"said"}'];
        socket.send({ type: "ask", binary: true, raw });
        await until(() => received.length === 4 && others.length === 4);
        result = [received, others.filter((each) => typeof each === "string"), states.length];
    """)
    assert result == [[None, 5, "text", {"type": "said"}], ["pong", "", "{"], 2]


def test_every_pong_belongs_to_the_heartbeat(run: Run, scripted: Scripted) -> None:
    result = run(
        """
        await opened();
        socket.send({ type: "ask", raw: ['{"type":"pong"}', '{"type":"pong"}', '{"type":"said"}'] });
        await until(() => received.length);
        result = [received, Number.isFinite(socket.latency)];
    """,
        pingInterval=20_000,
    )
    assert result == [[{"type": "said"}], True]
    assert len(scripted.of_type("ping")) == 1


def test_a_pong_is_a_message_where_no_pings_are_sent(run: Run) -> None:
    result = run("""
        await opened();
        socket.send({ type: "ping" });
        await until(() => received.length);
        result = received;
    """)
    assert result == [{"type": "pong"}]


def test_a_page_that_wakes_pings_once(chromium_page: Page, scripted: Scripted) -> None:
    result = run_in(
        chromium_page,
        scripted,
        """
        await opened();
        await until(() => socket.latency);
        for (let i = 0; i < 5; i++) dispatchEvent(new Event("online"));
        await socket.request({ type: "ask", answers: [{ type: "ok" }] });
        dispatchEvent(new Event("online"));
        await socket.request({ type: "ask", answers: [{ type: "ok" }] });
        result = [received, states];
    """,
        pingInterval=20_000,
    )
    assert result == [[], ["connecting", "open"]]
    assert len(scripted.of_type("ping")) == 3


def test_it_connects_though_the_browser_says_that_it_is_offline(chromium_page: Page, scripted: Scripted) -> None:
    result = run_in(
        chromium_page,
        scripted,
        """
        Object.defineProperty(navigator, "onLine", { get: () => false });
        await opened();
        await failed(socket.request({ type: "break", lose: 1 }));
        result = [socket.state.status, socket.state.retryAt > Date.now() - 1000];
        await until(() => socket.state.status === "open");
    """,
    )
    assert result == ["paused", True]


def test_it_reconnects_where_no_close_follows_an_error(chromium_page: Page, scripted: Scripted) -> None:
    result = run_in(
        chromium_page,
        scripted,
        """
        const real = WebSocket;
        globalThis.WebSocket = class {
          constructor() { setTimeout(() => this.onerror(new Event("error"))); }
          close() {}
        };
        socket.open();
        await until(() => states.at(-1) === "waiting");
        globalThis.WebSocket = real;
        await until(() => socket.state.status === "open");
        result = states.slice(0, 2);
    """,
        timeout=3_600_000,
    )
    assert result == ["connecting", "waiting"]


def test_it_works_in_a_worker(chromium_page: Page, scripted: Scripted) -> None:
    result = chromium_page.evaluate(
        """async (url) => {
        const code = `
          import { ReconnectingWebSocket } from "${location.origin}/client.js";
          const socket = new ReconnectingWebSocket("${url}").open();
          postMessage(await socket.request({ type: "ask", answers: [{ type: "ok" }] }));
        `;
        const script = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
        const worker = new Worker(script, { type: "module" });
        return await new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
        });
    }""",
        f"ws://{ELSEWHERE}:{scripted.port}/",
    )
    assert result == {"type": "ok"}
