"""Origin: which pages may connect, decided before anything is accepted."""

from typing import Any

import pytest
from litestar.exceptions import WebSocketDisconnect

from my_service.realtime import listener
from my_service.realtime.errors import SettingsError
from my_service.realtime.sessions.handshake import origin_allowed
from my_service.settings import Settings

from ..recording import Hooks, Serve


def allowed(*origins: str, host: str = "example.com", scheme: str = "wss", **options: Any) -> bool:
    headers = [(b"host", host.encode()), *((b"origin", origin.encode()) for origin in origins)]
    others = frozenset(options.get("others", ()))
    return origin_allowed({"headers": headers, "scheme": scheme}, others, required=options.get("required", False))


def test_the_own_origin_may_connect() -> None:
    assert allowed("https://example.com")
    assert allowed("https://example.com", host="example.com:443")
    assert allowed("https://EXAMPLE.com")
    assert allowed("http://localhost:8000", host="localhost:8000", scheme="ws")


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "https://example.com:8443",
        "https://example.com.evil.net",
        "https://evil-example.com",
        "https://sub.example.com",
        "https://example.co",
        "null",
        "",
        "https://example.com, https://evil.net",
    ],
)
def test_no_other_origin_may(origin: str) -> None:
    assert not allowed(origin)


def test_another_port_of_the_same_host_is_another_origin() -> None:
    assert not allowed("http://localhost:9000", host="localhost:8000", scheme="ws")


def test_two_origins_are_none() -> None:
    assert not allowed("https://example.com", "https://example.com")


def test_the_allowlist_is_exact() -> None:
    assert allowed("https://app.example.com", others=["https://app.example.com"])
    assert not allowed("https://app.example.com:8443", others=["https://app.example.com"])


def test_clients_without_an_origin_are_let_in_unless_a_setting_says_no() -> None:
    assert allowed()
    assert not allowed(required=True)


NO_ORIGINS = ["example.com", "*", "https://*.example.com", "https://example.com/path", "ws://a.b"]


@pytest.mark.parametrize("origin", NO_ORIGINS)
def test_the_setting_takes_only_origins(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"ALLOWED_ORIGINS: .* is not an origin"):
        Settings.load(allowed_origins=origin)


def test_a_foreign_page_is_refused_before_the_handshake_is_accepted(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def handler(data: str) -> None: ...

    with serve(handler, allowed_origins=("https://app.example.com",)) as client:
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/", headers={"origin": "https://evil.net"}).__enter__()
        with client.websocket_connect("/", headers={"origin": "https://app.example.com"}):
            pass
        hooks.ended.get(timeout=20)
    assert len(hooks.accepted) == 1
