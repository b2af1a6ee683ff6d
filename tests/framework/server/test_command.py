"""the command. A real process and real clients, for what signals, faults and close codes do."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_connection, has_dualstack_ipv6

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from my_service.realtime.testing import TIMEOUT, Start

from ..forked import run


def test_it_answers_on_every_address_of_the_contract(start: Start) -> None:
    service = start()
    assert service.get("/health") == (200, '{"status":"alive"}')
    assert service.get("/ready") == (200, '{"status":"ready"}')
    assert service.get("/schema/openapi.json")[0] == 200
    with service.connect() as socket:
        socket.send('{"type":"say","text":"hi"}')
        assert json.loads(socket.recv(timeout=TIMEOUT))["text"] == "hi"
        assert "websocket_open 1.0" in service.get("/metrics")[1]
    assert service.wait_for("connection closed")["reason"] == "client_closed"


def test_sigterm_closes_every_connection_with_1012_and_awaits_its_clean_up(start: Start) -> None:
    service = start(drain_seconds=0.5)
    with ExitStack() as stack:
        sockets = [stack.enter_context(service.connect()) for _ in range(10)]
        service.process.send_signal(signal.SIGTERM)
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert service.process.wait(TIMEOUT) == 0
    service.wait_for("drained")
    ended = [line["reason"] for line in service.log if line["event"] == "connection closed"]
    assert ended == ["service_restarts"] * 10


def test_while_it_drains_it_is_not_ready_and_lets_nobody_in(start: Start) -> None:
    service = start(drain_seconds=30)
    with service.connect():
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("draining")
        assert service.get("/ready") == (503, '{"status":"draining"}')
        assert service.get("/health")[0] == 200
        with pytest.raises(InvalidStatus) as refused, service.connect():
            pass
        assert refused.value.response.status_code == 503
        service.process.send_signal(signal.SIGTERM)  # the second one skips the span
        assert service.process.wait(TIMEOUT) == 0


def test_a_cut_connection_is_cleaned_up(start: Start) -> None:
    service = start()
    with service.connect() as socket:
        socket.socket.shutdown(SHUT_RDWR)  # no close frame
        assert service.wait_for("connection closed")["reason"] == "connection_lost"


def test_a_message_too_big_closes_with_1009(start: Start) -> None:
    service = start(max_message_size=100)
    with service.connect() as socket:
        socket.send("x" * 101)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=TIMEOUT)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    assert (line := service.wait_for("connection closed"))["code"] == 1009, line


def test_a_foreign_page_gets_a_real_403_and_a_full_service_a_real_503(start: Start) -> None:
    service = start(max_connections=1)
    with pytest.raises(InvalidStatus) as refused, service.connect(origin="https://evil.net"):
        pass
    assert refused.value.response.status_code == 403
    with service.connect(), pytest.raises(InvalidStatus) as refused, service.connect():
        pass
    assert refused.value.response.status_code == 503
    assert [service.wait_for("handshake rejected")["reason"] for _ in range(2)] == ["origin", "full"]


def test_nothing_that_a_client_does_is_an_error_in_the_log(start: Start) -> None:
    service = start()
    for path in ("/", "/nowhere", "/ws/echo?token=secret"):
        with suppress(InvalidStatus, ConnectionClosed), service.connect(path) as socket:
            socket.socket.sendall(b"\x81\x82\x00\x00\x00\x00\xff\xff")  # text that is no UTF-8
            socket.recv(timeout=TIMEOUT)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(TIMEOUT) == 0
    service.wait_for("drained")
    assert [line for line in service.log if line["level"] == "error" or "exception" in line] == []
    assert "secret" not in str(service.log)


@pytest.mark.parametrize(
    ("options", "settings", "status", "complaint"),
    [
        (["--port", "x"], {}, 2, "invalid int value: 'x'"),
        (["--port", "99999"], {}, 1, "PORT: Input should be less than or equal to 65535"),
        ([], {"prot": "1"}, 1, "PROT: there is no such setting; did you mean"),
        (["--host", "256.0.0.1"], {}, 1, "256.0.0.1 port 8000"),
    ],
)
def test_a_wrong_option_or_setting_is_named(
    options: list[str], settings: dict[str, str], status: int, complaint: str, tmp_path: Path
) -> None:
    ended, written = run(*options, cwd=tmp_path, **settings)
    assert ended == status
    assert complaint in written
    assert "Traceback" not in written


def test_a_port_that_is_taken_is_named_with_the_fix(start: Start, tmp_path: Path) -> None:
    port = start().address.rpartition(":")[2]
    status, written = run("--port", port, cwd=tmp_path)
    assert status == 1
    line, fix = written.splitlines()
    assert f"127.0.0.1 port {port}" in line
    assert "Address already in use" in line
    assert fix == "Fix: choose another address with --host and --port."


def test_help_says_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "my_service", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path, check=True)
    assert all(option in result.stdout for option in ("--host", "--port", "--reload"))


@pytest.mark.skipif(not has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_two_colons_are_all_addresses_of_both_families(start: Start) -> None:
    service = start(host="::")
    port = service.address.rpartition(":")[2]
    for address in ("127.0.0.1", "::1"):
        with create_connection((address, int(port)), timeout=TIMEOUT) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"


STARTED = """
import gc, sys
from contextlib import suppress
from my_service.__main__ import main

sys.argv = ["my-service", "--version"]
with suppress(SystemExit):
    main()
assert not gc.isenabled()
from my_service.realtime.server.drain import DrainingServer

DrainingServer.run = lambda *_: print(gc.isenabled())
sys.argv = ["my-service", "--port", "0"]
main()
"""


def test_the_start_looks_for_no_garbage_until_it_serves(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", STARTED], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.stdout.splitlines()[1:] == ["True"], run.stderr
