"""The server between a real process and real clients: slow consumers, proxies, a full service."""

import asyncio
import json
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from litestar.types import Receive, Send
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from my_service.realtime.server.serve import listen
from my_service.realtime.server.websocket_protocol import WebSocketProtocol
from my_service.realtime.testing import TIMEOUT, Service, Start, credentials, process
from my_service.settings import Settings

SHORT_TIMEOUT = 0.3
"""Seconds of a limit that a test waits for."""

HANDSHAKE = (
    b"GET /ws/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in credentials("bob").items()).encode()
    + b"\r\n"
)

UNLIMITED = dict.fromkeys(
    ("max_bytes_per_second_per_address", "max_frames_per_second", "max_messages_per_second"), 0
) | ({"auth_max_connections_per_user": 0} if credentials() else {})
"""A fast machine sends more in the time of a limit than one address may."""


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame of a client, masked with zeros (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0) + payload
    return struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, size, 0) + payload


LARGE = json.dumps({"type": "say", "text": "x" * 60_000})
PINGS = frame(0x9, b"x" * 125) * 50


def open_and_read_nothing(service: Service, stack: ExitStack, path: str = "/ws/echo") -> socket.socket:
    """Open a connection with a small buffer, from which nothing more is read."""
    host, _, port = service.address.partition(":")
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(TIMEOUT)
    client.connect((host, int(port)))
    client.sendall(HANDSHAKE.replace(b"/ws/echo", path.encode()))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return client


def send_until_closed(client: socket.socket, data: bytes) -> None:
    """Send again and again, and read nothing, until the service has closed the connection."""
    with suppress(ConnectionError):
        for _ in range(100_000):
            client.sendall(data)
        pytest.fail("the service goes on with a client that reads nothing")


def say(client: ClientConnection, text: str) -> str:
    client.send(json.dumps({"type": "say", "text": text}))
    answer: str = json.loads(client.recv(timeout=TIMEOUT))["text"]
    return answer


def metric(service: Service, name: str) -> float:
    lines = (line.rpartition(" ") for line in service.get("/metrics")[1].splitlines())
    return next(float(value) for each, _, value in lines if each == name)


@pytest.mark.parametrize("flood", [frame(0x1, LARGE.encode()), PINGS], ids=["messages", "pings"])
def test_a_client_that_reads_nothing_is_closed_with_1013_and_its_descriptor_freed(start: Start, flood: bytes) -> None:
    service = start(send_seconds=SHORT_TIMEOUT, **UNLIMITED)
    with ExitStack() as stack, service.connect() as healthy:
        send_until_closed(open_and_read_nothing(service, stack), flood)
        line = service.wait_for("connection closed")
        assert (line["reason"], line["code"]) == ("limit_exceeded", 1013)
        assert metric(service, 'websocket_limit_exceeded_total{limit="send_seconds"}') == 1
        assert say(healthy, "still here") == "still here"
    assert [line for line in service.log if line["level"] == "error"] == []


@pytest.mark.parametrize(
    ("settings", "sent", "limit"),
    [
        ({"max_frames_per_second": 1}, PINGS, "max_frames_per_second"),
        ({"message_seconds": SHORT_TIMEOUT}, frame(0x1, b"hello")[:-1], "message_seconds"),
        ({"max_messages_per_second": 1}, frame(0x1, b"hello") * 200, "max_messages_per_second"),
        ({"max_bad_messages": 2}, frame(0x1, b"hello") * 3, "max_bad_messages"),
        ({"max_message_size": 10}, frame(0x1, b"hello" * 3), "max_message_size"),
    ],
)
def test_the_log_says_which_limit_was_exceeded(start: Start, settings: dict[str, Any], sent: bytes, limit: str) -> None:
    service = start(**(UNLIMITED | {"max_bad_messages": 0} | settings))
    with ExitStack() as stack:
        open_and_read_nothing(service, stack).sendall(sent)
        assert service.wait_for("connection closed")["limit"] == limit
        assert metric(service, f'websocket_limit_exceeded_total{{limit="{limit}"}}') == 1


def test_a_client_that_reads_too_late_receives_the_reason(start: Start) -> None:
    service = start(send_seconds=1, **UNLIMITED)
    with service.connect(max_queue=1) as client:
        for _ in range(400):
            client.send(LARGE)
        with suppress(ConnectionClosed):
            while True:
                client.recv(timeout=TIMEOUT)
        assert (client.close_code, client.close_reason) == (1013, "too slow")


