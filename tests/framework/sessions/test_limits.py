"""Limits: whoever goes over one is closed with the right code and a cause, and nobody else notices."""

import asyncio
from contextlib import ExitStack
from typing import Any, cast

import pytest
from litestar import Litestar, asgi
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession
from litestar.types import ASGIApp, Receive, Scope, Send

from my_service.realtime import ConnectionInfo, Listener, Reason, Socket, listener
from my_service.realtime.sessions.fast_path import EXTENSION
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.sessions.registry import address_group
from my_service.realtime.sessions.runtime import TokenBucket
from my_service.realtime.sessions.session import Session
from my_service.settings import Settings

from ..recording import Hooks, Serve, build, capture_logs
from .test_fast_path import Writer
from .test_hostile_handshakes import answers

SHORT_TIMEOUT = 0.05
"""Seconds of a limit that a test waits for."""


@listener("/")
async def count(data: int) -> int:
    return data + 1


@listener("/first", client_speaks_first=True)
async def spoken_to_first(data: int) -> int:
    return data + 1


def sessions_of(client: TestClient[Litestar]) -> Sessions:
    app: Litestar = cast("Any", client).app  # its own type is partly unknown
    return app.plugins.get(Sessions)


def metrics_of(client: TestClient[Litestar]) -> dict[str, float]:
    """Collect what Prometheus would see: `name{label}` or `name`, and the value."""
    samples = (sample for family in sessions_of(client).registry.collect() for sample in family.samples)
    return {f"{each.name}{{{','.join(each.labels.values())}}}".removesuffix("{}"): each.value for each in samples}


def ask(socket: WebSocketTestSession, number: int) -> int:
    socket.send_json(number)
    return int(socket.receive_json(timeout=20))


def closed(socket: WebSocketTestSession) -> int:
    """Return the code with which the service closes, after what it may still say."""
    try:
        while True:
            socket.receive_text(timeout=20)
    except WebSocketDisconnect as ended:
        return ended.code


@pytest.mark.parametrize(
    ("limits", "path", "messages", "limit"),
    [
        ({"max_messages_per_second": 1, "message_burst": 3}, "/", ["1"] * 4, "max_messages_per_second"),
        ({"max_bad_messages": 3}, "/", ["x"] * 4, "max_bad_messages"),
        ({"first_message_seconds": SHORT_TIMEOUT}, "/first", [], "first_message_seconds"),
        ({"idle_seconds": SHORT_TIMEOUT}, "/", [], "idle_seconds"),
        ({"idle_seconds": SHORT_TIMEOUT}, "/", ["1"], "idle_seconds"),
        ({"idle_seconds": SHORT_TIMEOUT}, "/first", ["1"], "idle_seconds"),
    ],
)
def test_who_goes_over_a_limit_is_closed_and_nobody_else(
    serve: Serve, hooks: Hooks, limits: dict[str, Any], path: str, messages: list[str], limit: str
) -> None:
    other = "/other"

    class Lifted(Listener):
        path = other

        async def on_accept(self, socket: Socket) -> None:
            Session.of(socket)._limit = TokenBucket(0, 1)  # pyright: ignore[reportPrivateUsage]

        async def on_receive(self, data: int) -> int:
            return data + 1

    with serve(count, spoken_to_first, Lifted, **limits) as client, capture_logs() as logs, ExitStack() as stack:
        healthy = None if limit == "idle_seconds" else stack.enter_context(client.websocket_connect(other))
        with client.websocket_connect(path) as socket:
            for message in messages:
                socket.send_text(message)
            assert closed(socket) == 1008
        _, cause = hooks.ended.get(timeout=20)
        assert (cause.reason, cause.code, cause.error) == (Reason.LIMIT_EXCEEDED, 1008, None)
        if healthy:
            assert [ask(healthy, number) for number in range(3)] == [1, 2, 3]
    metrics = metrics_of(client)
    assert metrics[f"websocket_limit_exceeded_total{{{limit}}}"] == 1
    assert sum(value for name, value in metrics.items() if name.startswith("websocket_limit_exceeded_total")) == 1
    assert metrics["websocket_ended_total{limit_exceeded}"] == 1
    assert [line for line in logs if line["log_level"] == "error" or "exc_info" in line] == []


