"""Whatever ends a connection, it is cleaned up exactly once, with the right cause, and nothing of it is left."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import SHUT_WR
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from .service import MEBIBYTE, TIMEOUT, Service, Start, bystander, frame, handshake, read_close, reset


@pytest.fixture(scope="module")
def service(probed: Path) -> Iterator[Service]:
    service = Service(probed, hook_seconds=0.5)
    yield service
    service.stop()


def close(service: Service, code: int) -> None:
    with service.connect() as client:
        client.close(code)


def close_without_a_code(service: Service) -> None:
    with service.open_raw() as client:
        client.sendall(frame(b"", Opcode.CLOSE))
        read_close(client)


def lose_with_rst(service: Service) -> None:
    reset(service.open_raw())


def lose_with_fin(service: Service) -> None:
    service.open_raw().close()


def half_close(service: Service) -> None:
    with service.open_raw() as client:
        client.shutdown(SHUT_WR)
        assert read_close(client) is None


def lose_inside_a_frame(service: Service) -> None:
    with service.open_raw() as client:
        client.sendall(frame(b"hello")[:7])


def lose_between_fragments(service: Service) -> None:
    with service.open_raw() as client:
        client.sendall(frame(b"hello", fin=False))


def close_behind_messages(service: Service) -> None:
    with service.open_raw() as client:
        client.sendall(frame(b"who") * 50 + frame(b"\x0f\xa1", Opcode.CLOSE))
        read_close(client)


def tell(service: Service, what: str, query: str = "") -> None:
    """Have the service do something that ends the connection."""
    with service.connect(query) as client, suppress(ConnectionClosed):
        client.send(what)
        while True:
            client.recv(timeout=TIMEOUT)


def vanish_while_it_sends(service: Service) -> None:
    client = service.open_raw(SO_RCVBUF=4096)
    client.sendall(frame(b"blast"))
    service.wait_for("blasted")
    reset(client)


class Fault(NamedTuple):
    ends: Callable[[Service], None]
    reason: str
    code: int
    complaint: str | None = None
    """The one error in the log, where the service is to blame; an untrusted client causes none."""


FAULTS = {
    "close 1000": Fault(lambda service: close(service, 1000), "client_closed", 1000),
    "close with an own code": Fault(lambda service: close(service, 4321), "client_closed", 4321),
    "close because of what we sent": Fault(lambda service: close(service, 1002), "client_closed", 1002),
    "close because of how much we sent": Fault(lambda service: close(service, 1009), "client_closed", 1009),
    "close without a code": Fault(close_without_a_code, "client_closed", 1005),
    "close behind messages": Fault(close_behind_messages, "client_closed", 4001),
    "RST": Fault(lose_with_rst, "connection_lost", 1006),
    "FIN": Fault(lose_with_fin, "connection_lost", 1006),
    "half-close": Fault(half_close, "connection_lost", 1006),
    "lost inside a frame": Fault(lose_inside_a_frame, "connection_lost", 1006),
    "lost between fragments": Fault(lose_between_fragments, "connection_lost", 1006),
    "gone while it sends": Fault(vanish_while_it_sends, "connection_lost", 1006),
    "handler closes": Fault(lambda service: tell(service, "close 4002"), "service_closed", 4002),
    "handler raises": Fault(lambda service: tell(service, "raise"), "handler_failed", 1011, "handler failed"),
    "cancelled": Fault(lambda service: tell(service, "cancel"), "cancelled", 1011, "Exception in ASGI application\n"),
    "on_accept raises before": Fault(
        lambda service: tell(service, "", "accept=raise-before"),
        "initialization_failed",
        1011,
        "initialization failed",
    ),
    "on_accept raises after": Fault(
        lambda service: tell(service, "", "accept=raise-after"), "initialization_failed", 1011, "initialization failed"
    ),
    "on_disconnect raises": Fault(
        lambda service: tell(service, "close 4002", "disconnect=raise"), "service_closed", 4002, "on_disconnect failed"
    ),
    "on_disconnect hangs": Fault(
        lambda service: tell(service, "close 4002", "disconnect=hang"),
        "service_closed",
        4002,
        "on_disconnect took too long",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_end_is_cleaned_up_once_with_its_cause(service: Service, fault: Fault) -> None:
    with bystander(service):
        before = service.look()
        service.log.clear()
        fault.ends(service)
        service.settles_at(before)
        ends = [(line["reason"], line["code"]) for line in service.happened("on_disconnect")]
        assert ends == [(fault.reason, fault.code)]
        assert [line["event"] for line in service.complaints] == ([fault.complaint] if fault.complaint else [])


def test_peers_that_read_nothing_are_gone_when_the_pings_have_found_them(start: Start) -> None:
    service = start(ping_interval=0.5, ping_timeout=2.5, hook_seconds=0.5)
    with bystander(service), ExitStack() as frozen:
        before = service.look()
        quiet, half_closed, sending, raising = (
            frozen.enter_context(service.open_raw(SO_RCVBUF=4096)) for _ in range(4)
        )
        quiet.sendall(frame(b"who"))
        half_closed.sendall(frame(b"blast"))
        sending.sendall(frame(b"blast"))
        raising.sendall(frame(b"blast-and-raise"))
        service.wait_for("blasted", times=2)
        half_closed.shutdown(SHUT_WR)
        service.settles_at(before)
        ends = sorted((line["reason"], line["code"]) for line in service.happened("on_disconnect"))
        assert ends == [
            ("connection_lost", 1006),
            ("connection_lost", 1006),
            ("connection_lost", 1006),
            ("handler_failed", 1011),
        ]
        assert [line["event"] for line in service.complaints] == ["handler failed"]


def test_a_close_that_nobody_reads_does_not_keep_the_clean_up_waiting(start: Start) -> None:
    service = start(hook_seconds=0.5)  # the pings take longer than TIMEOUT
    with service.open_raw(SO_RCVBUF=4096) as client:
        client.sendall(frame(b"blast-and-raise"))
        line = service.wait_for("on_disconnect")
    assert (line["reason"], line["code"]) == ("handler_failed", 1011)


ABORTS: list[Callable[[Service], None]] = [
    lambda service: reset_during_the_handshake(service),
    lose_with_rst,
    lose_with_fin,
    lose_inside_a_frame,
    close_without_a_code,
]


def reset_during_the_handshake(service: Service) -> None:
    client = service.open_tcp()
    client.sendall(handshake("/probe/ws"))
    reset(client)


@pytest.mark.parametrize("times", [1000, pytest.param(9000, marks=pytest.mark.exhaustive)])
def test_thousands_of_connects_and_aborts_leave_nothing(start: Start, times: int) -> None:
    service = start()

    def connect_and_abort(times: int) -> None:
        for number in range(times):
            ABORTS[number % len(ABORTS)](service)

    with bystander(service):
        before = service.look()
        connect_and_abort(1000)
        service.settles_at(before)
        memory = service.memory
        connect_and_abort(times)
        service.settles_at(before)
        assert service.memory - memory < 4 * MEBIBYTE
        accepted = {line["connection"] for line in service.happened("connection accepted")}
        ended = [line["connection"] for line in service.happened("on_disconnect")]
        assert len(ended) == len(set(ended)) == len(accepted) - 1  # the bystander stays
    assert service.complaints == []
