"""A client that reads too slowly delays nobody, and is told what it lost."""

import asyncio
import json
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from my_service.realtime.fanout.dispatch import Batch, Subscription
from my_service.realtime.fanout.messages import Gap, GapMarker, History, Message
from my_service.realtime.sessions.session import SESSION_KEY
from my_service.realtime.testing import TIMEOUT, Service, Start
from my_service.settings import Settings

from ..recording import receive

ROOM = "/ws/rooms/hall"
LARGE = "x" * 60_000
MESSAGES = 300
SMALL_BUFFERS = {"max_pending_bytes": 1000, "max_backlog": 10, "max_messages_per_second": 0, "send_seconds": 0}


def enter(service: Service, stack: ExitStack, path: str = ROOM, **options: Any) -> ClientConnection:
    client = stack.enter_context(service.connect(path, **options))
    assert receive(client)["type"] == "joined"
    return client


def enter_and_read_nothing(service: Service, stack: ExitStack) -> ClientConnection:
    """Join with a client that takes from the network no more than a little, until it is asked to."""
    host, port = service.address.split(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((host, int(port)))
    # With the history: it receives who joined first, because who is present already does not join again.
    return enter(service, stack, f"{ROOM}?after=0", sock=narrow, max_queue=1)


def fill(speaker: ClientConnection) -> None:
    """Say much, and receive all of it: the slow one delays nobody."""
    for number in range(MESSAGES):
        speaker.send(json.dumps({"type": "say", "text": f"{number} {LARGE}"}))
        while (received := receive(speaker))["type"] != "said":
            pass
        assert received["text"].startswith(f"{number} ")


def read_to_the_end(client: ClientConnection) -> None:
    while True:
        client.recv(timeout=TIMEOUT)


def metric(service: Service, name: str) -> float:
    [line] = [line for line in service.get("/metrics")[1].splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_the_oldest_are_dropped_and_the_client_is_told_how_many(start: Start) -> None:
    service = start(**SMALL_BUFFERS)
    with ExitStack() as stack:
        speaker = enter(service, stack)
        slow = enter_and_read_nothing(service, stack)
        fill(speaker)
        numbers: list[int] = []
        missed = 0
        while not numbers or numbers[-1] < MESSAGES - 1:
            message = receive(slow)
            if message["type"] == "gap":
                assert message["channel"] == "hall"
                missed += message["missed"]
            elif message["type"] == "said":
                numbers.append(int(message["text"].split()[0]))
        assert numbers == sorted(set(numbers))
        assert missed == MESSAGES - len(numbers) > 0
        assert metric(service, "fanout_dropped_total") == missed


def test_or_it_is_closed_with_1013_where_a_setting_says_so(start: Start) -> None:
    service = start(backlog_full="close", **SMALL_BUFFERS)
    with ExitStack() as stack:
        speaker = enter(service, stack)
        slow = enter_and_read_nothing(service, stack)
        fill(speaker)
        with pytest.raises(ConnectionClosed) as closed:
            read_to_the_end(slow)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert service.wait_for("connection closed")["reason"] == "limit_exceeded"
        assert metric(service, 'websocket_limit_exceeded_total{limit="max_backlog"}') == 1


class NarrowWriter:
    """Takes one write, and then nothing until it is made writable."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def takes_frames(self) -> bool:
        return self.writable.is_set()

    def write_frames(self, frames: bytes, _: int) -> bool:
        if self.takes_frames:
            while frames:
                self.written.put_nowait(frames[2 : 2 + frames[1]])  # short ones, with a length of one byte
                frames = frames[2 + frames[1] :]
            self.writable.clear()
            return True
        return False


def subscribe(writer: NarrowWriter, channel: str, **settings: Any) -> Subscription:
    session: Any = SimpleNamespace(writer=writer, write_frames=writer.write_frames)
    session.ensure_connection = lambda: SimpleNamespace(id="id")
    client: Any = SimpleNamespace(scope={"state": {SESSION_KEY: session}})
    metrics: Any = SimpleNamespace(gaps=0, dropped=0)
    return Subscription(Settings(**settings), metrics, client, channel, numbered=False)


def test_of_two_channels_that_wait_for_one_client_each_has_its_turn() -> None:
    async def take_turns() -> None:
        writer = NarrowWriter()
        for channel in (b"one", b"two"):
            subscription = subscribe(writer, channel.decode())
            subscription.start()
            subscription.deliver(Batch([Message(channel, 1)]))
        await asyncio.sleep(0)  # both wait
        for channel in (b"one", b"two"):
            writer.writable.set()
            assert await writer.written.get() == channel

    asyncio.run(asyncio.wait_for(take_turns(), TIMEOUT))


async def read_all(writer: NarrowWriter, subscription: Subscription) -> list[bytes]:
    """Return what a client receives until END, as it reads one message after the other."""
    subscription.deliver(Batch([Message(b"END", 1000)]))
    received: list[bytes] = []
    while received[-1:] != [b"END"]:
        writer.writable.set()
        received.append(await writer.written.get())
    return received[:-1]


@pytest.mark.parametrize("at_once", [True, False])
def test_who_has_the_history_is_not_told_a_gap_in_it_nor_sent_it_again(*, at_once: bool) -> None:
    """The node is behind: it has missed what the engine kept when a client asked for it."""

    async def resume() -> None:
        writer = NarrowWriter()
        subscription = subscribe(writer, "hall")
        subscription.start_after(3, History(0, 6, [Message(b"%d" % number, number) for number in (4, 5, 6)]))
        behind = [GapMarker("hall", 3, 4), Message(b"5", 5), GapMarker("hall", 3, 8), Message(b"9", 9)]
        for batch in [behind] if at_once else [[message] for message in behind]:
            subscription.deliver(Batch(batch))
        gap = msgspec.json.encode(Gap("hall", 2))
        assert await read_all(writer, subscription) == [b"4", b"5", b"6", gap, b"9"]

    asyncio.run(asyncio.wait_for(resume(), TIMEOUT))


def test_a_gap_that_is_dropped_counts_as_all_that_it_stands_for() -> None:
    async def drop() -> None:
        writer = NarrowWriter()
        subscription = subscribe(writer, "hall", max_backlog=2)
        subscription.start()
        subscription.deliver(Batch([GapMarker("hall", 3, 3), *[Message(b"%d" % number, number) for number in (4, 5)]]))
        assert await read_all(writer, subscription) == [msgspec.json.encode(Gap("hall", 4)), b"5"]

    asyncio.run(asyncio.wait_for(drop(), TIMEOUT))
