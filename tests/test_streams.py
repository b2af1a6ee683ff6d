"""Streams of a real service, to real clients: over a drain, a lost connection, and a client that reads slowly."""

import json
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .service import TIMEOUT, Service, Start


@contextmanager
def open_stream(service: Service, **count: Any) -> Generator[ClientConnection]:
    with connect(f"ws://{service.address}/probe/stream") as client:
        client.send(json.dumps({"type": "count", "ref": 1, **count}))
        assert receive(client)["number"] == 1
        yield client


def receive(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
    return message


def receive_all(client: ClientConnection) -> NoReturn:
    """Receive until the connection is closed, which raises."""
    while True:
        receive(client)


def test_a_stream_has_the_grace_period_to_finish(start: Start) -> None:
    service = start(drain_seconds=0, grace_seconds=TIMEOUT)
    with open_stream(service, to=10, seconds=0.2) as client:
        service.process.send_signal(signal.SIGTERM)
        last = [receive(client) for _ in range(10)][-1]
        assert last == {"type": "end", "ref": 1}
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=TIMEOUT)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012
    assert service.process.wait(TIMEOUT) == 0


def test_a_stream_that_exceeds_the_grace_period_is_closed(start: Start) -> None:
    service = start(drain_seconds=0, grace_seconds=1, hook_seconds=2)
    with open_stream(service, to=-1, seconds=0.1) as client:
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            receive_all(client)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012
    service.wait_for("drained")
    assert service.process.wait(TIMEOUT) == 0
    events = [line["event"] for line in service.log]
    assert events.index("stream closed") < events.index("on_disconnect")
    assert not service.complaints


def test_a_stream_ends_at_once_when_the_client_is_gone(start: Start) -> None:
    service = start(ping_interval=3600)  # so that no ping finds it
    with open_stream(service, to=-1, seconds=3600) as client:
        client.socket.shutdown(socket.SHUT_RDWR)
        service.wait_for("connection closed")
    events = [line["event"] for line in service.log]
    assert events.index("stream closed") < events.index("on_disconnect")
    assert not service.complaints


def test_a_slow_client_pauses_the_generator(start: Start) -> None:
    service = start(send_seconds=0)
    with connect(f"ws://{service.address}/probe/stream", max_queue=1) as client:
        client.send(json.dumps({"type": "count", "to": -1, "ref": 1}))
        receive(client)
        waiting = service.connect()
        with waiting:  # the service answers others meanwhile
            waiting.send("hi")
            waiting.recv(timeout=TIMEOUT)
        client.socket.shutdown(socket.SHUT_RDWR)
    numbers = [service.wait_for("stream closed")["number"]]
    assert 0 < numbers[0] < 20_000  # of 1 kB each; what the buffers of both sides hold


def test_a_cancel_is_received_while_a_stream_sends_as_fast_as_it_can(start: Start) -> None:
    service = start()
    with open_stream(service, to=-1) as client:
        client.send(json.dumps({"type": "cancel", "ref": 1}))
        while (last := receive(client))["type"] == "number":
            pass
        assert last == {"type": "end", "ref": 1, "cancelled": True}


@pytest.mark.parametrize("path", ["slow", "cancelled"])
def test_a_disconnect_is_noticed_while_a_handler_awaits(start: Start, path: str) -> None:
    service = start(ping_interval=3600)  # so that no ping finds it
    with connect(f"ws://{service.address}/probe/{path}") as client:
        client.send(json.dumps({"type": "count", "to": 1}))
        client.send(json.dumps({"type": "count", "to": 1}))  # unread, and within the window
        service.wait_for("handling")
        client.socket.shutdown(socket.SHUT_RDWR)
        assert service.wait_for("noticed" if path == "slow" else "handler cancelled")["cause"] == "connection_lost"
    assert service.wait_for("connection closed")["reason"] == "connection_lost"
