"""A client that reads too slowly delays nobody, and is told what it lost."""

import json
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from my_service.realtime.testing import TIMEOUT, Service, Start

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
