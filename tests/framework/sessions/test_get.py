"""A GET of a WebSocket's path is answered as its handshake, because a browser shows a page no status of one."""

from typing import Any

from litestar import get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler, websocket
from litestar.testing import TestClient

from my_service.realtime import Socket, listener

from ..recording import Hooks, build, capture_logs


@get("/ws/echo/about")
async def about() -> str:
    return "of its own"


def not_on_mondays(_: ASGIConnection[Any, Any, Any, Any], __: BaseRouteHandler) -> None:
    raise PermissionDeniedException("not on mondays")


@listener("/closed", guards=[not_on_mondays])
async def closed(data: str) -> None: ...


def broken() -> str:
    raise RuntimeError("a bug")


@listener("/broken", dependencies={"broken": Provide(broken, sync_to_thread=False)})
async def fails(data: str, broken: NamedDependency[str]) -> None: ...


@listener("/open")
async def opens(data: str) -> str:
    return data


@websocket("/refuses", opt={"allow": ["connection"]})
async def refuses(socket: Socket) -> None:
    await socket.close(4000, "not today")


def test_a_get_for_a_websocket_is_answered_as_its_handshake() -> None:
    hooks = Hooks()
    with TestClient(build(hooks, closed, fails, opens, refuses, about, require_origin=True)) as client:
        own = {"origin": "http://testserver.local"}
        assert client.get("/open", headers=own).status_code == 426
        assert client.get("/open", headers={"sec-fetch-site": "same-origin"}).status_code == 426
        for headers in ({}, {"origin": "https://evil.net"}, {"sec-fetch-site": "cross-site"}):
            answer = client.get("/open", headers=headers)
            assert (answer.status_code, answer.text) == (403, "this origin may not connect")
        answer = client.get("/closed", headers=own)
        assert (answer.status_code, answer.text) == (403, "not on mondays")
        answer = client.get("/refuses", headers=own)
        assert (answer.status_code, answer.text) == (403, "not today"), "it never accepts"
        with capture_logs() as logs:
            assert client.get("/broken", headers=own).status_code == 500
        assert [line["event"] for line in logs if "exc_info" in line] == ["handshake failed"]
        assert client.get("/ws/echo/about").text == "of its own"
        assert client.post("/open", headers=own).status_code == 405
        with client.websocket_connect("/open", headers=own) as socket:
            socket.send_text("hi")
            assert socket.receive_text(timeout=20) == "hi"
    assert len(hooks.accepted) == 1


def test_a_get_is_told_that_the_service_is_full() -> None:
    with (
        TestClient(build(Hooks(), opens, max_connections=1)) as client,
        client.websocket_connect("/open"),
    ):
        answer = client.get("/open")
        assert (answer.status_code, answer.text) == (503, "the service has no room for another connection")


APP = "https://app.example"
PREFLIGHT = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}


def test_a_page_of_an_allowed_origin_reads_the_answer_and_no_other_page_does() -> None:
    def allowed(answer: Any) -> list[str]:
        return [name for name in answer.headers if name.startswith("access-control-")]

    with TestClient(build(Hooks(), closed, opens, about, allowed_origins=APP)) as client:
        for path, status in (("/closed", 403), ("/open", 426), ("/opne", 404)):
            answer = client.get(path, headers={"origin": APP})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "origin"
            asked = client.options(path, headers={"origin": APP} | PREFLIGHT)
            assert (asked.status_code, asked.headers["access-control-allow-headers"]) == (204, "authorization")
        for origin in ("https://evil.net", "null", f"{APP}.evil.net", f"{APP}:8443"):
            assert not allowed(client.get("/open", headers={"origin": origin}))
            assert not allowed(client.options("/open", headers={"origin": origin} | PREFLIGHT))
        assert not allowed(client.get("/open"))
        assert not allowed(client.get("/ws/echo/about", headers={"origin": APP})), "what is yours has your own rules"
