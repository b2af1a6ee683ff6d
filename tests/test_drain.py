"""A signal ends the service with status 0, in a time that the settings bound, after the clean-up of each connection."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from datetime import datetime
from pathlib import Path
from time import monotonic

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from .rendering import replace
from .service import TIMEOUT, Service, Start, frame, handshake

LONG = 3600
"""A setting that is never waited for: whatever does so fails."""


def expect_1012(client: ClientConnection) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=TIMEOUT)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "service restarts")


def ends(service: Service) -> list[tuple[str, int]]:
    """Read why each connection ended; each must have, once, and before anything that they share was closed."""
    events = [line["event"] for line in service.log]
    finished = [line["connection"] for line in service.happened("on_disconnect")]
    assert len(finished) == len(set(finished))
    assert sorted(finished) == sorted(line["connection"] for line in service.happened("connection accepted"))
    assert not finished or max(i for i, event in enumerate(events) if event == "on_disconnect") < events.index(
        "drained"
    )
    assert service.happened("drained")[0]["connections"] == 0
    return [(line["reason"], line["code"]) for line in service.happened("on_disconnect")]


RESTARTS = ("service_restarts", 1012)


def test_200_clients_are_closed_one_by_one_while_new_ones_are_refused(start: Start) -> None:
    service = start(drain_seconds=3, grace_seconds=5, hook_seconds=5)

    async def watch(client: object) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()  # type: ignore[attr-defined]
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason

    async def drain() -> float:
        async with asyncio.timeout(TIMEOUT * 2), AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(service.connect_async()) for _ in range(200)]
            began = monotonic()
            service.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(service.wait_for, "draining")
            assert (await asyncio.to_thread(service.get, "/ready"))[0] == 503
            assert (await asyncio.to_thread(service.get, "/health"))[0] == 200
            with pytest.raises(InvalidStatus) as rejected:
                await stack.enter_async_context(service.connect_async())
            assert rejected.value.response.status_code == 503
            assert set(await asyncio.gather(*map(watch, clients))) == {(1012, "service restarts")}
            return began

    began = asyncio.run(drain())
    assert service.ended() == 0
    assert monotonic() - began < 3 + 5 + 2 * 5
    assert ends(service) == [RESTARTS] * 200
    assert service.complaints == []
    moments = [datetime.fromisoformat(line["timestamp"]) for line in service.happened("connection closed")]
    assert (max(moments) - min(moments)).total_seconds() > 1, "all at once, so all come back at once"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_without_connections_it_ends_at_once(start: Start, number: int) -> None:
    service = start(drain_seconds=LONG, grace_seconds=LONG)  # not yet serving: the signal is not lost either
    assert service.ended(number) == 0
    assert ends(service) == []


@pytest.mark.parametrize(("number", "span"), [(signal.SIGTERM, 0.1), (signal.SIGINT, LONG)], ids=["SIGTERM", "SIGINT"])
def test_a_busy_handler_may_finish_within_the_grace_period(start: Start, number: int, span: float) -> None:
    service = start(drain_seconds=span, grace_seconds=LONG)
    with service.connect() as busy, service.connect() as idle:
        busy.send("busy 1")
        service.wait_for("busy")
        service.process.send_signal(number)
        expect_1012(idle)
        expect_1012(busy)
        assert service.ended() == 0
    assert len(service.happened("done")) == 1
    assert ends(service) == [RESTARTS] * 2
    assert service.complaints == []


def never_ready(service: Service, stack: ExitStack) -> None:
    stack.enter_context(service.connect("accept=hang"))
    service.wait_for("on_accept hangs")


def busy_for_ever(service: Service, stack: ExitStack) -> None:
    stack.enter_context(service.connect()).send(f"busy {LONG}")
    service.wait_for("busy")


def busy_and_stuck_in_its_clean_up(service: Service, stack: ExitStack) -> None:
    stack.enter_context(service.connect("disconnect=hang")).send(f"busy {LONG}")
    service.wait_for("busy")


def busy_in_a_thread(service: Service, stack: ExitStack) -> None:
    stack.enter_context(service.connect()).send(f"block {LONG}")
    service.wait_for("busy")


def blocked_by_a_peer_that_reads_nothing(service: Service, stack: ExitStack) -> None:
    stack.enter_context(service.open_raw(SO_RCVBUF=4096)).sendall(frame(b"blast"))
    service.wait_for("blasted")


SLOW: dict[Callable[[Service, ExitStack], None], str | None] = {
    never_ready: None,
    busy_for_ever: None,
    busy_in_a_thread: "a thread of a handler did not end, and is left",
    busy_and_stuck_in_its_clean_up: "on_disconnect took too long",
    blocked_by_a_peer_that_reads_nothing: None,
}
"""What keeps a drain waiting, and the one error that it leaves in the log."""


@pytest.mark.parametrize("keep_busy", SLOW)
def test_after_the_grace_period_the_rest_is_cancelled(
    start: Start, keep_busy: Callable[[Service, ExitStack], None]
) -> None:
    service = start(drain_seconds=0.1, grace_seconds=0.5, hook_seconds=2)
    with ExitStack() as stack, service.connect():
        keep_busy(service, stack)
        began = monotonic()
        assert service.ended(signal.SIGTERM) == 0
        assert monotonic() - began < 0.1 + 0.5 + 2 * 2 + 2 * 2
    assert ends(service) == [RESTARTS] * 2
    assert [line["event"] for line in service.complaints] == ([SLOW[keep_busy]] if SLOW[keep_busy] else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_skips_the_waiting_and_not_the_clean_up(start: Start, number: int) -> None:
    service = start(drain_seconds=LONG, grace_seconds=LONG, hook_seconds=10)
    with ExitStack() as stack, service.connect("disconnect=linger") as idle:
        busy_for_ever(service, stack)
        service.process.send_signal(number)
        service.wait_for("draining")
        service.process.send_signal(number)
        expect_1012(idle)
        assert service.ended() == 0
    assert ends(service) == [RESTARTS] * 2
    assert len(service.happened("on_disconnect done")) == 2
    assert service.complaints == []


def test_a_handshake_that_is_under_way_is_refused(start: Start) -> None:
    service = start(drain_seconds=LONG, grace_seconds=LONG)
    with service.open_tcp() as client:
        client.sendall(handshake("/probe/ws?guard=linger"))
        service.wait_for("guard lingers")
        service.process.send_signal(signal.SIGTERM)
        assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert service.ended() == 0
    assert ends(service) == []
    assert service.complaints == []


def test_an_on_disconnect_that_runs_is_not_cut_short(start: Start) -> None:
    service = start(drain_seconds=0, grace_seconds=0, hook_seconds=10)
    with service.connect("disconnect=linger") as client:
        service.process.send_signal(signal.SIGTERM)
        expect_1012(client)
        assert service.ended() == 0
    assert ends(service) == [RESTARTS]
    assert len(service.happened("on_disconnect done")) == 1


def test_a_change_reloads_promptly_with_open_sockets(probed: Path, project: Path) -> None:
    package = project / "src/my_service"
    for name in ("app.py", "hooks.py", "listeners/probe.py"):
        (package / name).write_bytes((probed / "src/my_service" / name).read_bytes())
    service = Service(project, "--reload", drain_seconds=LONG, grace_seconds=LONG)
    try:
        with service.connect() as idle, service.connect() as busy:
            busy.send(f"busy {LONG}")
            service.wait_for("busy")
            replace(package / "hooks.py", "on_disconnect done", "on_disconnect done, anew")
            expect_1012(idle)
            expect_1012(busy)
            service.wait_for("serving on")
        assert ends(service) == [RESTARTS] * 2
        with service.connect() as client:
            client.close()
        service.wait_for("on_disconnect done, anew")
        assert service.ended(signal.SIGTERM) == 0
    finally:
        service.stop()
