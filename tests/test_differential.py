"""The service's WebSocket protocol against uvicorn's own, from which it is made: the same bytes, the same outcome.

Whatever frames a client sends, right or wrong, the application receives what it receives on uvicorn's when each frame
comes by itself, and the client is answered the same. How the frames are split into segments makes no difference. On
uvicorn's own it does, and there ours differs on purpose:

- Messages with a bad frame behind them in one segment: uvicorn throws them away. Ours delivers them, and answers none.
- Two faults in one segment: uvicorn may name the second. Ours names the first.
- Text that is not UTF-8 with a close frame behind it in one segment: uvicorn raises, and so names none.

Frames that come before the application has accepted the handshake are answered behind it; uvicorn's own answers them
before it, or raises. And the end of a failed connection is other: uvicorn closes it at once, ours only its own side at
first, so that no reset overtakes the close frame. Both count as an end here. The event of a failure has no `reason`:
with one, the client has closed.
"""

import asyncio
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Opcode
from websockets.utils import apply_mask

from .rendering import environment
from .service import handshake

EXAMPLES = int(os.environ.get("EXAMPLES", "1500"))
"""How many are tried: the same in each run, or, where the environment names a number, ever new ones."""

SMALL, LARGE = 300, 70_000
"""The largest message: so that each size at which a length is written otherwise is on both sides of it."""

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12"
FAILURES = {1002, 1007, 1009}

Protocol = Callable[[Config], Any]


@dataclass(frozen=True)
class Sent:
    """A frame as it is put on the wire, every bit of it."""

    opcode: int = Opcode.TEXT
    data: bytes = b""
    fin: bool = True
    reserved: int = 0
    masked: bool = True
    width: int = 0
    """Bytes in which the length is written: 0, 2 or 8; the fewest that will do, where this is less."""
    lie: int = 0
    """Added to the length that is written."""

    @property
    def wire(self) -> bytes:
        length = len(self.data) + self.lie
        width = max(self.width, 0 if length < 126 else 2 if length < 1 << 16 else 8)
        head = bytes([self.fin << 7 | self.reserved << 4 | self.opcode])
        head += bytes([self.masked << 7 | {2: 126, 8: 127}.get(width, length)])
        if width:
            head += length.to_bytes(width, "big")
        mask = b"\x11\xa2\xc3\x54"
        return head + (mask + apply_mask(self.data, mask) if self.masked else self.data)


