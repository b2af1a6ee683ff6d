"""The fast path: the server writes whole WebSocket frames as they are, past ASGI and all middleware.

Handlers have it unless a middleware in front of them wraps the events of the WebSocket.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final, Protocol

import msgspec
from litestar import Litestar, WebSocket
from litestar.config.app import AppConfig
from litestar.enums import ScopeType
from litestar.handlers.websocket_handlers import WebsocketRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send
from msgspec import Struct, defstruct, field
from msgspec.structs import astuple
from websockets.frames import Opcode

EXTENSION: Final = "realtime.frames"
"""The ASGI extension of this project's server: `scope["extensions"][EXTENSION]["writer"]` is a `FrameWriter`."""

TEXT: Final = 0x80 | Opcode.TEXT
"""The first byte of a whole text message: the bit of a last frame, and the opcode (RFC 6455, 5.2)."""


class FrameWriter(Protocol):
    """The server's end of a WebSocket, which accepts whole frames."""

    writable: asyncio.Event
    """Set while the client keeps up, and when it is gone."""

    @property
    def compresses(self) -> bool:
        """Whether frames are compressed for each connection, so that no frame can be shared."""
        ...

    @property
    def takes_frames(self) -> bool:
        """Whether the connection is open and the client keeps up."""
        ...

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames. Call it only while `takes_frames`."""

    def hold_frames(self) -> None:
        """Hold back frames from now on, and write them together in the next turn of the event loop."""

    def notify_disconnect(self, callback: Callable[[ReceiveMessage], None]) -> None:
        """Call back with the `websocket.disconnect` event as soon as it is known, ahead of the messages before it.

        The server reads a limited number of bytes ahead of the handler. While so many are unread, it reads no further,
        and does not notice a disconnect.

        Args:
            callback: Called once, immediately if the connection has ended already. It must not raise.
        """

    def notify_closed(self, callback: Callable[[], None]) -> None:
        """Call back once the descriptor is closed, which may be some time after the end; or at once if it is."""


def text_frame(payload: bytes) -> bytes:
    """Return the unmasked frame of a whole text message, whose payload is UTF-8."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + payload


def encode_with(message: Any, name: str, value: Any, encode: Callable[[Any], bytes] = msgspec.json.encode) -> bytes:
    """Encode a message with one more field in its JSON object. Other JSON is encoded without the field."""
    extended = _extended(message.__class__, name)
    if extended is not None:
        return encode(extended(*astuple(message), value))
    data = encode(message)
    return encode(split_fields(data) | {name: value}) if data.startswith(b"{") else data


@cache
def _extended(kind: Any, name: str) -> Callable[..., Struct] | None:
    """Return a Struct that is encoded like `kind`, with one more field; None if its JSON has to be inspected."""
    config = getattr(kind, "__struct_config__", None)
    if config is None or config.array_like or config.omit_defaults or name in kind.__struct_encode_fields__:
        return None
    encoded = [*kind.__struct_encode_fields__, name]
    fields = [(f"field{at}", Any, field(name=each)) for at, each in enumerate(encoded)]
    return defstruct(kind.__name__, fields, tag=config.tag, tag_field=config.tag_field, gc=False)


split_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Returns the fields of a JSON object, as JSON."""


class PassThroughMiddleware(ASGIMiddleware):
    """A middleware that passes on `receive` and `send` of a WebSocket unchanged, for the `scopes` that it names.

    Litestar's own keeps a coroutine for as long as a connection lives, even where it has nothing to do. This one keeps
    none, and does not take the fast path from the handlers behind it. It supports no `exclude_…`.
    """

    def __call__(self, app: ASGIApp) -> ASGIApp:
        handle, scopes = self.handle, frozenset(self.scopes)

        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return handle(scope, receive, send, app) if scope["type"] in scopes else app(scope, receive, send)

        return middleware


def surround(config: AppConfig, middleware: Callable[[ASGIApp], ASGIApp], *, innermost: bool = False) -> None:
    """Put a middleware around the whole application when it starts, so that it also sees requests without a handler.

    Args:
        config: The configuration of the application, which is changed.
        middleware: The middleware.
        innermost: Put it inside all others that are added this way.
    """
    done = False

    def wrap(app: Litestar) -> None:
        nonlocal done
        if not done:  # an application may start again, in tests
            app.asgi_handler = middleware(app.asgi_handler)
            done = True

    config.on_startup.insert(0 if innermost else len(config.on_startup), wrap)


def is_direct(handler: WebsocketRouteHandler) -> bool:
    """Return whether no middleware and no custom WebSocket class has to see the events of a handler."""
    resolved: Any = handler  # the types of its methods are partly unknown
    return resolved.resolve_websocket_class() is WebSocket and all(
        isinstance(each, PassThroughMiddleware)
        or (isinstance(each, ASGIMiddleware) and ScopeType.WEBSOCKET not in each.scopes)
        for each in resolved.resolve_middleware()
    )
