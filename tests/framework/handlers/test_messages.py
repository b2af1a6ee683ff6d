"""Messages: really typed; a bad one is answered, never seen by the handler, and the connection stays open."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from msgspec import Meta, Struct

from my_service.realtime import ConfigurationError, ConnectionInfo, listener
from my_service.realtime.sessions.runtime import is_ping
from my_service.settings import Settings

from ..recording import Serve, capture_logs


class Add(Struct, tag="add"):
    number: Annotated[int, Meta(ge=0)]


class Clear(Struct, tag="clear"):
    pass


seen: list[Add | Clear] = []


@listener("/")
async def calculate(data: Add | Clear) -> Add | None:
    seen.append(data)
    return data if isinstance(data, Add) else None


def test_each_message_arrives_as_its_own_type(serve: Serve) -> None:
    seen.clear()
    with serve(calculate) as client, client.websocket_connect("/") as socket:
        socket.send_text('{"type":"clear"}')
        socket.send_text('{"type":"add","number":1}')
        assert socket.receive_json(timeout=20) == {"type": "add", "number": 1}
    assert seen == [Clear(), Add(1)]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "no JSON",
        "null",
        "[]",
        "{}",
        '{"type":"multiply"}',
        '{"type":"add"}',
        '{"type":"add","number":"1"}',
        '{"type":"add","number":-1}',
        '{"type":"add","number":1} and more',
        '{"type":"' + "x" * 10_000 + '"}',
        "[" * 10_000,
        b'{"type":"clear"}',
        b"\xff",
    ],
)
def test_a_bad_message_is_answered_and_the_connection_stays_open(serve: Serve, bad: str | bytes) -> None:
    seen.clear()
    with serve(calculate) as client, client.websocket_connect("/") as socket:
        socket.send(bad, mode="binary" if isinstance(bad, bytes) else "text")
        answer = socket.receive_json(timeout=20)
        assert (answer["type"], answer["code"]) == ("error", "invalid_message")
        assert 0 < len(answer["detail"]) <= 200
        assert seen == []
        socket.send_text('{"type":"add","number":2}')
        assert socket.receive_json(timeout=20) == {"type": "add", "number": 2}


def nest(data: Any) -> Any:
    for _ in range(100_000):
        data = [data]
    return data


@listener("/in-order")
async def nest_in_order(data: Any) -> Any:
    return nest(data) if data else data


@listener("/in-tasks", concurrency=2)
async def nest_in_tasks(data: Any) -> Any:
    return nest(data) if data else data


@listener("/stream")
async def nest_in_a_stream(data: Any) -> AsyncGenerator[Any, None]:
    yield nest(data) if data else data


@pytest.mark.parametrize("path", ["/in-order", "/in-tasks", "/stream"])
def test_an_answer_that_is_nested_too_deeply_is_refused_without_a_traceback(serve: Serve, path: str) -> None:
    handlers = nest_in_order, nest_in_tasks, nest_in_a_stream
    with serve(*handlers) as client, client.websocket_connect(path) as socket, capture_logs() as logs:
        socket.send_text("1")
        answer = socket.receive_json(timeout=20)
        assert answer == {"type": "error", "code": "validation", "detail": "nested too deeply"}
        socket.send_text("0")
        assert socket.receive_json(timeout=20) == 0
    assert [line for line in logs if "exc_info" in line] == []


def test_what_a_task_sends_and_is_nested_too_deeply_closes_without_a_traceback(serve: Serve) -> None:
    @listener("/")
    async def handler(data: str, connection: NamedDependency[ConnectionInfo]) -> None:
        connection.start(connection.send(nest(data)))

    with serve(handler) as client, client.websocket_connect("/") as socket, capture_logs() as logs:
        socket.send_text("1")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text(timeout=20)
    assert (closed.value.code, closed.value.detail) == (1008, "nested too deeply")
    assert [line for line in logs if "exc_info" in line] == []


class Greeting(Struct, tag="grüße"):
    text: str


@listener("/")
async def greet(data: Greeting) -> Greeting:
    return data


def test_a_tag_may_have_any_letters(serve: Serve) -> None:
    with serve(greet) as client, client.websocket_connect("/") as socket:
        socket.send_text('{"type":"grüße","text":"hi"}')
        assert socket.receive_json(timeout=20) == {"type": "grüße", "text": "hi"}


def test_a_ping_is_answered_and_no_handler_sees_it(serve: Serve) -> None:
    seen.clear()
    with serve(calculate, max_bad_messages=1) as client, client.websocket_connect("/") as socket:
        for ping in ('{"type":"ping"}', '{"type": "ping"}', '{ "type": "ping" }') * 3:  # more than the bad messages
            socket.send_text(ping)
            assert socket.receive_text(timeout=20) == '{"type":"pong"}'
        socket.send_text('{"type":"add","number":1}')
        assert socket.receive_json(timeout=20) == {"type": "add", "number": 1}
    assert seen == [Add(1)]


def test_pings_are_no_messages(serve: Serve) -> None:
    """What `client.js` sends by default is let through by default: a full queue, and a ping behind it."""
    burst = Settings().message_burst
    with serve(calculate, max_messages_per_second=0.001) as client, client.websocket_connect("/") as socket:
        for _ in range(burst + 50):
            socket.send_text('{"type":"ping"}')
        for _ in range(burst):
            socket.send_text('{"type":"add","number":1}')
        socket.send_text('{"type":"ping"}')
        for _ in range(burst + 50):
            assert socket.receive_json(timeout=20) == {"type": "pong"}
        for _ in range(burst):
            assert socket.receive_json(timeout=20)["type"] != "pong"
        assert socket.receive_json(timeout=20) == {"type": "pong"}
        socket.send_text('{"type":"add","number":1}')
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json(timeout=20)
    assert ended.value.code == 1008


@pytest.mark.parametrize("rate", [0, 1])
def test_pings_have_a_rate_of_their_own(serve: Serve, rate: int) -> None:
    limits = {"max_messages_per_second": rate, "max_frames_per_second": 0.1}
    with serve(calculate, **limits) as client, client.websocket_connect("/") as socket:
        for _ in range(2):
            socket.send_text('{"type":"ping"}')
        assert socket.receive_json(timeout=20) == {"type": "pong"}
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json(timeout=20)
    assert ended.value.code == 1008


def test_a_ping_with_a_ref_is_no_message_either(serve: Serve) -> None:
    limits = {"message_burst": 1, "max_messages_per_second": 0.001}
    with serve(calculate, **limits) as client, client.websocket_connect("/") as socket:
        socket.send_text('{"type":"add","number":1}')
        socket.receive_json(timeout=20)
        for ref in range(10):
            socket.send_json({"ref": ref, "type": "ping"})
            assert socket.receive_json(timeout=20) == {"type": "pong", "ref": ref}


def test_pings_cost_their_address_no_more_than_their_bytes(serve: Serve) -> None:
    limits = {"max_bytes_per_second_per_address": 500, "max_frames_per_second": 0}
    with serve(calculate, **limits) as client, client.websocket_connect("/") as socket:
        for _ in range(100):
            socket.send_text('{"type":"ping"}')
            assert socket.receive_json(timeout=20) == {"type": "pong"}


def test_a_ping_in_plain_text_is_answered_as_it_came(serve: Serve) -> None:
    """The default heartbeat of useWebSocket of VueUse, every second, and of react-use-websocket."""
    with serve(calculate, max_bad_messages=1) as client, client.websocket_connect("/") as socket:
        for _ in range(20):
            socket.send_text("ping")
            assert socket.receive_text(timeout=20) == "pong"


def test_a_handler_keeps_a_ping_of_its_own(serve: Serve) -> None:
    class Ping(Struct, tag="ping"):
        note: str = "mine"

    @listener("/tagged")
    async def tagged(data: Ping | Clear) -> Add:
        return Add(len(data.note) if isinstance(data, Ping) else 0)

    @listener("/untyped")
    async def untyped(data: dict[str, str]) -> dict[str, str]:
        return data | {"seen": "yes"}

    @listener("/text")
    async def text(data: str) -> str:
        return data

    with serve(tagged, untyped, text) as client:
        for path, answer in {
            "/tagged": '{"type":"add","number":4}',
            "/untyped": '{"type":"ping","seen":"yes"}',
            "/text": '{"type":"ping"}',
        }.items():
            with client.websocket_connect(path) as socket:
                socket.send_text('{"type":"ping"}')
                assert socket.receive_text(timeout=20) == answer


@pytest.mark.parametrize("ping", ['{"type":"ping","n":1}', '{"type":"ping","ref":null}', '["ping"]', "Ping", "{}"])
def test_what_only_looks_like_a_ping_is_a_bad_message(serve: Serve, ping: str) -> None:
    with serve(calculate) as client, client.websocket_connect("/") as socket:
        socket.send_text(ping)
        assert socket.receive_json(timeout=20)["code"] == "invalid_message"
    assert not is_ping(ping), "it would not count as a message"


def test_a_listener_for_binary_frames_answers_no_ping(serve: Serve) -> None:
    @listener("/", receive_mode="binary", send_mode="binary")
    async def binary(data: Add) -> Add:
        return data

    with serve(binary) as client, client.websocket_connect("/") as socket:
        for ping in (b'{"type":"ping"}', '{"type":"ping"}'):
            socket.send(ping, mode="binary" if isinstance(ping, bytes) else "text")
            assert socket.receive_json(mode="binary", timeout=20)["code"] == "invalid_message"


def test_text_and_bytes_pass_as_they_are(serve: Serve) -> None:
    @listener("/text")
    async def text(data: str) -> str:
        return data

    @listener("/bytes")
    async def binary(data: bytes) -> bytes:
        return data

    with serve(text, binary) as client:
        with client.websocket_connect("/text") as socket:
            socket.send_text("no JSON")
            assert socket.receive_text(timeout=20) == "no JSON"
        with client.websocket_connect("/bytes") as socket:
            socket.send_bytes(b"\xff")
            assert socket.receive_bytes(timeout=20) == b"\xff"


def test_json_travels_in_binary_frames_where_the_listener_says_so(serve: Serve) -> None:
    @listener("/", receive_mode="binary", send_mode="binary")
    async def binary(data: Add) -> Add:
        return data

    with serve(binary) as client, client.websocket_connect("/") as socket:
        socket.send_bytes(b'{"type":"add","number":3}')
        assert socket.receive_bytes(timeout=20) == b'{"type":"add","number":3}'


def test_the_decoders_of_litestar_are_used(serve: Serve) -> None:
    def is_complex(kind: Any) -> bool:
        return kind is complex

    def to_complex(_: Any, value: Any) -> Any:
        return complex(value)

    @listener("/", type_decoders=[(is_complex, to_complex)])
    async def square(data: complex) -> str:
        return str(data * data)

    with serve(square) as client, client.websocket_connect("/") as socket:
        socket.send_text('"1j"')
        assert socket.receive_text(timeout=20) == "(-1+0j)"


def test_a_type_that_cannot_be_decoded_stops_the_service(serve: Serve) -> None:
    @listener("/")
    async def ambiguous(data: Add | dict[str, int]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"ambiguous.*line \d+"), serve(ambiguous):
        pass


def test_too_many_messages_close_with_1008(serve: Serve) -> None:
    limits = {"max_messages_per_second": 1, "message_burst": 3}
    with serve(calculate, **limits) as client, client.websocket_connect("/") as socket:
        for _ in range(5):
            socket.send_text('{"type":"add","number":1}')
        for _ in range(3):
            socket.receive_json(timeout=20)
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json(timeout=20)
    assert ended.value.code == 1008