class Transport(asyncio.Transport):
    """What was written, and how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.paused = self.closed = self.half_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.half_closed or not data, "a write after the end"
        if not self.closed:
            self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class Outcome(NamedTuple):
    messages: list[str]
    """What the application received, type and all."""
    close: str
    """The event with which it learned of the end."""
    answered: list[bytes]
    """The frames that the client got."""
    ended: bool
    """The server ended the connection before the client did."""
    raised: str
    """What the server lost itself in."""


async def play(
    protocol: Protocol, segments: Sequence[bytes], *, max_size: int = SMALL, deflate: bool = False, early: int = 0
) -> Outcome:
    """Connect, send the segments, each when the application has read the one before, then disconnect.

    Args:
        early: The number of segments that come before the application has accepted the handshake.
    """
    received: list[Any] = []
    accepting = asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await accepting.wait()
        await send({"type": "websocket.accept"})
        while not received or received[-1]["type"] == "websocket.receive":
            received.append(await receive())
            with suppress(OSError, RuntimeError):  # it may have ended meanwhile
                await send(received[-1] | {"type": "websocket.send"})

    config = Config(app, interface="asgi3", log_config=None, ws_max_size=max_size, ws_per_message_deflate=deflate)
    config.loaded_app, config.loaded = app, True
    socket, transport, raised = protocol(config), Transport(), ""
    socket.connection_made(transport)
    socket.data_received(handshake("/", *[DEFLATE] * deflate))
    for number, segment in enumerate(segments):
        if number == early or transport.paused:
            accepting.set()
            await turn()
        if transport.closed or raised:
            break
        assert not transport.paused, "the application waits, and nothing is read"
        try:
            socket.data_received(segment)
        except Exception as error:  # noqa: BLE001
            raised = repr(error)
        await turn()
    accepting.set()
    await turn()
    ended = transport.closed or transport.half_closed
    head, _, written = bytes(transport.written).partition(b"\r\n\r\n")
    assert (b"permessage-deflate" in head) == deflate
    socket.connection_lost(None)
    await asyncio.gather(*socket.tasks)
    if socket.close_timer:
        socket.close_timer.cancel()
    *messages, close = received
    if close["code"] in FAILURES:
        close.pop("reason", None)
    return Outcome([repr(message) for message in messages], repr(close), apart(written), ended, raised)


async def turn() -> None:
    """Let the application do all that it can."""
    for _ in range(4):
        await asyncio.sleep(0)


def apart(wire: bytes) -> list[bytes]:
    """Split into frames, as a parser does; the last may be incomplete."""
    cuts = [0]
    while (at := cuts[-1]) < len(wire):
        second = int.from_bytes(wire[at + 1 : at + 2], "big")
        width = {126: 2, 127: 8}.get(second & 0x7F, 0)
        length = int.from_bytes(wire[at + 2 : at + 2 + width], "big") if width else second & 0x7F
        cuts.append(at + 2 + width + (second >> 7) * 4 + length)
    return [wire[begin:end] for begin, end in pairwise(cuts)]


def controls(outcome: Outcome) -> list[bytes]:
    return [frame for frame in outcome.answered if frame[0] & 0x0F >= Opcode.CLOSE]


def messages(outcome: Outcome) -> list[bytes]:
    return [frame for frame in outcome.answered if frame[0] & 0x0F < Opcode.CLOSE]


@pytest.fixture(scope="module")
def ours(default_project: Path) -> Iterator[Protocol]:
    """The protocol of the service, as it is rendered."""
    with pytest.MonkeyPatch.context() as patch:
        for path in reversed(environment(default_project)["PYTHONPATH"].split(os.pathsep)):
            patch.syspath_prepend(path)
        patch.setattr(logging.getLogger("uvicorn.error"), "disabled", True)
        module = import_module("my_service.realtime.server.websocket_protocol")
        settings = import_module("my_service.settings").Settings()
        yield lambda config: module.WebSocketProtocol(
            config=config, server_state=ServerState(), app_state={}, settings=settings
        )
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_service"]:
            del sys.modules[name]


def stock(config: Config) -> WebSocketsSansIOProtocol:
    return WebSocketsSansIOProtocol(config=config, server_state=ServerState(), app_state={})


def split(wire: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Split into segments of these sizes, over and over, but into some hundreds at most."""
    segments: list[bytes] = []
    at = 0
    for size in islice(cycle(sizes), 400):
        segments.append(wire[at : at + size])
        at += size
    return [segment for segment in [*segments, wire[at:]] if segment]


TEXTS = st.sampled_from(["", "a", "é", "€uro", "🚀", "\ud7ff\ue000", "\U0010ffff"]).map(str.encode)
NOT_UTF_8 = st.sampled_from(
    [b"\xff", b"\xc3", b"a\x80", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"ok\xe2\x82"]
)
SIZES = st.sampled_from([0, 1, 124, 125, 126, 127, 128, SMALL - 1, SMALL, SMALL + 1, 65535, 65536, LARGE, LARGE + 1])
DATA = st.one_of(TEXTS, NOT_UTF_8, SIZES.map(lambda size: b"x" * size), st.binary(max_size=12))
CODES = st.sampled_from([0, 999, *range(1000, 1017), 1100, 2999, 3000, 3999, 4000, 4999, 5000, 65535])
CLOSES = st.one_of(
    st.just(b""), st.just(b"x"), st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, CODES, DATA)
)
PINGS = st.one_of(st.binary(max_size=4), st.sampled_from([b"x" * 125, b"x" * 126]))
CONTROLS = st.one_of(
    st.builds(Sent, st.sampled_from([Opcode.PING, Opcode.PONG]), PINGS), st.builds(Sent, st.just(Opcode.CLOSE), CLOSES)
)
KINDS = st.sampled_from([Opcode.TEXT, Opcode.BINARY])
WHOLE = st.builds(Sent, KINDS, DATA, width=st.sampled_from([0, 0, 0, 2, 8]))
FAULTY = st.one_of(
    st.builds(Sent, KINDS, DATA, reserved=st.integers(1, 7)),
    st.builds(Sent, KINDS, DATA, masked=st.just(False)),
    st.builds(Sent, KINDS, DATA, fin=st.just(False)),
    st.builds(Sent, KINDS, DATA, lie=st.sampled_from([1, 1 << 32, 1 << 62, 1 << 63])),
    st.builds(Sent, st.integers(0, 15), DATA, fin=st.booleans()),
)
"""One bit that is not as it should be, or a message that has no end."""


