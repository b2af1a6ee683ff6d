"""The load generator: small clients on one loop, whose frames are made and masked before anything is measured."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from time import perf_counter
from typing import Any

from websockets.frames import Opcode

from tests.service import frame, handshake

from .servers import DEFLATE, TIMEOUT, Peer, Server, path_of

TEXT = "What one says, all in the room receive; this is a message of usual size."
CLOSE = frame(b"\x03\xe8", Opcode.CLOSE)
CONNECTIONS = 64
AT_ONCE = 100
"""Handshakes that are under way at the same time."""

ENDLESS = 10**9
"""The length of a stream that does not end while it is measured."""


def say(peer: Peer, text: str = TEXT) -> bytes:
    """Make the frame in which a client says something."""
    return frame((peer.subprotocol.say % json.dumps(text)).encode())


class Client(asyncio.Protocol):
    """One WebSocket. It answers pings, and counts the frames in which something was said."""

    transport: asyncio.Transport

    def __init__(self, peer: Peer, path: str, awaited: bytes = b'"said"') -> None:
        self._subprotocol = peer.subprotocol
        self._request = handshake(path, *peer.headers)
        self._said = b"" if DEFLATE in peer.headers else awaited  # what is compressed is not looked into
        self._rest = b""
        self.on_said: Callable[[int], object] = int
        """Called with the number of messages that came, each time that some came."""
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("closed in the handshake"))
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if self._request:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = data
                return
            self._begin(head)
            data = rest
        said = at = 0
        while at + 2 <= len(data):
            length, start = data[at + 1], at + 2
            if length > 125:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start])
            end_of_frame = start + length
            if end_of_frame > len(data):
                break
            opcode = data[at] & 15
            if opcode in (Opcode.TEXT, Opcode.BINARY) and data.find(self._said, start, end_of_frame) >= 0:
                said += 1
            else:
                self._answer(opcode, data[start:end_of_frame])
            at = end_of_frame
        self._rest = data[at:]
        if said:
            self.on_said(said)

    def _begin(self, head: bytes) -> None:
        self._request = b""
        if not head.startswith(b"HTTP/1.1 101"):
            self.opened.set_exception(ConnectionError(head.decode()))
        elif not self._subprotocol.ready:
            self.opened.set_result(None)

    def _answer(self, opcode: int, data: bytes) -> None:
        if opcode == Opcode.PING:
            self.transport.write(frame(data, Opcode.PONG))
        elif not self.opened.done() and data.startswith(self._subprotocol.ready):
            self.opened.set_result(None)
        else:
            for asked, reply in self._subprotocol.replies.items():
                if data.startswith(asked):
                    self.transport.write(frame(reply.encode()))

    async def close(self) -> None:
        """Close with 1000, and wait until the server has closed, too."""
        self.transport.write(CLOSE)
        await self.closed


async def connect(
    server: Server,
    room: str = "",
    *,
    path: str = "",
    awaited: bytes = b'"said"',
    receive_buffer: int = 0,
    address: str = "",
) -> Client:
    """Open a WebSocket.

    Args:
        room: The name of a room; without one, it is the path that is measured.
        path: Another path.
        awaited: What the frames contain that are counted.
        receive_buffer: Bytes that the system keeps of what the client does not read; 0 is its default.
        address: Of the loopback, from which to connect.
    """
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if address:
        connection.bind((address, 0))
    await loop.sock_connect(connection, ("127.0.0.1", server.port))
    path = path or path_of(server.peer, room)
    _, client = await loop.create_connection(lambda: Client(server.peer, path, awaited), sock=connection)
    await client.opened
    return client


@asynccontextmanager
async def connected(server: Server, count: int, room: str = "", addresses: int = 0) -> AsyncGenerator[list[Client]]:
    """Open so many WebSockets, from so many addresses if there are any, and abort them in the end."""
    sources = [f"127.1.{number >> 8}.{number & 255}" for number in range(1, addresses + 1)] or [""]
    clients: list[Client] = []
    try:
        while (opened := len(clients)) < count:
            async with asyncio.timeout(TIMEOUT):
                batch = range(opened, min(count, opened + AT_ONCE))
                more = [connect(server, room, address=sources[number % len(sources)]) for number in batch]
                clients += await asyncio.gather(*more)
        yield clients
    finally:
        for client in clients:
            client.transport.abort()


@dataclass(frozen=True)
class Sample:
    """What one round measured."""

    cost: float
    """µs of the server's CPU for each message, delivery or cycle; KiB of its memory for each connection."""
    p50: float = 0
    p99: float = 0
    """Latency in ms."""


def sample(seconds: float, count: int, latencies: list[float]) -> Sample:
    percentiles = quantiles(latencies, n=100)
    return Sample(seconds / count * 1e6, percentiles[49] * 1e3, percentiles[98] * 1e3)