def test_each_bad_message_is_answered_until_there_are_too_many_in_a_row(serve: Serve) -> None:
    with serve(count, max_bad_messages=2) as client, client.websocket_connect("/") as socket:
        for _ in range(3):  # a good message between them, and they are not in a row
            for _ in range(2):
                socket.send_text("x")
                assert socket.receive_json(timeout=20)["code"] == "invalid_message"
            assert ask(socket, 1) == 2
        for _ in range(2):
            socket.send_text("x")
            assert socket.receive_json(timeout=20)["code"] == "invalid_message"
        socket.send_text("x")
        assert closed(socket) == 1008
        assert metrics_of(client)["websocket_bad_messages_total"] == 9


def test_a_zero_lifts_the_limit() -> None:
    unlimited = TokenBucket(0, 1)
    assert all(unlimited.allows(0.0) for _ in range(1000))


def test_a_zero_lifts_the_limit_of_bad_messages(serve: Serve) -> None:
    with serve(count, max_bad_messages=0) as client, client.websocket_connect("/") as socket:
        for _ in range(100):
            socket.send_text("x")
            assert socket.receive_json(timeout=20)["code"] == "invalid_message"


def test_the_bucket_of_messages_refills_with_time() -> None:
    limit = TokenBucket(rate=10, burst=2)
    now = limit._refilled_at  # pyright: ignore[reportPrivateUsage]
    assert [limit.allows(now) for _ in range(3)] == [True, True, False]
    assert [limit.allows(now + 0.11) for _ in range(2)] == [True, False]
    assert [limit.allows(now + 60) for _ in range(3)] == [True, True, False]


def test_who_need_not_speak_first_may_listen_for_ever(serve: Serve, hooks: Hooks) -> None:
    limits = {"first_message_seconds": SHORT_TIMEOUT}
    with serve(count, spoken_to_first, **limits) as client, client.websocket_connect("/") as silent:
        with client.websocket_connect("/first") as socket:
            assert closed(socket) == 1008  # so the time has passed for the silent one too
        hooks.ended.get(timeout=20)
        assert ask(silent, 1) == 2


def test_a_client_that_has_spoken_may_be_silent(serve: Serve, hooks: Hooks) -> None:
    with (
        serve(spoken_to_first, first_message_seconds=SHORT_TIMEOUT) as client,
        client.websocket_connect("/first") as speaks,
    ):
        assert ask(speaks, 1) == 2
        with client.websocket_connect("/first") as socket:
            assert closed(socket) == 1008
        hooks.ended.get(timeout=20)
        assert ask(speaks, 2) == 3


def test_a_client_that_keeps_speaking_is_not_idle(serve: Serve) -> None:
    with serve(count, idle_seconds=10 * SHORT_TIMEOUT) as client, client.websocket_connect("/") as socket:
        with client.websocket_connect("/") as sleeper:
            while not sessions_of(client).registry.runtime.metrics.limits.total():
                assert ask(socket, 1) == 2
            assert closed(sleeper) == 1008  # it came later
        assert ask(socket, 1) == 2


def test_a_listener_as_a_class_says_that_its_client_speaks_first(serve: Serve) -> None:
    class Asking(Listener):
        path = "/"
        client_speaks_first = True

        async def on_receive(self, data: int) -> None: ...

    with serve(Asking, first_message_seconds=SHORT_TIMEOUT) as client, client.websocket_connect("/") as socket:
        assert closed(socket) == 1008


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_connections": 2}, "full"), ({"max_connections_per_address": 2}, "address")],
)
def test_one_connection_too_many_is_refused_until_another_ends(
    serve: Serve, hooks: Hooks, limits: dict[str, int], reason: str
) -> None:
    with serve(count, **limits) as client, client.websocket_connect("/"):
        with client.websocket_connect("/"), pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/").__enter__()
        hooks.ended.get(timeout=20)
        with client.websocket_connect("/") as socket:
            assert ask(socket, 1) == 2
        hooks.ended.get(timeout=20)
        assert metrics_of(client)[f"websocket_rejected_total{{{reason}}}"] == 1


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
def test_a_connection_counts_until_its_descriptor_is_closed(hooks: Hooks, limit: str) -> None:
    app, writers = build(hooks, count, **{limit: 1}), list[Writer]()

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            writers.append(Writer())
            scope["extensions"] = {EXTENSION: {"writer": writers[-1]}}
        await app(scope, receive, send)

    registry = app.plugins.get(Sessions).registry
    with TestClient(cast("Any", server)) as client:
        with client.websocket_connect("/"):
            pass
        hooks.ended.get(timeout=20)
        with pytest.raises(WebSocketDisconnect):  # it is cleaned up, and its descriptor is open
            client.websocket_connect("/").__enter__()
        assert len(registry) == 0
        writers[0].closed()
        assert len(registry.clients) == registry.lingering == 0
        with client.websocket_connect("/"):
            pass


