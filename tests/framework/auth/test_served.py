"""A real process and real clients: the statuses of HTTP, the log, the command, and a start without a secret."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed, InvalidStatus

from my_service.realtime.auth.settings import AuthSettings
from my_service.realtime.settings import PREFIX
from my_service.realtime.testing import TIMEOUT, Service, Start
from my_service.realtime.testing.process import environment_with

from ..forked import run
from .tokens import bearer, token


def status(service: Service, path: str = "/ws/echo", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused, service.connect(path, **({"additional_headers": {}} | options)):
        pass
    response = refused.value.response
    assert (response.headers.get("www-authenticate") == "Bearer") == (response.status_code == 401)
    return response.status_code


def test_a_handshake_is_refused_with_a_real_status(start: Start) -> None:
    service = start()
    cookie = {"cookie": f"token={token()}"}
    assert status(service) == 401
    assert status(service, f"/ws/echo?token={token()}") == 401
    assert status(service, additional_headers=bearer(token(seconds=-1))) == 401
    assert status(service, subprotocols=[Subprotocol("bearer"), Subprotocol("x.y.z")]) == 401
    assert status(service, additional_headers=cookie) == 403
    assert status(service, additional_headers=cookie, origin="https://evil.net") == 403
    with service.connect(additional_headers=cookie, origin=f"http://{service.address}"):
        pass
    assert 'websocket_rejected_total{reason="token"} 4.0' in service.get("/metrics")[1]


def test_a_user_with_too_many_connections_gets_a_real_429(start: Start) -> None:
    service = start(auth_max_connections_per_user=2)
    with service.connect(), service.connect() as leaves:
        assert status(service, additional_headers=bearer()) == 429
        with service.connect(additional_headers=bearer(token("bob"))):
            pass
        leaves.close()
        service.wait_for("connection closed")  # bob's
        service.wait_for("connection closed")
        with service.connect():
            pass
    assert 'websocket_rejected_total{reason="user"} 1.0' in service.get("/metrics")[1]


def test_no_token_is_in_any_line_of_the_log(start: Start) -> None:
    service = start(log_level="DEBUG", drain_seconds=0)
    good, expired, foreign = token(), token(seconds=-1), token(secret="another secret " * 5)
    pair = [Subprotocol("bearer"), Subprotocol(good)]
    with service.connect(additional_headers={}, subprotocols=pair) as socket:
        assert socket.subprotocol == "bearer"
        for bad in (expired, foreign):
            status(service, additional_headers=bearer(bad))
            status(service, f"/ws/echo?token={bad}", additional_headers={"cookie": f"token={bad}"})
        status(service, f"/nowhere?token={good}", additional_headers=bearer(good))
        socket.send("{rubbish")
        socket.recv(timeout=TIMEOUT)
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=TIMEOUT)
    assert service.process.wait(TIMEOUT) == 0
    service.wait_for("drained")
    for encoded in (good, expired, foreign):
        assert [part for part in encoded.split(".") if part in str(service.log)] == []
    assert {line.get("user") for line in service.log if line["event"].startswith("connection ")} == {"ada"}


def test_the_addresses_for_those_who_run_it_need_no_token(client: TestClient[Litestar]) -> None:
    client.headers.clear()
    for path in ("/health", "/ready", "/metrics", "/schema", "/schema/openapi.json", "/asyncapi"):
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize(
    ("secret", "complaint"), [("", "the secret is missing"), ("short", "the secret has 5 bytes but needs 32")]
)
def test_without_a_good_secret_it_does_not_start(secret: str, complaint: str, tmp_path: Path) -> None:
    status, written = run("--port", "0", cwd=tmp_path, auth_secret=secret)
    [line] = written.splitlines()
    assert status == 1
    assert f"{PREFIX}AUTH_SECRET: {complaint}; generate one with: python -c" in line
    assert "short" not in line


def signed_by_command(*options: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "my_service.realtime", "token", "grace", *options]
    environment = environment_with(**settings)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, cwd=cwd, check=False
    )


def test_the_command_makes_a_token(start: Start, tmp_path: Path) -> None:
    made = signed_by_command("--seconds", "60", cwd=tmp_path)
    service = start()
    with service.connect(additional_headers=bearer(made.stdout.strip())):
        assert service.wait_for("connection accepted")["user"] == "grace"


def test_the_command_writes_claims_beside_the_user(tmp_path: Path) -> None:
    claims = ["role=agent", "level=3", 'teams=["red"]', "note=a=b"]
    options = [each for claim in claims for each in ("--claim", claim)]
    made = jwt.decode(
        signed_by_command(*options, cwd=tmp_path).stdout.strip(), AuthSettings.for_tests["auth_secret"], ["HS256"]
    )
    own = {name: made.pop(name) for name in ("sub", "iat", "exp", "jti")}
    assert own["sub"] == "grace"
    assert made == {"role": "agent", "level": 3, "teams": ["red"], "note": "a=b"}


@pytest.mark.parametrize("claim", ["role", "=agent", "sub=eve", "exp=1"])
def test_the_command_refuses_a_claim_that_would_be_ignored(claim: str, tmp_path: Path) -> None:
    refused = signed_by_command("--claim", claim, cwd=tmp_path)
    assert refused.returncode == 2
    assert "must be NAME=VALUE, as in role=agent; USER sets sub, and --seconds exp" in refused.stderr


def test_the_command_needs_a_secret_also_beside_a_provider(tmp_path: Path) -> None:
    failed = signed_by_command(cwd=tmp_path, auth_secret="", auth_jwks_url="https://login.example/keys")
    assert failed.returncode == 1
    assert f"{PREFIX}AUTH_SECRET is needed to sign a token" in failed.stderr