class Talker:
    """Says `window` messages, and one more for each that is answered."""

    def __init__(self, client: Client, words: bytes, window: int, latencies: list[float]) -> None:
        self._words = [words * count for count in range(window + 1)]
        self._transport = client.transport
        self._sent = deque([perf_counter()] * window)
        self._latencies = latencies
        self._finished: asyncio.Future[None] | None = None
        self.received = 0
        client.on_said = self._receive
        self._transport.write(self._words[window])

    def _receive(self, count: int) -> None:
        now = perf_counter()
        self.received += count
        for _ in range(count):
            self._latencies.append(now - self._sent.popleft())
        if not self._finished:
            self._sent.extend([now] * count)
            self._transport.write(self._words[count])
        elif not self._sent:
            self._finished.set_result(None)

    async def finish(self) -> None:
        """Say no more, and wait for the answers that are on their way: no server then fails to send them."""
        self._finished = asyncio.get_running_loop().create_future()
        await self._finished


async def talk(server: Server, clients: list[Client], window: int, seconds: float) -> Sample:
    """Let all talk for a while, each with so many messages on their way."""
    latencies: list[float] = []
    talkers = [Talker(client, say(server.peer), window, latencies) for client in clients]
    await asyncio.sleep(seconds / 5)
    latencies.clear()
    before, used = sum(talker.received for talker in talkers), server.cpu
    await asyncio.sleep(seconds)
    count, used = sum(talker.received for talker in talkers) - before, server.cpu - used
    taken = sample(used, count, latencies)
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*[talker.finish() for talker in talkers])
    return taken


async def echo(server: Server, *windows: int, connections: int = CONNECTIONS, seconds: float) -> list[Sample]:
    """Let some connections talk: a sample for each window."""
    samples: list[Sample] = []
    for window in windows:
        async with connected(server, connections) as clients:
            samples.append(await talk(server, clients, window, seconds))
    return samples


async def ask(client: Client, words: bytes) -> float:
    """Say something, and wait until it is answered; return the seconds that it took."""
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    client.on_said = answered.set_result
    began = perf_counter()
    client.transport.write(words)
    await answered
    return perf_counter() - began


async def churn(server: Server, seconds: float) -> list[Sample]:
    """Connect, say something, receive the answer, close, for a while."""
    words = say(server.peer)
    latencies: list[float] = []
    end = perf_counter() + seconds

    async def come_and_go() -> None:
        while (began := perf_counter()) < end:
            client = await connect(server)
            await ask(client, words)
            await client.close()
            latencies.append(perf_counter() - began)

    used = server.cpu
    async with asyncio.timeout(seconds + TIMEOUT):
        await asyncio.gather(*[come_and_go() for _ in range(16)])
    return [sample(server.cpu - used, len(latencies), latencies)]