def test_a_slow_reader_in_a_room_delays_nobody(start: Start) -> None:
    service = start(send_seconds=SHORT_TIMEOUT, **UNLIMITED)
    with ExitStack() as stack, service.connect("/ws/rooms/lobby") as speaker:
        assert json.loads(speaker.recv(timeout=TIMEOUT))["type"] == "joined"
        open_and_read_nothing(service, stack, "/ws/rooms/lobby")
        assert json.loads(speaker.recv(timeout=TIMEOUT))["type"] == "joined"
        received = {"joined": 1, "said": 0, "left": 0}
        while not received["left"]:
            speaker.send(LARGE)
            received[json.loads(speaker.recv(timeout=TIMEOUT))["type"]] += 1
        line = service.wait_for("connection closed")
        assert (line["reason"], line["code"]) == ("limit_exceeded", 1013)


def test_what_a_client_leaves_unread_when_it_closes_is_dropped_after_a_while(start: Start) -> None:
    service = start(send_seconds=SHORT_TIMEOUT, max_pending_bytes=100_000_000, **UNLIMITED)
    with ExitStack() as stack:
        client = open_and_read_nothing(service, stack)
        client.sendall(frame(0x1, LARGE.encode()) * 300 + frame(0x8, b""))
        service.wait_for("connection closed")
        send_until_closed(client, PINGS)


def test_a_peer_that_is_found_dead_while_much_waits_for_it_is_cleaned_up(start: Start) -> None:
    service = start(send_seconds=0, ping_interval=SHORT_TIMEOUT, ping_timeout=SHORT_TIMEOUT, **UNLIMITED)
    with ExitStack() as stack:
        send_until_closed(open_and_read_nothing(service, stack), frame(0x1, LARGE.encode()))
        assert service.wait_for("connection closed")["reason"] == "connection_lost"


def test_no_pong_waits_for_a_client_that_does_not_read() -> None:
    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""
            self.wrote = asyncio.Event()

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += bytes(data)
            self.wrote.set()

        def is_closing(self) -> bool:
            return False

        def close(self) -> None: ...

        def get_write_buffer_size(self) -> int:
            return 0

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            assert high == 1000

    async def application(_: object, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        assert (await receive())["type"] == "websocket.disconnect"

    async def flood() -> None:
        config = uvicorn.Config(cast("Any", application), lifespan="off", log_config=None)
        config.load()
        settings = Settings(max_pending_bytes=1000, send_seconds=0)
        protocol = WebSocketProtocol(settings=settings, config=config, server_state=ServerState(), app_state={})
        transport = Transport()
        protocol.connection_made(transport)
        protocol.data_received(HANDSHAKE)
        await asyncio.wait_for(transport.wrote.wait(), TIMEOUT)
        transport.written = b""
        protocol.data_received(PINGS)
        answered = transport.written
        assert answered
        protocol.pause_writing()
        protocol.data_received(PINGS)
        assert transport.written == answered
        protocol.resume_writing()
        protocol.data_received(PINGS)
        assert len(transport.written) == 2 * len(answered)
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)

    asyncio.run(flood())


@pytest.mark.parametrize("deflate", [False, True])
def test_messages_are_compressed_only_where_a_setting_says_so(start: Start, deflate: bool) -> None:
    with start(deflate=deflate).connect(compression="deflate") as client:
        assert client.response is not None
        assert ("Sec-WebSocket-Extensions" in client.response.headers) is deflate
        assert say(client, "x" * 1000) == "x" * 1000


@pytest.mark.parametrize(
    ("trusted", "told"),
    [
        ("127.0.0.1", {"203.0.113.7": "203.0.113.7", "198.51.100.1, 203.0.113.7": "203.0.113.7"}),
        ("127.0.0.0/8,10.0.0.0/8", {"203.0.113.7, 10.1.2.3": "203.0.113.7", "nonsense, 10.1.2.3": "nonsense"}),
        ("10.0.0.0/8", {"203.0.113.7": "127.0.0.1"}),
        ("", {"203.0.113.7": "127.0.0.1"}),
    ],
)
def test_the_address_that_a_proxy_tells_is_believed_where_the_proxy_is_trusted(
    start: Start, trusted: str, told: dict[str, str]
) -> None:
    service = start(trusted_proxies=trusted)
    for forwarded, client in told.items():
        with service.connect(additional_headers=credentials() | {"X-Forwarded-For": forwarded}):
            assert service.wait_for("connection accepted")["client"] == client