def test_a_user_has_so_many_sockets_and_no_more(serve: Serve, hooks: Hooks) -> None:
    admitted: list[str] = []

    def acquire(socket: Socket) -> None:
        registry = socket.app.plugins.get(Sessions).registry
        admitted.append(registry.acquire(Session.of(socket), socket.headers["user"], limit=2))

    hooks.during_accept = acquire
    with serve(count) as client, ExitStack() as stack:
        for user in ("ada", "ada", "bob", "ada"):
            socket = stack.enter_context(client.websocket_connect("/", headers={"user": user}))
            assert ask(socket, 1) == 2
        assert admitted == ["", "", "", "connections"]
        registry = sessions_of(client).registry
        stack.close()
        for _ in range(4):
            hooks.ended.get(timeout=20)
        with client.websocket_connect("/", headers={"user": "ada"}) as socket:
            assert ask(socket, 1) == 2
    assert admitted[4:] == [""]
    assert not registry.of_user("ada")


def test_the_time_of_the_handlers_is_counted(serve: Serve, hooks: Hooks) -> None:
    with serve(count) as client:
        with client.websocket_connect("/") as socket:
            for number in range(3):
                ask(socket, number)
            socket.send_text("x")
            socket.receive_json(timeout=20)
        hooks.ended.get(timeout=20)
        metrics = metrics_of(client)
    assert metrics["websocket_handler_seconds_count"] == 4
    assert 0 < metrics["websocket_handler_seconds_sum"] < 4
    assert metrics["websocket_handler_seconds_bucket{+Inf}"] == 4


def test_the_buckets_of_the_histogram_hold_all_that_took_no_longer() -> None:
    sessions = Sessions(Settings(), ConnectionInfo, Hooks())
    for seconds in (0.0001, 0.001, 0.002, 31.0):
        sessions.registry.runtime.metrics.count_handled(seconds)
    [family] = [each for each in sessions.registry.collect() if each.name == "websocket_handler_seconds"]
    counts = {sample.labels.get("le"): sample.value for sample in family.samples}
    assert (counts["0.0005"], counts["0.001"], counts["0.005"], counts["30.0"], counts["+Inf"]) == (1, 2, 3, 3, 4)


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("testclient", "testclient"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("no:address", "no:address"),
    ],
)
def test_an_ipv6_address_counts_by_its_64(address: str, group: str) -> None:
    assert address_group(address) == group