async def idle(server: Server, count: int) -> list[Sample]:
    """Open connections that say something once; sample the KiB of the server for each."""

    async def greet(clients: list[Client]) -> None:
        async with asyncio.timeout(TIMEOUT):
            for client in clients:
                await ask(client, say(server.peer))

    async with connected(server, count // 2) as first:  # they fill what the start has left free
        await greet(first)
        before = server.memory
        async with connected(server, count) as many:
            await greet(many)
            return [Sample((server.memory - before) / count / 1024)]


class StreamClient:
    """Asks for a stream, and for the next when it has received all of it."""

    def __init__(self, client: Client, peer: Peer, length: int) -> None:
        self._requests = cycle([ask_stream(peer, length, ref) for ref in (1, 2)])  # the first may not have ended yet
        self._transport = client.transport
        self._length = self._missing = length
        self.received = 0
        client.on_said = self._receive
        self._transport.write(next(self._requests))

    def _receive(self, count: int) -> None:
        self.received += count
        self._missing -= count
        if not self._missing:
            self._missing = self._length
            self._transport.write(next(self._requests))


def ask_stream(peer: Peer, length: int, ref: int = 1) -> bytes:
    """Make the frame in which a client asks for a stream of so many messages."""
    return frame((peer.subprotocol.stream % {"length": length, "ref": ref}).encode())


async def stream(server: Server, length: int, seconds: float) -> list[Sample]:
    """Let some connections receive streams, one after the other; sample the CPU for each message."""
    async with connected(server, CONNECTIONS) as clients:
        readers = [StreamClient(client, server.peer, length) for client in clients]
        await asyncio.sleep(seconds / 5)
        before, used = sum(each.received for each in readers), server.cpu
        await asyncio.sleep(seconds)
        count, used = sum(each.received for each in readers) - before, server.cpu - used
        return [Sample(used / count * 1e6)]


async def cancel(server: Server, *paths: str, times: int) -> list[Sample]:
    """Cancel streams that would never end: a sample for each path, of the time until the client receives the end."""
    return [await cancel_at(server, path, times) for path in paths]


async def cancel_at(server: Server, path: str, times: int) -> Sample:
    latencies: list[float] = []
    client = await connect(server, path=path, awaited=b'"cancelled"')
    try:
        for ref in range(times):
            client.transport.write(ask_stream(server.peer, ENDLESS, ref))
            await asyncio.sleep(0.02)  # it streams
            async with asyncio.timeout(TIMEOUT):
                latencies.append(await ask(client, frame(json.dumps({"type": "cancel", "ref": ref}).encode())))
    finally:
        client.transport.abort()
    return sample(1, 1, latencies)


OFFENCES = {
    "pings": frame(b"", Opcode.PING),
    "pongs": frame(b"", Opcode.PONG),
    "empty continuations": frame(b"", Opcode.CONT, fin=False),
}
"""Frames that are no messages, of which uvicorn takes as many as come."""


async def bystander(server: Server, seconds: float) -> list[Sample]:
    """Ask for answers beside one who sends such frames: the longest wait, in ms, for each kind of them."""
    return [await longest_wait(server, frames * 10_000, seconds) for frames in OFFENCES.values()]


async def longest_wait(server: Server, frames: bytes, seconds: float) -> Sample:
    words, waits, end = say(server.peer), [0.0], perf_counter() + seconds
    async with connected(server, 1) as [client]:
        offending = asyncio.create_task(asyncio.to_thread(offend, server, frames, end))
        async with asyncio.timeout(TIMEOUT):
            while perf_counter() < end:
                waits.append(await ask(client, words))
                await asyncio.sleep(0.01)
            await offending
    return Sample(max(waits) * 1e3)


def offend(server: Server, frames: bytes, end: float) -> None:
    """Send such frames until then; come again where the server closes."""
    while (left := end - perf_counter()) > 0:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), left) as connection:
            connection.sendall(handshake(path_of(server.peer), *server.peer.headers))
            connection.recv(4096)
            connection.sendall(frame(b"", fin=False))  # a message that continues for ever
            while perf_counter() < end:
                connection.sendall(frames)


class Hall:
    """A room full of listeners, of whom the first speaks."""

    def __init__(self, clients: list[Client]) -> None:
        self._speaker = clients[0].transport
        self._size = len(clients)
        self._missing = 0
        self._said_at = 0.0
        self._all_received: asyncio.Future[None]
        self.latencies: list[float] = []
        """Of each delivery."""
        for client in clients:
            client.on_said = self._hear

    def _hear(self, count: int) -> None:
        self.latencies += [perf_counter() - self._said_at] * count
        self._missing -= count
        if self._missing <= 0 and not self._all_received.done():  # what is compressed may be a late `joined`
            self._all_received.set_result(None)

    async def say(self, words: bytes, count: int = 1) -> None:
        """Say so many messages at once, and wait until all have received all of them."""
        self._all_received = asyncio.get_running_loop().create_future()
        self._missing = self._size * count
        self._said_at = perf_counter()
        self._speaker.write(words * count)
        async with asyncio.timeout(TIMEOUT):
            await self._all_received

    async def say_for(self, seconds: float, server: Server, burst: int = 1) -> Sample:
        """Speak for a while; sample the CPU for each delivery."""
        words = say(server.peer)
        await self.say(words)
        self.latencies.clear()
        end, used = perf_counter() + seconds, server.cpu
        while perf_counter() < end:
            await self.say(words, burst)
        return sample(server.cpu - used, len(self.latencies), self.latencies)


async def room(server: Server, burst: int, *, listeners: int, seconds: float) -> Sample:
    """Speak to a room, in bursts of so many messages."""
    async with connected(server, listeners, "hall") as clients:
        return await Hall(clients).say_for(seconds, server, burst)


async def stuck(server: Server, listeners: int, seconds: float) -> list[Sample]:
    """Speak to a room in which one is stuck, and when that one is gone: two samples."""
    deaf = await connect(server, "hall", receive_buffer=4096)
    deaf.transport.pause_reading()
    try:
        long = say(server.peer, "x" * 50_000)
        async with connected(server, 1, "hall") as alone:
            hall = Hall(alone)
            for _ in range(200):  # ten megabytes, more than what the system keeps for a socket
                await hall.say(long)
        async with connected(server, listeners, "hall") as clients:
            hall = Hall(clients)
            await hall.say_for(seconds / 2, server)  # to warm up
            beside = await hall.say_for(seconds, server)
            deaf.transport.abort()
            return [beside, await hall.say_for(seconds, server)]
    finally:
        deaf.transport.abort()
