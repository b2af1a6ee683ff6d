"""Whatever untrusted clients send, the process stays up, its memory flat, and healthy connections notice nothing."""

import json
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import socket
from threading import Thread
from time import monotonic
from typing import Any

import pytest
from websockets.frames import Opcode

from .service import MEBIBYTE, TIMEOUT, Service, Start, bystander, frame, handshake, read_close, read_frames, reset


@pytest.fixture(scope="module")
def service(probed: Path) -> Iterator[Service]:
    service = Service(probed, max_message_size=1000, max_connections=0)
    yield service
    service.stop()


def unmasked(data: bytes) -> bytes:
    return bytes([0x81, len(data)]) + data


BROKEN = {
    "unmasked": (unmasked(b"hi"), 1002),
    "reserved bit 1": (frame(b"hi", reserved=4), 1002),
    "reserved bit 2": (frame(b"hi", reserved=2), 1002),
    "reserved bit 3": (frame(b"hi", reserved=1), 1002),
    "reserved opcode": (frame(b"hi", 3), 1002),
    "reserved control opcode": (frame(b"hi", 11), 1002),
    "continuation of nothing": (frame(b"hi", Opcode.CONT), 1002),
    "new message inside a fragmented one": (frame(b"hi", fin=False) + frame(b"hi"), 1002),
    "fragmented ping": (frame(b"hi", Opcode.PING, fin=False), 1002),
    "ping too long": (frame(b"x" * 126, Opcode.PING), 1002),
    "close code of one byte": (frame(b"x", Opcode.CLOSE), 1002),
    "close code that may not be sent": (frame(b"\x03\xed", Opcode.CLOSE), 1002),
    "close reason not UTF-8": (frame(b"\x03\xe8\xff", Opcode.CLOSE), 1007),
    "text not UTF-8": (frame(b"\xff\xfe"), 1007),
    "text not UTF-8 over fragments": (frame(b"\xc3", fin=False) + frame(b"\x28", Opcode.CONT), 1007),
    "message too big": (frame(b"x" * 1001), 1009),
    "message too big, all of it sent": (frame(b"x" * MEBIBYTE), 1009),
    "message too big over fragments": (frame(b"x" * 999, fin=False) + frame(b"x" * 999, Opcode.CONT), 1009),
    "message too big behind others": (frame(b"who") * 50 + frame(b"x" * 1001), 1009),
    "length of 2^63 - 1": (b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"mask", 1009),
}


@pytest.mark.parametrize(("sent", "code"), BROKEN.values(), ids=BROKEN)
def test_a_broken_frame_is_answered_with_its_close_code(service: Service, sent: bytes, code: int) -> None:
    with bystander(service):
        before = service.look()
        service.log.clear()
        with service.open_raw() as client:
            client.sendall(sent)
            assert read_close(client) == code
        service.settles_at(before)
    reason = "limit_exceeded" if code == 1009 else "protocol_error"
    assert [(line["reason"], line["code"]) for line in service.happened("on_disconnect")] == [(reason, code)]
    assert service.complaints == []


@pytest.mark.parametrize("name", ["unmasked", "text not UTF-8", "message too big"])
def test_what_follows_a_broken_frame_is_not_read(service: Service, name: str) -> None:
    sent, code = BROKEN[name]
    before = service.look()
    service.log.clear()
    with service.open_raw() as client:
        client.sendall(sent)
        service.wait_for("on_disconnect")
        client.sendall(frame(b"hi", Opcode.PING) + frame(b"who") + frame(b"\xff") + unmasked(b"hi"))
        assert read_close(client) == code
    service.settles_at(before)
    assert len(service.happened("on_disconnect")) == 1
    assert service.complaints == []


def test_a_message_of_many_fragments_with_pings_between_is_one_message(service: Service) -> None:
    with service.open_raw() as client:
        client.sendall(frame(b"w", fin=False) + frame(b"?", Opcode.PING) + frame(b"ho", Opcode.CONT, fin=False))
        client.sendall(frame(b"", Opcode.CONT) + frame(b"\x03\xe8", Opcode.CLOSE))
        assert read_close(client) == 1000


def test_what_came_together_is_answered_in_order_and_at_once(service: Service) -> None:
    """The answers are written together; but no later than the handler waits, and before the close."""
    for last, code in ((b"busy 3600", None), (b"close 4000", 4000), (b"raise", 1011)):
        with service.open_raw() as client:
            client.sendall(frame(b"who") * 3 + frame(last) + frame(b"who") * 3)
            frames = read_frames(client)
            assert [next(frames)[1].split()[1] for _ in range(3)] == [b"1", b"2", b"3"]
            if code:
                opcode, payload = next(frames)
                assert (opcode, payload[:2]) == (Opcode.CLOSE, code.to_bytes(2, "big"))
                client.sendall(frame(payload, Opcode.CLOSE))
                assert list(frames) == []