def test_a_server_that_is_not_ours_keeps_the_size_of_a_message(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def handler(data: str) -> str:
        return data

    with serve(handler, max_message_size=10) as client, client.websocket_connect("/") as socket:
        socket.send_text("x" * 10)
        assert socket.receive_text(timeout=20) == "x" * 10
        socket.send_text("ü" * 6)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text(timeout=20)
        assert closed.value.code == 1009
    assert hooks.ended.get(timeout=20)[1].reason == Reason.LIMIT_EXCEEDED


def test_the_log_says_which_limit_was_exceeded(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def handler(data: str) -> None: ...

    limits = {"max_messages_per_second": 1, "message_burst": 1}
    with capture_logs() as lines, serve(handler, **limits) as client, client.websocket_connect("/") as socket:
        for _ in range(2):
            socket.send_text("hi")
        hooks.ended.get(timeout=20)
    [line] = [line for line in lines if line["event"] == "connection closed"]
    assert line["limit"] == "max_messages_per_second"


RATES: list[tuple[dict[str, Any], str]] = [
    ({"max_messages_per_second": 1000, "message_burst": 1000, "max_messages_per_second_per_address": 2}, "1"),
    ({"max_bytes_per_second_per_address": 10_000}, f'"{"x" * 4000}"'),
]


@pytest.mark.parametrize(("limits", "message"), RATES, ids=["messages", "bytes"])
def test_the_rate_of_an_address_survives_a_reconnect(
    serve: Serve, hooks: Hooks, limits: dict[str, Any], message: str
) -> None:
    @listener("/")
    async def take(data: Any) -> None: ...

    with serve(take, **limits) as client:
        with client.websocket_connect("/") as socket:
            for _ in range(40):
                socket.send_text(message)
            assert closed(socket) == 1008
        assert hooks.ended.get(timeout=20)[1].reason is Reason.LIMIT_EXCEEDED
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/").__enter__()
        metrics = metrics_of(client)
    assert metrics["websocket_rejected_total{rate}"] == 1
    assert metrics[f"websocket_limit_exceeded_total{{{[*limits][-1]}}}"] == 1


def test_short_connections_are_charged_too(serve: Serve, hooks: Hooks) -> None:
    limits = {"max_messages_per_second": 1000, "max_messages_per_second_per_address": 0.5}
    with serve(count, **limits) as client:
        for _ in range(6):  # fewer messages each than are charged together
            with client.websocket_connect("/") as socket:
                ask(socket, 1)
            hooks.ended.get(timeout=20)
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/").__enter__()


def test_a_client_is_forgotten_when_its_rates_are_full_again(monkeypatch: pytest.MonkeyPatch, hooks: Hooks) -> None:
    registry = build(hooks, count, max_messages_per_second=1000).plugins.get(Sessions).registry
    busy = registry.client_of("10.0.0.1")
    assert not busy.exceeded(messages=9)
    for number in range(100):
        registry.client_of(f"10.0.1.{number}")
    assert len(registry.clients) < 5
    assert registry.client_of("10.0.0.1") is busy
    monkeypatch.setattr("my_service.realtime.sessions.registry.MAX_CLIENTS", 1)
    for number in range(5):
        assert not registry.client_of(f"10.0.2.{number}").exceeded(messages=9)
    assert registry.client_of("10.0.0.1") is not busy


@pytest.mark.parametrize("by", ["guard", "middleware"])
@pytest.mark.parametrize(
    ("error", "reason"), [(PermissionDeniedException("not you"), "handler"), (ValueError("a bug"), "error")]
)
def test_a_handshake_that_is_rejected_is_counted_and_logged(
    hooks: Hooks, by: str, error: Exception, reason: str
) -> None:
    told: list[Exception] = []

    async def tell(error: Exception, _: Scope) -> None:
        told.append(error)

    def guard(_: object, __: object) -> None:
        if by == "guard":
            raise error

    def middleware(app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            if by == "middleware":
                raise error
            await app(scope, receive, send)

        return call

    @listener("/", guards=[guard], middleware=[middleware])
    async def guarded(data: str) -> None: ...

    app: Any = build(hooks, guarded)
    app.after_exception.insert(0, tell)
    with TestClient(app) as client, capture_logs() as lines:
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/").__enter__()
        assert metrics_of(client)[f"websocket_rejected_total{{{reason}}}"] == 1
    assert told == [error]
    [line] = [line for line in lines if line["event"] == "handshake rejected"]
    assert line["reason"] == reason
    assert "a bug" not in str(line)


@pytest.mark.parametrize("raises", [False, True])
def test_a_denial_of_a_middleware_is_counted_once_and_what_it_raises_is_a_bug(hooks: Hooks, *, raises: bool) -> None:
    start: dict[str, Any] = {"type": "websocket.http.response.start", "status": 402, "headers": []}
    body = {"type": "websocket.http.response.body", "body": b"pay", "more_body": False}

    def middleware(app: ASGIApp) -> ASGIApp:
        async def call(_: object, __: object, send: Any) -> None:
            await send(start)
            await send(body)
            if raises:
                raise ValueError("a bug")

        return call

    @listener("/", middleware=[middleware])
    async def denied(data: str) -> None: ...

    app = build(hooks, denied)
    with capture_logs() as lines:
        assert asyncio.run(answers(app, [("websocket", "/", b"", [])])) == [[start, body]]
    assert app.plugins.get(Sessions).registry.runtime.metrics.rejected == {"handler": 1}
    assert [line["event"] for line in lines if "status" in line] == ["handshake rejected"]
    assert [line["event"] for line in lines if "exc_info" in line] == ["request failed"] * raises


@pytest.mark.parametrize("close", [{"code": 1000, "reason": ""}, {"code": 1000}, {"reason": None}, {}])
def test_a_mounted_application_that_accepts_a_socket_is_logged_once(serve: Serve, close: dict[str, Any]) -> None:
    @asgi("/other", is_mount=True, copy_scope=True)
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        accept: Any = {"type": "websocket.accept"}
        await receive()
        await send(accept)
        await send(cast(Any, {"type": "websocket.close", **close}))

    with serve(other) as client, capture_logs() as lines:
        for _ in range(2):
            with client.websocket_connect("/other") as socket:
                assert closed(socket) == 1000
    [line] = [line for line in lines if line["event"].startswith("a mounted application")]
    assert line["path"] == "/other"
