"""The wire is that of RFC 6455 and RFC 7692: Autobahn's cases, and what they leave out, against the running service.

The cases are the files of the Autobahn test suite itself; `kosoku` runs them on a Python of today. What the parser of
`websockets` does and Autobahn does not ask for stands in a table, in which no answer may change by accident either.
"""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY

import pytest
from websockets.frames import Opcode

from .service import MEBIBYTE, Service, frame, handshake, running

LIMIT = 16 * MEBIBYTE
"""The largest message of the cases."""

CONTENT = ("OK", "OK")
UNFUSSY = ("NON-STRICT", "OK")
OPEN = ("INFORMATIONAL", "INFORMATIONAL")
KNOWN = {
    # Where one segment brings a good message and a bad frame, the first need not be answered.
    **dict.fromkeys(["3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"], UNFUSSY),
    # UTF-8 is checked when the message is whole; that may be done sooner.
    **dict.fromkeys(["6.4.1", "6.4.2", "6.4.3", "6.4.4"], UNFUSSY),
    # The RFC leaves it open.
    **dict.fromkeys(["7.1.6", "7.13.1", "7.13.2"], OPEN),
    # A close inside a fragmented message: `websockets` answers 1002, Autobahn wants the close sent back.
    "7.1.5": ("FAILED", "WRONG CODE"),
}
"""The verdicts on messages and close that may be other than OK; uvicorn's own protocol has them too. Where the client's
frames come in two segments by chance, the same cases are OK.
"""