def test_behind_a_proxy_each_client_has_its_own_count(start: Start) -> None:
    service = start(max_connections_per_address=1)
    ada, bob = (credentials() | {"X-Forwarded-For": address} for address in ("203.0.113.1", "203.0.113.2"))
    with service.connect(additional_headers=ada), service.connect(additional_headers=bob):
        with pytest.raises(InvalidStatus) as refused, service.connect(additional_headers=ada):
            pass
        assert refused.value.response.status_code == 429
        assert metric(service, 'websocket_rejected_total{reason="address"}') == 1


def test_the_health_checks_are_answered_in_a_full_service(start: Start) -> None:
    service = start(max_connections=3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(service.connect())
        for _ in range(5):
            with pytest.raises(InvalidStatus) as refused, service.connect():
                pass
            assert refused.value.response.status_code == 503
        assert [service.get(path)[0] for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
        assert metric(service, 'websocket_rejected_total{reason="full"}') == 5


def start_with_descriptors(soft: int, hard: int | None = None) -> Callable[..., subprocess.Popen[str]]:
    """Return a `Popen` whose process has a limit on its file descriptors."""
    import resource  # Windows has none

    limits = soft, hard or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return partial(subprocess.Popen, preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, limits))


def test_there_is_a_descriptor_for_each_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Popen", start_with_descriptors(64))
    service = start(**UNLIMITED)
    with ExitStack() as stack:
        for _ in range(100):
            open_and_read_nothing(service, stack)
        assert service.get("/health")[0] == 200


def open_tcp(service: Service, stack: ExitStack) -> socket.socket:
    host, _, port = service.address.partition(":")
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(TIMEOUT)
    client.connect((host, int(port)))
    return client


def read_all(client: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while data := client.recv(65536):
            answer += data
    return answer


POST = b"POST /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


def test_a_request_whose_body_comes_with_its_head_is_answered(start: Start) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(POST % 200_000 + b"x" * 200_000)
        assert read_all(client).startswith(b"HTTP/1.1 405 ")


def test_a_head_that_is_too_large_is_refused_though_it_comes_at_once(start: Start) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n")
        assert not read_all(client).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_does_not_come_ends_the_connection(start: Start) -> None:
    service = start(handshake_seconds=SHORT_TIMEOUT)
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(POST.replace(b"Connection: close\r\n", b"") % 200_000 + b"x")
        read_all(client)  # it ends


def test_empty_lines_after_a_request_do_not_keep_the_connection(start: Start) -> None:
    service = start(handshake_seconds=SHORT_TIMEOUT)
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"\r\n")
        read_all(client)  # it ends


def test_requests_that_are_sent_without_reading_an_answer_are_bounded(start: Start) -> None:
    service = start()
    with ExitStack() as stack:
        send_until_closed(open_tcp(service, stack), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HANDSHAKE], ids=["nothing", "half a head", "handshakes"])
