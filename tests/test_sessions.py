"""What docs/sessions.md says, run as it stands: sign in, connect, sign out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .rendering import ROOT, check, replace
from .service import TIMEOUT, Service, running


@pytest.fixture
def service(project: Path) -> Iterator[Service]:
    """A service that was changed as the page says."""
    text = (ROOT / "docs" / "sessions.md").read_text("utf-8")
    signin, hook, app = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    package = project / "src/my_service"
    (package / "signin.py").write_text(signin)
    hooks = (package / "hooks.py").read_text("utf-8")
    begin, end = hooks.index("async def on_accept"), hooks.index("async def on_disconnect")
    (package / "hooks.py").write_text(f"{hooks[:begin]}{hook}\n\n{hooks[end:]}")
    source = (package / "app.py").read_text("utf-8")
    (package / "app.py").write_text(source[: source.index("    return Litestar(")] + app)
    replace(package / "app.py", "from litestar import Litestar", "from litestar import Litestar, Router")
    replace(
        package / "app.py", "from .state", "from .signin import sessions, sign_in, sign_out, signed_in\nfrom .state"
    )
    check(project, "ruff", "check", "src")
    check(project, "ruff", "format", "--check", "src")
    check(project, "mypy", "src")
    with running(project, require_origin=True) as service:
        yield service


def post(service: Service, path: str, cookie: str = "", **body: str) -> tuple[int, str]:
    """Send a form; return the status and the cookie that is set."""
    headers = {"content-type": "application/json", "cookie": cookie}
    request = Request(f"http://{service.address}{path}", json.dumps(body).encode(), headers, method="POST")
    with urlopen(request, timeout=TIMEOUT) as answer:
        return answer.status, (answer.headers["set-cookie"] or "").partition(";")[0]


def open_as(service: Service, cookie: str, origin: str | None = None) -> ClientConnection:
    own = f"http://{service.address}" if origin is None else origin
    return connect(service.url("/ws/echo"), additional_headers={"cookie": cookie, "origin": own})


def status(service: Service, cookie: str, origin: str | None = None) -> int:
    with pytest.raises(InvalidStatus) as refused:
        open_as(service, cookie, origin)
    return refused.value.response.status_code


def test_the_end_of_a_session_ends_the_connections_of_its_user(service: Service) -> None:
    assert status(service, "") == 401
    assert status(service, "session=forged") == 401
    cookies = {user: post(service, "/sign-in", user=user, password=f"{user}'s secret")[1] for user in ("ada", "bob")}
    assert status(service, cookies["ada"], "https://evil.example") == 403
    with open_as(service, cookies["ada"]) as ada, open_as(service, cookies["bob"]) as bob:
        for socket in (ada, bob):
            socket.send('{"type":"say","text":"hi"}')
            assert '"hi"' in str(socket.recv(timeout=TIMEOUT))
        assert post(service, "/sign-out", cookies["ada"])[0] == 204
        with pytest.raises(ConnectionClosed) as closed:
            ada.recv(timeout=TIMEOUT)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "signed out")
        bob.send('{"type":"say","text":"still here"}')
        assert "still here" in str(bob.recv(timeout=TIMEOUT))
    assert status(service, cookies["ada"]) == 401
    assert service.complaints == []