SHORT = ["1", "11"]  # of the 18 cases of each kind, which differ in size: 16 bytes, and 8192 in fragments
CASES = {
    "text": ("/probe/text", False, ["1.1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]),
    "binary": ("/probe/bytes", False, ["1.2.*"]),
    "large text": ("/probe/text", False, ["9.1.*", "9.3.*", "9.5.*", "9.7.*"]),
    "large binary": ("/probe/bytes", False, ["9.2.*", "9.4.*", "9.6.*", "9.8.*"]),
    "plain text where deflate is on": ("/probe/text", True, ["1.1.*", "2.*", "3.*", "4.*", "5.*", "6.2.*", "7.*"]),
    "deflated text": ("/probe/text", True, [f"{kind}.{size}" for kind in ("12.1", "12.4") for size in SHORT]),
    "deflated binary": ("/probe/bytes", True, [f"12.2.{size}" for size in SHORT]),
    "ways to deflate": ("/probe/text", True, [f"13.{way}.{size}" for way in range(1, 8) for size in SHORT]),
}


@pytest.fixture(scope="module")
def services(probed: Path) -> Iterator[dict[bool, Service]]:
    """One that compresses nothing, and one with deflate."""
    lifted = dict.fromkeys(("max_connections", "max_frames_per_second"), 0)
    with (
        running(probed, max_message_size=LIMIT, **lifted) as plain,
        running(probed, max_message_size=LIMIT, **lifted, deflate=True) as deflating,
    ):
        yield {False: plain, True: deflating}


@pytest.mark.parametrize(("path", "deflate", "cases"), CASES.values(), ids=CASES)
def test_autobahn_is_content(
    services: dict[bool, Service], tmp_path: Path, path: str, deflate: bool, cases: list[str]
) -> None:
    service = services[deflate]
    command = [str(Path(sys.executable).with_name("kosoku")), service.url(path), "-p", "4", "-o", str(tmp_path)]
    chosen = [argument for case in cases for argument in ("-i", case)]
    subprocess.run([*command, *chosen], cwd=tmp_path, capture_output=True, timeout=240, check=False)
    (results,) = json.loads((tmp_path / "index.json").read_text()).values()
    verdicts = {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}
    assert len(verdicts) >= len(cases)
    assert {case: verdict for case, verdict in verdicts.items() if verdict not in {CONTENT, KNOWN.get(case)}} == {}
    service.look()  # reads the log
    assert service.complaints == []


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(b"" if code is None else struct.pack("!H", code) + reason, Opcode.CLOSE)


def of_length(data: bytes, head: str) -> bytes:
    """Write a text frame whose length is written as told, with a mask that changes nothing."""
    return b"\x81" + bytes.fromhex(head) + b"\0\0\0\0" + data


def deflated(data: bytes) -> bytes:
    """Compress one message (RFC 7692, 7.2.1)."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


Received = list[tuple[int, bytes]]
"""The frames that the service sends, each as opcode and payload; of a close frame the code alone."""

HI: Received = [(Opcode.TEXT, b"hi")]


def ended(code: int) -> Received:
    return [(Opcode.CLOSE, struct.pack("!H", code))]


LARGEST = 1000
"""The largest message in the cases below."""

WIRE: dict[str, tuple[bytes, Received]] = {
    # RFC 6455, 5.2: the length should be written as short as it can be; who does not is understood.
    "5.2 a short length in 16 bits": (of_length(b"hi", "fe 0002"), HI),
    "5.2 a short length in 64 bits": (of_length(b"hi", "ff 0000000000000002"), HI),
    "5.2 no length in 64 bits": (of_length(b"", "ff 0000000000000000"), [(Opcode.TEXT, b"")]),
    "5.2 a length with its first bit set": (of_length(b"hi", "ff 8000000000000002"), ended(1009)),
    "5.2 the largest length there is": (of_length(b"hi", "ff 7fffffffffffffff"), ended(1009)),
    "5.1 not masked": (b"\x81\x02hi", ended(1002)),
    "5.1 not masked, behind one that is": (frame(b"hi") + b"\x81\x02hi", HI + ended(1002)),
    "5.1 a ping that is not masked": (b"\x89\x00", ended(1002)),
    # 5.4
    "5.4 a message inside another": (frame(b"h", fin=False) + frame(b"hi"), ended(1002)),
    "5.4 an empty message in many fragments": (
        frame(b"", fin=False) + frame(b"", Opcode.CONT, fin=False) * 50 + frame(b"", Opcode.CONT),
        [(Opcode.TEXT, b"")],
    ),
    "5.4 a code point over three fragments": (
        frame(b"\xe2", fin=False) + frame(b"\x82", Opcode.CONT, fin=False) + frame(b"\xac", Opcode.CONT),
        [(Opcode.TEXT, b"\xe2\x82\xac")],
    ),
    "5.4 a whole message behind one in fragments": (
        frame(b"h", fin=False) + frame(b"i", Opcode.CONT) + frame(b"hi"),
        HI * 2,
    ),
    # 5.5
    "5.5.1 a close inside a message": (frame(b"h", fin=False) + close(1000), ended(1002)),
    "5.5.1 a message behind a close": (close(1000) + frame(b"hi"), ended(1000)),
    "5.5.1 a ping behind a close": (close(1000) + frame(b"hi", Opcode.PING), ended(1000)),
    "5.5.1 two closes": (close(1000) + close(1001), ended(1000)),
    "5.5.1 rubbish behind a close": (close(1000) + b"\xff" * 20, ended(1000)),
    "5.5.3 a pong that nobody asked for": (frame(b"hi", Opcode.PONG) + frame(b"hi"), HI),
    "5.5.2 a ping between two messages": (
        frame(b"hi") + frame(b"?", Opcode.PING) + frame(b"hi"),
        [*HI, (Opcode.PONG, b"?"), *HI],
    ),
    # 7.4
    "7.4.1 1012": (close(1012), ended(1012)),
    "7.4.1 1013": (close(1013), ended(1013)),
    "7.4.1 1014": (close(1014), ended(1014)),
    "7.4.1 1015": (close(1015), ended(1002)),
    "7.1.6 a reason cut inside a code point": (close(1000, b"\xe2\x82"), ended(1007)),
    # 8.1
    "8.1 not UTF-8 in the last byte": (frame(b"x" * (LARGEST - 1) + b"\xe2"), ended(1007)),
    "8.1 not UTF-8, with a ping behind it": (frame(b"\xff") + frame(b"", Opcode.PING), ended(1007)),
    "8.1 not UTF-8, with a close behind it": (frame(b"\xff") + close(1000), ended(1007)),
    # 10.4
    "10.4 the largest message": (frame(b"x" * LARGEST), [(Opcode.TEXT, b"x" * LARGEST)]),
    "10.4 one byte more": (frame(b"x" * (LARGEST + 1)), ended(1009)),
    "10.4 the largest message in fragments": (
        frame(b"x" * 600, fin=False) + frame(b"x" * (LARGEST - 600), Opcode.CONT),
        [(Opcode.TEXT, b"x" * LARGEST)],
    ),
    "10.4 one byte more in fragments": (
        frame(b"x" * 600, fin=False) + frame(b"x" * (LARGEST - 599), Opcode.CONT),
        ended(1009),
    ),
    "10.4 the largest again and again": (frame(b"x" * LARGEST) * 20, [(Opcode.TEXT, b"x" * LARGEST)] * 20),
    "a thousand messages": (frame(b"hi") * 1000, HI * 1000),
}
DEFLATED: dict[str, tuple[bytes, Received]] = {
    # RFC 7692, 6
    "6.1 compressed": (frame(deflated(b"hi"), reserved=4), HI),
    "6.1 not compressed": (frame(b"hi"), HI),
    "6.1 compressed, in fragments": (
        frame(deflated(b"hi")[:2], reserved=4, fin=False) + frame(deflated(b"hi")[2:], Opcode.CONT),
        HI,
    ),
    "6.1 a continuation that says it is compressed": (
        frame(deflated(b"hi")[:2], reserved=4, fin=False) + frame(deflated(b"hi")[2:], Opcode.CONT, reserved=4),
        ended(1002),
    ),
    "6.1 a ping that says it is compressed": (frame(b"hi", Opcode.PING, reserved=4), ended(1002)),
    "6 another reserved bit": (frame(deflated(b"hi"), reserved=6), ended(1002)),
    "7.2.2 no deflate at all": (frame(b"\xff" * 20, reserved=4), ended(1002)),
    "7.2.2 not UTF-8 when it is unpacked": (frame(deflated(b"\xff"), reserved=4), ended(1007)),
    "7.2.2 the largest message": (
        frame(deflated(b"x" * LARGEST), reserved=4),
        [(Opcode.TEXT, b"x" * LARGEST)],
    ),
    "7.2.2 one byte more": (frame(deflated(b"x" * (LARGEST + 1)), reserved=4), ended(1009)),
    "a bomb": (frame(deflated(b"x" * (LARGEST * 500)), reserved=4), ended(1009)),
}


@pytest.fixture(scope="module")
def small(probed: Path) -> Iterator[Service]:
    with running(probed, max_message_size=LARGEST, max_connections=0, max_frames_per_second=0, deflate=True) as service:
        yield service


def exchange(service: Service, sent: bytes, size: int, expected: Received, *headers: bytes) -> Received:
    """Send in pieces of this size; when as much as is expected has come, close; return all that has come."""
    received: Received = []
    with service.open_tcp() as client:
        client.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        client.sendall(handshake("/probe/text", *headers))
        unpack = zlib.decompressobj(wbits=-12).decompress
        with client.makefile("rb") as answer:
            head = b"".join(iter(answer.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert (b"permessage-deflate" in head) == bool(headers)
            with suppress(ConnectionError):  # it has failed, and need not read the rest
                for at in range(0, len(sent), size):
                    client.sendall(sent[at : at + size])
            while first := answer.read(2):
                length = int.from_bytes(answer.read(2), "big") if first[1] == 126 else first[1]
                payload = answer.read(length)
                if first[0] & 0x40:
                    payload = unpack(payload + b"\0\0\xff\xff")
                opcode = Opcode(first[0] & 0x0F)
                received.append((opcode, payload[:2] if opcode == Opcode.CLOSE else payload))
                if len(received) == len(expected) and expected[-1][0] != Opcode.CLOSE:
                    client.sendall(close(1000))
    return received


def check(service: Service, sent: bytes, expected: Received, *headers: bytes) -> None:
    before = service.look()
    service.log.clear()
    fails = expected[-1][0] == Opcode.CLOSE
    closes = sent[0] == 0x80 | Opcode.CLOSE  # what comes later than the answer to a close is answered by a reset
    for size in (len(sent),) if closes else (len(sent), 7, 1):
        received = exchange(service, sent, size, expected, *headers)
        wanted = expected if fails else expected + ended(1000)
        messages, controls = ([each for each in received if (each[0] < Opcode.CLOSE) is data] for data in (True, False))
        assert controls == [each for each in wanted if each[0] >= Opcode.CLOSE]
        answers = [each for each in wanted if each[0] < Opcode.CLOSE]
        assert messages == (answers[: len(messages)] if fails else answers)  # the last answers find it closed
    service.settles_at(before)
    assert service.complaints == []


@pytest.mark.parametrize(("sent", "expected"), WIRE.values(), ids=WIRE)
def test_each_frame_has_its_answer(small: Service, sent: bytes, expected: Received) -> None:
    check(small, sent, expected)


@pytest.mark.parametrize(("sent", "expected"), DEFLATED.values(), ids=DEFLATED)
def test_each_compressed_frame_has_its_answer(small: Service, sent: bytes, expected: Received) -> None:
    check(small, sent, expected, b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12")
