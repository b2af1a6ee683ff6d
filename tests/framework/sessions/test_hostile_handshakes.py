"""Whatever a client puts into path, query and headers, the service answers without a 500, a 1011 or a traceback."""

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from my_service.app import create_app

from ..recording import capture_logs

SEGMENTS = st.one_of(
    st.sampled_from(["ws", "echo", "rooms", "lobby", "", "..", ".", "health", "metrics", "schema", "{room}", "%2F"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
)
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda parts: "/" + "/".join(parts))
VALUES = st.one_of(
    st.sampled_from(
        [b"0", b"-1", b"abc", b"1e9", b"NaN", b"18446744073709551616", b"9" * 400, b"%FF", b"%00", b"\xff"]
    ),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
    st.binary(max_size=20),
)
QUERIES = st.lists(st.tuples(st.sampled_from([b"after", b"token", b"x", b""]), VALUES), max_size=3).map(
    lambda pairs: b"&".join(b"=".join(pair) for pair in pairs)
)
NAMES = st.sampled_from(
    b"host origin cookie authorization x-forwarded-for x-forwarded-host x-forwarded-proto sec-websocket-protocol "
    b"content-type accept content-length user-agent".split()
)
HEADERS = st.lists(st.tuples(NAMES, st.one_of(st.binary(max_size=30), st.sampled_from([b"[", b"a:b:c", b"null"]))))


Request = tuple[str, str, bytes, list[tuple[bytes, bytes]]]
"""The kind of the scope, the path, the query and the headers."""


async def answers(app: Litestar, requests: list[Request]) -> list[list[Any]]:
    """Send each request to one application, whose WebSockets disconnect after they are accepted."""
    found: list[list[Any]] = []
    async with app.lifespan():
        for kind, path, query, headers in requests:
            sent: list[Any] = []
            events: list[Any] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
            if kind == "http":
                events = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

            async def receive(events: list[Any] = events) -> Any:
                return events.pop(0) if len(events) > 1 else events[0]

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            scope: Any = {"type": kind, "path": path, "raw_path": b"/", "query_string": query, "headers": headers}
            scope |= {"scheme": "http" if kind == "http" else "ws", "root_path": "", "http_version": "1.1"}
            scope |= {"server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1), "subprotocols": []}
            scope |= {"extensions": {"websocket.http.response": {}}}
            if kind == "http":
                scope["method"] = "GET"
            await asyncio.wait_for(app(scope, receive, send), 20)
            found.append(sent)
    return found


REQUESTS = st.lists(st.tuples(st.sampled_from(["websocket", "http"]), PATHS, QUERIES, HEADERS), min_size=1, max_size=10)


@settings(deadline=None, max_examples=60)
@given(REQUESTS)
@example(
    [(kind, "/ws/rooms/a", b"after=" + value, []) for kind in ("websocket", "http") for value in (b"\xff", b"%ff")]
)
@example([("websocket", "/ws/rooms/a", b"after=18446744073709551616", [])])
@example(
    [("websocket", "/ws/rooms/\ufffd", b"", []), ("http", "/\ufffd", b"", []), ("http", "/schema/\ufffd", b"", [])]
)
@example([(kind, "/ws/echo", b"", [(b"host", b"\xff["), (b"origin", b"\xff")]) for kind in ("websocket", "http")])
@example(
    [(kind, "/metrics", b"", [(b"cookie", b"\xff=\xfe"), (b"content-type", b"\xff")]) for kind in ("websocket", "http")]
)
def test_nothing_that_a_client_sends_is_a_bug(requests: list[Request]) -> None:
    app = create_app()  # which configures the log
    with capture_logs() as lines:
        found = asyncio.run(answers(app, requests))
    assert lines or all(kind == "http" for kind, *_ in requests)
    for request, sent in zip(requests, found, strict=True):
        assert sent, request
        assert [each for each in sent if each.get("status", 0) >= 500 or each.get("code") == 1011] == [], request
    assert [line for line in lines if line["log_level"] in {"error", "critical"} or "exc_info" in line] == []
