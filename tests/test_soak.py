"""Everything at once, again and again, and nothing is left: `python -m benchmarks.soak` is the same for an hour."""

import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import NamedTuple

import pytest
from websockets.frames import Opcode

from .service import MEBIBYTE, Service, Start, frame, read_close, reset
from .test_faults import ABORTS
from .test_wire import FUZZERS, random_handshake

LIVELY: dict[str, object] = {"ping_interval": 1, "ping_timeout": 1, "max_connections": 0, "max_message_size": 1000}
"""Settings with which a peer that does not answer is found within seconds."""

MOST_PEERS = 50
"""Half-open peers at a time; some hundred a minute at this ping interval."""


class Reading(NamedTuple):
    """What a process holds when nobody is there."""

    cycles: int
    memory: int
    descriptors: int
    tasks: int


class Soak:
    """Clients that come, talk, misbehave and go, one after the other, beside some that only hold their socket."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._source = random.Random(20261121)  # noqa: S311
        self._peers: deque[socket] = deque()
        self.cycles = 0
        self.empty = service.look()
        self._acts: list[Callable[[], None]] = [self.abort] * 8 + [
            self.talk,
            self.visit,
            self.rubbish,
            self.fall_silent,
        ]

    def act(self) -> None:
        self._source.choice(self._acts)()
        self.cycles += 1

    def wait_until_stable(self) -> Reading:
        """Let all go; wait until the process holds what it held before; return that.

        Raises:
            AssertionError: It holds more, or something happened that should wake somebody.
        """
        while self._peers:
            self._peers.popleft().close()
        self._service.settles_at(self.empty)
        assert not self._service.complaints, self._service.complaints
        self._service.log.clear()
        return Reading(self.cycles, self._service.memory, self.empty["descriptors"], self.empty["tasks"])

    def abort(self) -> None:
        self._source.choice(ABORTS)(self._service)

    def talk(self) -> None:
        """Say something, receive the answers, and close."""
        with self._service.open_raw("/probe/text") as client:
            text = b"x" * self._source.randrange(2, 900)
            client.sendall(frame(text) * self._source.randrange(1, 20) + frame(b"\x03\xe8", Opcode.CLOSE))
            assert read_close(client) == 1000

    def visit(self) -> None:
        """Join a room, which may be new or known, say something there, and leave in some way."""
        room = self._source.choice([self._source.randrange(10), self._source.getrandbits(32)])
        with self._service.open_raw(f"/ws/rooms/{room}") as client:
            client.sendall(frame(b'{"type":"say","text":"hi"}') * self._source.randrange(3))
            if self._source.random() < 0.5:
                client.sendall(frame(b"", Opcode.CLOSE))
                assert read_close(client) is not None
            elif self._source.random() < 0.5:
                reset(client)

    def rubbish(self) -> None:
        fuzzer = self._source.choice(list(FUZZERS.values()))
        opens = self._service.open_tcp if fuzzer is random_handshake else self._service.open_raw
        with opens() as client, suppress(ConnectionError):
            client.sendall(fuzzer(self._source))

    def fall_silent(self) -> None:
        """Open and do nothing more, until the pings have found it or others have taken its place."""
        path = self._source.choice(["/probe/ws", "/ws/echo", "/ws/rooms/hall"])
        self._peers.append(self._service.open_raw(path))
        if len(self._peers) > MOST_PEERS:
            self._peers.popleft().close()


@pytest.mark.exhaustive
def test_nothing_is_left_of_any_mix(start: Start) -> None:
    soak = Soak(start(**LIVELY))
    memories: list[int] = []
    for _ in range(4):
        for _ in range(500):
            soak.act()
        memories.append(soak.wait_until_stable().memory)
    assert max(memories) - memories[0] < 4 * MEBIBYTE