@st.composite
def fragmented(draw: st.DrawFn) -> list[Sent]:
    """A message in fragments, split anywhere, with control frames between, and now and then what may not be there."""
    data = b"".join(draw(st.lists(DATA, max_size=3)))
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    parts = [data[begin:end] for begin, end in pairwise([0, *places, len(data)])]
    sent = [Sent(draw(KINDS), parts[0], fin=len(parts) == 1)]
    for number, part in enumerate(parts[1:], 2):
        sent += draw(st.lists(st.one_of(CONTROLS, CONTROLS, WHOLE), max_size=1))
        sent.append(Sent(Opcode.CONT, part, fin=number == len(parts)))
    return sent


def one(frame: st.SearchStrategy[Sent]) -> st.SearchStrategy[list[Sent]]:
    return st.lists(frame, min_size=1, max_size=1)


SENT = st.lists(st.one_of(one(WHOLE), one(WHOLE), one(CONTROLS), fragmented(), one(FAULTY)), max_size=6).map(
    lambda groups: list(chain.from_iterable(groups))
)
CUTS = st.lists(st.integers(1, 200), max_size=4)


def deflated(sent: Sequence[Sent], which: Sequence[bool]) -> list[Sent]:
    """Compress some of the whole messages, as a client does: with one window for all."""
    compressor = zlib.compressobj(wbits=-12)
    chosen = cycle(which or [False])

    def deflate(each: Sent) -> Sent:
        if not (next(chosen) and each.fin and not each.reserved and each.opcode in {Opcode.TEXT, Opcode.BINARY}):
            return each
        data = compressor.compress(each.data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return replace(each, data=data[:-4], reserved=4)

    return [deflate(each) for each in sent]


def compare(ours: Protocol, sent: Sequence[Sent], cuts: Sequence[int], early: int = 0, **options: Any) -> None:
    wire = b"".join(each.wire for each in sent)

    async def outcomes() -> list[Outcome]:
        plays = [(ours, split(wire, cuts), early), (stock, split(wire, cuts), 0), (stock, apart(wire), 0)]
        return [await play(protocol, segments, early=early, **options) for protocol, segments, early in plays]

    with asyncio.Runner() as runner:
        found, together, alone = runner.run(outcomes())
    assert not found.raised
    assert (found.messages, found.close, found.ended) == (alone.messages, alone.close, alone.ended)
    assert controls(found) == controls(alone)
    assert messages(found) == messages(alone)[: len(messages(found)) if found.ended else None]
    if sorted(found.answered) == sorted(together.answered):
        assert found.answered == together.answered  # the order in which a pong and an answer go out


HYPOTHESIS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],  # while other tests run
)


@HYPOTHESIS
@given(sent=SENT, cuts=CUTS, max_size=st.sampled_from([SMALL, LARGE]))
def test_the_outcome_is_that_of_uvicorn(ours: Protocol, sent: list[Sent], cuts: list[int], max_size: int) -> None:
    compare(ours, sent, cuts, max_size=max_size)


@settings(HYPOTHESIS, max_examples=EXAMPLES // 4)
@given(sent=SENT, which=st.lists(st.booleans(), max_size=4), cuts=CUTS)
def test_the_outcome_is_that_of_uvicorn_with_deflate(
    ours: Protocol, sent: list[Sent], which: list[bool], cuts: list[int]
) -> None:
    compare(ours, deflated(sent, which), cuts, deflate=True)


def test_text_that_is_not_utf_8_is_1007_whatever_is_behind_it(ours: Protocol) -> None:
    wire = Sent(data=b"\xff").wire + Sent(Opcode.CLOSE, b"\x03\xe8").wire
    found = asyncio.run(play(ours, [wire]))
    assert found.answered == [b"\x88\x02\x03\xef"]
    assert not found.raised


@settings(HYPOTHESIS, max_examples=EXAMPLES // 4)
@given(sent=SENT, cuts=CUTS, early=st.integers(1, 3))
def test_frames_that_come_before_the_accept_wait_for_it(
    ours: Protocol, sent: list[Sent], cuts: list[int], early: int
) -> None:
    compare(ours, sent, cuts, early=early)