HANDSHAKES = {
    "control character in the path": handshake("/probe/ws").replace(b"/ws", b"/ws\x00\x1b[31m"),
    "bytes beyond ASCII in the path": handshake("/probe/ws").replace(b"/ws", b"/ws\xff\xc3\xa9"),
    "escaped control characters in the path": handshake("/probe/ws%0d%0aSet-Cookie:%20a=b%00%1b"),
    "escaped bytes that are not UTF-8 in the query": handshake("/probe/ws?accept=%ff%00%0a"),
    "control character in a header": handshake("/probe/ws", b"X-A: a\x00b"),
    "bare carriage return in a header": handshake("/probe/ws", b"X-A: a\rX-B: b"),
    "bare line feed in a header": handshake("/probe/ws", b"X-A: a\nX-B: b"),
    "folded header": handshake("/probe/ws", b"X-A: a", b" b"),
    "space before the colon": handshake("/probe/ws", b"Content-Length : 5"),
    "bytes beyond ASCII in a header": handshake("/probe/ws", b"X-A: \xff\xc3\xa9"),
    "bytes beyond ASCII in the origin": handshake("/probe/ws", b"Origin: http://\xff\xc3\xa9"),
    "two hosts": handshake("/probe/ws", b"Host: other"),
    "two keys": handshake("/probe/ws", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    "length and chunks": handshake("/probe/ws", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "a body": handshake("/probe/ws", b"Content-Length: 5") + b"hello",
    "a frame before the answer": handshake("/probe/ws") + frame(b"who"),
    "a header line of 9000 bytes": handshake("/probe/ws", b"X-A: " + b"x" * 9000),
    "a path of 9000 bytes": handshake("/probe/ws?" + "x" * 9000),
    "200 headers": handshake("/probe/ws", *[b"X-A: b"] * 200),
    "a version that is none": handshake("/probe/ws").replace(b"Version: 13", b"Version: x"),
    "a key that is none": handshake("/probe/ws", b"Sec-WebSocket-Protocol: \x7f").replace(b"Key: ", b"Key: \x7f"),
    "no method": handshake("/probe/ws")[3:],
    "an absolute address": handshake("http://other/probe/ws"),
    "an asterisk": handshake("*"),
    "another upgrade": handshake("/probe/ws").replace(b"websocket", b"h2c"),
    "HTTP/1.0": handshake("/probe/ws").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("sent", HANDSHAKES.values(), ids=HANDSHAKES)
def test_a_smuggled_or_broken_handshake_is_answered_and_forgotten(service: Service, sent: bytes) -> None:
    with bystander(service):
        before = service.look()
        service.log.clear()
        with service.open_tcp() as client:
            client.sendall(sent)
            answer = client.recv(65536)
            assert not answer or answer.startswith(b"HTTP/1.1 ")
            assert b"cookie" not in answer.lower()
            with suppress(ConnectionError):
                client.sendall(b"more" * 10)  # what is sent after the answer
        service.settles_at(before)
    assert service.complaints == []
    assert not [
        line for line in service.log if any(ord(letter) < 32 for value in line.values() for letter in str(value))
    ]


def test_a_handshake_that_never_ends_is_closed(start: Start) -> None:
    service = start(handshake_seconds=1)
    with bystander(service):
        before = service.look()
        service.log.clear()
        clients = [service.open_tcp() for _ in range(100)]
        whole = handshake("/probe/ws")
        for number, client in enumerate(clients):
            with suppress(ConnectionError):  # a second may have passed already
                client.sendall(whole[: number % (len(whole) - 1)])
        for client in clients:
            with client, suppress(ConnectionError):
                while client.recv(65536):
                    pass
        service.settles_at(before)
    assert service.complaints == []


@pytest.mark.parametrize(
    "head", [b"GET /", b"GET / HTTP/1.1\r\nX-A: ", b"GET / HTTP/1.1\r\n"], ids=["path", "value", "headers"]
)
def test_a_handshake_without_end_fills_no_memory(service: Service, head: bytes) -> None:
    line = b"X-A: b\r\n" if head.endswith(b"\n") else b"x" * 8
    before, memory = service.look(), service.memory
    service.log.clear()
    with service.open_tcp() as client, suppress(ConnectionError):
        client.sendall(head)
        for _ in range(64):
            client.sendall(line * (MEBIBYTE // 8))
        pytest.fail("64 MiB of headers were taken")
    service.settles_at(before)
    assert service.memory - memory < 16 * MEBIBYTE
    assert service.complaints == []


def test_more_sockets_than_descriptors_leave_the_process_up(start: Start) -> None:
    service = start()
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with bystander(service):
        before = service.look()
        service.log.clear()
        with ExitStack() as clients:
            for _ in range(200):
                clients.enter_context(service.open_tcp()).sendall(handshake("/probe/ws"))
        service.settles_at(before)
    assert service.complaints == []


def random_bytes(source: random.Random) -> bytes:
    return source.randbytes(source.randrange(1, 300))


def random_frames(source: random.Random) -> bytes:
    """Frames that are nearly right: real headers with random bits, truncated and damaged here and there."""
    sent = bytearray()
    for _ in range(source.randrange(1, 6)):
        data = source.randbytes(source.choice([0, 1, 2, 125, 126, 400])) if source.random() < 0.5 else b"who"
        part = bytearray(frame(data, source.choice(list(Opcode)), fin=source.random() < 0.7))
        if source.random() < 0.3:
            part[source.randrange(len(part))] ^= 1 << source.randrange(8)
        sent += part
    return bytes(sent[: source.randrange(1, len(sent) + 1)])


def random_handshake(source: random.Random) -> bytes:
    sent = bytearray(handshake("/probe/ws?accept=x", b"Origin: http://service", b"X-A: b"))
    for _ in range(source.randrange(1, 6)):
        sent[source.randrange(len(sent))] = source.randrange(256)
    return bytes(sent)


FUZZERS = {"bytes": random_bytes, "frames": random_frames, "handshakes": random_handshake}


@pytest.mark.parametrize("fuzzer", FUZZERS.values(), ids=FUZZERS)
def test_random_wire_leaves_nothing_behind(service: Service, fuzzer: Callable[[random.Random], bytes]) -> None:
    source = random.Random(20260801)  # noqa: S311
    with bystander(service):
        before, memory = service.look(), service.memory
        service.log.clear()
        for _ in range(700):
            opens = service.open_tcp if fuzzer is random_handshake else service.open_raw
            with opens() as client, suppress(ConnectionError):
                client.sendall(fuzzer(source))
                if source.random() < 0.2:
                    reset(client)
        service.settles_at(before)
    assert service.complaints == []
    ids = [line["connection"] for line in service.happened("on_disconnect")]
    assert len(ids) == len(set(ids))
    assert len(ids) == len(service.happened("connection accepted"))
    assert service.memory - memory < 16 * MEBIBYTE


def random_json(source: random.Random, depth: int = 0) -> Any:
    match source.randrange(8 if depth < 4 else 5):
        case 0:
            return source.choice([None, True, False])
        case 1:
            return source.choice([0, -1, 2**63, -(2**70), 1e308, source.random()])
        case 2 | 3 | 4:
            return source.choice(["", "say", "type", "text", "\x00\u2028", "\ud7ff🚀", "x" * 50])
        case 5:
            return [random_json(source, depth + 1) for _ in range(source.randrange(4))]
        case _:
            names = ["type", "text", "connection", "count", "__class__", ""]
            return {source.choice(names): random_json(source, depth + 1) for _ in range(source.randrange(4))}


def read_until(connection: socket, text: bytes) -> None:
    tail = b""
    while text not in tail:
        tail = tail[-100:] + connection.recv(65536)


def test_100_000_messages_of_random_json_leave_the_memory_flat(start: Start) -> None:
    service = start(ping_interval=600, ping_timeout=5)
    source = random.Random(20260801)  # noqa: S311
    kinds = [json.dumps(random_json(source)).encode() for _ in range(1000)]
    kinds += [json.dumps({"type": "say", "text": random_json(source)}).encode() for _ in range(1000)]
    batch = b"".join(
        frame(source.choice(kinds) if number % 4 else b'{"type":"say","text":"hi"}') for number in range(10_000)
    )
    memories: list[int] = []
    with bystander(service), service.connect() as healthy, service.open_raw("/ws/echo") as client:
        before = service.look()
        reader = Thread(target=read_until, args=[client, b"the end"])
        reader.start()
        for _ in range(10):
            client.sendall(batch)
            began = monotonic()
            healthy.send("who")
            healthy.recv(timeout=TIMEOUT)
            assert monotonic() - began < 5, "so slow that its pings would fail"
            memories.append(service.memory)
        client.sendall(frame(b'{"type":"say","text":"the end"}'))
        reader.join(timeout=TIMEOUT)
        client.close()
        service.settles_at({name: count - 1 for name, count in before.items()})
    ended = next(line for line in service.happened("connection closed") if line["path"] == "/ws/echo")
    assert (ended["messages_received"], ended["messages_sent"]) == (100_001, 100_001)
    assert service.complaints == []
    assert max(memories) - memories[0] < 8 * MEBIBYTE