def test_a_node_that_runs_out_of_descriptors_says_so_and_is_healthy(
    start: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(process, "Popen", start_with_descriptors(64, 64))
    service = start(**UNLIMITED)
    with ExitStack() as stack:
        for _ in range(100):
            with suppress(ConnectionError):
                open_tcp(service, stack).sendall(sent)
        for _ in range(3):
            assert service.get("/health")[0] == 200
        service.wait_for(
            "out of file descriptors: a handshake is rejected"
            if sent == HANDSHAKE
            else "too many TCP connections without a handshake"
        )


def test_an_address_has_so_many_tcp_connections_and_no_more(start: Start) -> None:
    service = start(max_connections_per_address=5, trusted_proxies="")
    with ExitStack() as stack:
        clients = [open_tcp(service, stack) for _ in range(6)]
        assert read_all(clients[-1]) == b""
        service.wait_for("too many TCP connections from an address")
        clients[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_all(clients[0]).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_on_a_socket_of_both_families_an_ipv4_address_is_written_as_one(start: Start) -> None:
    service = start(host="::", max_connections_per_address=2, trusted_proxies="127.0.0.1")
    port = int(service.address.rpartition(":")[2])
    with ExitStack() as stack:
        proxied = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)) for _ in "123"]
        proxied[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_all(proxied[-1]).startswith(b"HTTP/1.1 200")  # a trusted proxy has no limit
        proxied[0].sendall(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
        assert service.wait_for("handshake rejected")["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [([("Cookie", "a=" + "x" * 9000)], 431), ([("Origin", "http://xxx.example")] * 2, 400)],
)
def test_a_header_that_the_server_refuses_is_in_the_log_too(
    start: Start, headers: list[tuple[str, str]], status: int
) -> None:
    service = start()
    with pytest.raises(InvalidStatus) as refused, service.connect(additional_headers=headers):
        pass
    assert refused.value.response.status_code == status
    line = service.wait_for("handshake rejected")
    assert (line["reason"], line["status"]) == ("head", status)
    assert "xxx" not in str(line)


@pytest.mark.parametrize(
    ("right", "wrong", "status"),
    [
        (b"Version: 13", b"Version: 12", 400),
        (b"GET", b"POST", 405),
        (b"/ws/echo", b"/ws/echo?" + b"x" * 9000, 414),
        (b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: websocket", 426),
        (b"Version: 13", b"Version: 13\r\nSec-WebSocket-Protocol: bearer secret", 400),
        (b"Version: 13", b"Version: secret", 400),
    ],
)
def test_a_head_that_is_wrong_is_refused_with_its_status(start: Start, right: bytes, wrong: bytes, status: int) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(HANDSHAKE.replace(right, wrong))
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"secret" not in answer
    assert status == 414 or b"\r\nSec-WebSocket-Version: 13\r\n" in answer  # RFC 6455, 4.4
    line = service.wait_for("handshake rejected")
    assert (line["reason"], line["status"]) == ("head", status)


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_a_handshake_with_a_body_is_answered(start: Start, body: bytes) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(HANDSHAKE.removesuffix(b"\r\n") + body)
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
    line = service.wait_for("handshake rejected")
    assert (line["reason"], line["status"]) == ("head", 400)


def test_the_upgrade_is_found_in_any_of_several_headers_connection(start: Start) -> None:
    service = start()
    several = b"Connection: a\r\nConnection: keep-alive, Upgrade\r\nConnection: b"
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(HANDSHAKE.replace(b"Connection: Upgrade", several))
        assert client.recv(65536).startswith(b"HTTP/1.1 101 ")


def test_http_1_0_has_no_upgrade(start: Start) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert read_all(client).startswith(b"HTTP/1.1 426 ")
    line = service.wait_for("handshake rejected")
    assert line["reason"] == "upgrade"
    assert "proxy_http_version 1.1" in line["fix"]


@pytest.mark.parametrize("query", [b"", b"?a=http://b/c"])
def test_the_target_of_a_handshake_may_be_absolute(start: Start, query: bytes) -> None:
    service = start()
    with ExitStack() as stack:
        client = open_tcp(service, stack)
        client.sendall(HANDSHAKE.replace(b"/ws/echo", b"http://localhost:8000/ws/echo" + query))
        assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
        other = open_tcp(service, stack)
        other.sendall(HANDSHAKE.replace(b"/ws/echo", b"http://localhost:8000" + query))
        assert read_all(other).startswith(b"HTTP/1.1 404 ")
    assert service.wait_for("handshake rejected")["path"] == "/"


def test_under_the_prefix_of_a_proxy_everything_is_found(start: Start) -> None:
    service = start(root_path="/chat")
    assert service.get("/health")[0] == 200  # the proxy has stripped it
    with service.connect() as socket:
        socket.send('{"type":"say","text":"hi"}')
        assert json.loads(socket.recv(timeout=TIMEOUT))["text"] == "hi"
    status, page = service.get("/asyncapi")
    if status == 200:  # it was chosen
        assert "/chat/asyncapi/" in page
        assert '"/asyncapi' not in page


def test_every_address_is_that_of_both_families() -> None:
    with listen("::", 0) as listening:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listening.getsockname()[1]), timeout=TIMEOUT).close()
