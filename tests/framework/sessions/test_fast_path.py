"""The fast path: frames go past ASGI exactly where nothing between handler and server wants to see the messages."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from litestar import Litestar, WebSocket
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware, DefineMiddleware
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.testing import TestClient
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from my_service.realtime import ConnectionInfo, Socket, listener
from my_service.realtime.sessions.fast_path import EXTENSION, PassThroughMiddleware, text_frame
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.sessions.session import Session
from my_service.settings import Settings

from ..recording import Hooks


class Writer:
    """The server's end of a connection, as far as the fast path needs it."""

    def __init__(self, *, compresses: bool = False) -> None:
        self.writable = asyncio.Event()
        self.compresses = compresses
        self.takes_frames = True
        self.written = b""

    def write_frames(self, frames: bytes) -> None:
        self.written += frames

    def hold_frames(self) -> None: ...

    def notify_disconnect(self, callback: Callable[[ReceiveMessage], None]) -> None: ...

    def notify_closed(self, callback: Callable[[], None]) -> None:
        self.closed = callback


class PassesThrough(PassThroughMiddleware):
    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        await next_app(scope, receive, send)


class OfHttp(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        await next_app(scope, receive, send)


class Watches(ASGIMiddleware):
    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        await next_app(scope, receive, send)


def plain(app: ASGIApp) -> ASGIApp:
    return app


class OwnSocket(WebSocket[Any, Any, Any]):
    pass


async def watch(*_: object) -> None: ...


def connect(writer: Writer | None, *, of_handler: dict[str, Any] | None = None, **options: Any) -> Session:
    """Connect to an application behind a server with this writer, say "hi" on the fast path, and return the session."""
    sessions: list[Session] = []
    given: Any = of_handler or {}

    @listener("/", **given)
    async def greet(data: str, socket: Socket) -> None:
        sessions.append(Session.of(socket))
        sessions[0].write_frames(text_frame(data.encode()), 1)
        await socket.send_text("done")

    plugin = Sessions(Settings(), ConnectionInfo, Hooks())
    app = Litestar([greet], plugins=[plugin], logging_config=None, openapi_config=None, **options)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and writer:
            scope["extensions"] = {EXTENSION: {"writer": writer}}
        await app(scope, receive, send)

    with TestClient(cast("Any", server)) as client, client.websocket_connect("/") as socket:
        socket.send_text("hi")
        assert socket.receive_text(timeout=20) == "done"
    return sessions[0]


FAST: list[dict[str, Any]] = [
    {},
    {"middleware": [PassesThrough()]},
    {"middleware": [OfHttp()]},
    {"of_handler": {"middleware": [PassesThrough(), OfHttp()]}},
]
SLOW: list[dict[str, Any]] = [
    {"middleware": [Watches()]},
    {"middleware": [plain]},
    {"middleware": [DefineMiddleware(plain)]},
    {"middleware": [RateLimitConfig(rate_limit=("second", 100)).middleware]},
    {"of_handler": {"middleware": [Watches()]}},
    {"websocket_class": OwnSocket},
    {"of_handler": {"websocket_class": OwnSocket}},
    {"before_send": [watch]},
]


@pytest.mark.parametrize("options", FAST)
def test_frames_are_written_where_nothing_wants_to_see_the_messages(options: dict[str, Any]) -> None:
    writer = Writer()
    session = connect(writer, **options)
    assert session.receive_event == session.receive
    assert writer.written == text_frame(b"hi")


@pytest.mark.parametrize("options", SLOW)
def test_messages_are_events_where_something_wants_to_see_them(options: dict[str, Any]) -> None:
    writer = Writer()
    session = connect(writer, **options)
    assert session.receive_event != session.receive
    assert writer.written == b""


def test_messages_are_events_where_each_connection_has_its_own_compression() -> None:
    writer = Writer(compresses=True)
    assert connect(writer).writer is None
    assert writer.written == b""


def test_another_server_has_no_frames_and_its_events_come_without_a_detour() -> None:
    session = connect(None)
    assert session.writer is None
    assert session.receive_event == session.receive


def test_no_frame_is_written_for_a_client_that_does_not_keep_up() -> None:
    writer = Writer()
    writer.takes_frames = False
    assert connect(writer).writer is writer
    assert writer.written == b""


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_says_its_size(size: int) -> None:
    frame = text_frame(b"x" * size)
    header = {0: b"\x81\x00", 125: b"\x81\x7d", 126: b"\x81\x7e\x00\x7e", 65535: b"\x81\x7e\xff\xff"}
    assert frame.startswith(header.get(size, b"\x81\x7f" + (65536).to_bytes(8, "big")))
    assert frame.endswith(b"x" * size)
