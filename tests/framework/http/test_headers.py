"""the headers of HTTP responses. Browsers run no script but our own, and frame and sniff nothing."""

import pytest
from litestar import Litestar, Response, get
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from my_service.realtime.http import SecurityHeaders

from ..recording import Serve, capture_logs

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/schema", "/schema/openapi.json", "/schema/x", "/no", "/ws/no"]
)
def test_what_is_no_page_may_do_nothing_in_a_browser(client: TestClient[Litestar], path: str) -> None:
    headers = client.get(path, headers={"host": "localhost:8000"}).headers
    assert headers["content-security-policy"] == NOTHING
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_handler_may_set_its_own() -> None:
    @get("/", response_headers={"x-frame-options": "SAMEORIGIN"})
    async def framed() -> Response[str]:
        return Response("", headers={"Content-Security-Policy": "default-src 'self'"})

    with TestClient(Litestar([framed], middleware=[SecurityHeaders()])) as client:
        headers = client.get("/").headers
        assert headers["content-security-policy"] == "default-src 'self'"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_bug_shows_no_more_than_that_it_is_one() -> None:
    @get("/")
    async def failing() -> None:
        raise RuntimeError("a secret")

    with TestClient(Litestar([failing], middleware=[SecurityHeaders()]), raise_server_exceptions=False) as client:
        answer = client.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"] == NOTHING


@pytest.mark.parametrize("error", [ValueError("a bug"), WebSocketDisconnect(detail="of another", code=1001)])
def test_a_bug_is_logged(serve: Serve, error: Exception) -> None:
    @get("/")
    async def failing() -> None:
        raise error

    with serve(failing) as client, capture_logs() as lines:
        assert client.get("/").status_code == 500
    assert [line["exc_info"] for line in lines if line["event"] == "request failed"] == [error]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_method_that_nothing_answers_has_them_too(client: TestClient[Litestar], method: str) -> None:
    answer = client.request(method, "/health")
    assert answer.status_code == 405
    assert answer.headers["content-security-policy"] == NOTHING


def test_a_get_for_a_websocket_is_told_that_it_must_upgrade(client: TestClient[Litestar]) -> None:
    with capture_logs() as lines:
        answer = client.get("/ws/echo?token=SECRET")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "Upgrade" in answer.text
    assert answer.headers["content-security-policy"] == NOTHING
    [line] = [line for line in lines if line["event"] == "handshake rejected"]
    assert (line["reason"], line["path"]) == ("upgrade", "/ws/echo")
    assert "proxy_set_header Upgrade" in line["fix"]
    assert "SECRET" not in str(line) + answer.text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://chat.example", True),
        ("http://chat.example", False),
        ("http://192.168.1.2:8000", False),
    ],
)
def test_no_header_is_sent_of_which_a_browser_would_complain(url: str, expected: bool) -> None:
    @get("/")
    async def handler() -> None: ...

    scheme, _, host = url.partition("://")
    with TestClient(Litestar([handler], middleware=[SecurityHeaders()]), base_url=f"{scheme}://test.local") as client:
        headers = client.get("/", headers={"host": host}).headers
    assert ("cross-origin-opener-policy" in headers) is expected


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_probe_may_ask_with_head(client: TestClient[Litestar], path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
