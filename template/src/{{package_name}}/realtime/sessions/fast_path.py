"""The fast path: whole WebSocket frames, written by the server as they are, past ASGI and past all middleware.

It is there for handlers behind no middleware but such as leaves the events of a WebSocket alone.
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
    """The server's end of a WebSocket, to which whole frames can be written."""

    writable: asyncio.Event
    """Set while the client keeps up, and when it is gone."""

    @property
    def compresses(self) -> bool:
        """Whether each connection has its own encoding, so that no frame fits two."""
        ...

    @property
    def takes_frames(self) -> bool:
        """Whether it is open and the client keeps up."""
        ...

    def write_frames(self, frames: bytes) -> None:
        """Write whole frames. Call it only while it takes frames."""

    def hold_frames(self) -> None:
        """Write what is written from now on together, in the next turn of the loop."""

    def notify_disconnect(self, callback: Callable[[ReceiveMessage], None]) -> None:
        """Call back with the `websocket.disconnect` event as soon as it is known, ahead of the messages before it.

        Messages are read up to a window ahead of the handler. While more are unread, nothing tells of a disconnect.

        Args:
            callback: Called once; at once, where the connection has ended already. It must not raise.
        """

    def notify_closed(self, callback: Callable[[], None]) -> None:
        """Call back once its descriptor is closed, which may be some time after the end; at once, where it is."""


def text_frame(payload: bytes) -> bytes:
    """Return the unmasked frame of a whole text message, whose payload is UTF-8."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + payload


def encode_with(message: Any, name: str, value: Any, encode: Callable[[Any], bytes] = msgspec.json.encode) -> bytes:
    """Encode a message with one field more in its JSON object. Any other JSON has no place for it."""
    extended = _extended(message.__class__, name)
    if extended is not None:
        return encode(extended(*astuple(message), value))
    data = encode(message)
    return encode(split_fields(data) | {name: value}) if data.startswith(b"{") else data


@cache
def _extended(kind: Any, name: str) -> Callable[..., Struct] | None:
    """Return a Struct that is encoded as `kind` is, with one field more; None where its JSON has to be looked at."""
    config = getattr(kind, "__struct_config__", None)
    if config is None or config.array_like or config.omit_defaults or name in kind.__struct_encode_fields__:
        return None
    encoded = [*kind.__struct_encode_fields__, name]
    fields = [(f"field{at}", Any, field(name=each)) for at, each in enumerate(encoded)]
    return defstruct(kind.__name__, fields, tag=config.tag, tag_field=config.tag_field, gc=False)


split_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Returns the fields of a JSON object, as JSON."""


class PassThroughMiddleware(ASGIMiddleware):
    """A middleware that hands on `receive` and `send` of a WebSocket as they are, for the `scopes` that it names.

    Litestar's own keeps a coroutine for as long as a connection lives, even where it has nothing to do. This one keeps
    none, and does not take the fast path from the handlers behind it. It supports no `exclude_…`.
    """

    def __call__(self, app: ASGIApp) -> ASGIApp:
        handle, scopes = self.handle, frozenset(self.scopes)

        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            return handle(scope, receive, send, app) if scope["type"] in scopes else app(scope, receive, send)

        return middleware


def surround(config: AppConfig, middleware: Callable[[ASGIApp], ASGIApp], *, innermost: bool = False) -> None:
    """Put a middleware around the whole application when it starts, so that it sees what no handler answers.

    Args:
        config: The configuration of the application, which is changed.
        middleware: The middleware.
        innermost: Put it inside of all others that are added so.
    """
    done = False

    def wrap(app: Litestar) -> None:
        nonlocal done
        if not done:  # an application may start again, in tests
            app.asgi_handler = middleware(app.asgi_handler)
            done = True

    config.on_startup.insert(0 if innermost else len(config.on_startup), wrap)


def is_direct(handler: WebsocketRouteHandler) -> bool:
    """Return whether no middleware and no WebSocket class of its own wants to see the events of a handler."""
    resolved: Any = handler  # the types of its methods are partly unknown
    return resolved.resolve_websocket_class() is WebSocket and all(
        isinstance(each, PassThroughMiddleware)
        or (isinstance(each, ASGIMiddleware) and ScopeType.WEBSOCKET not in each.scopes)
        for each in resolved.resolve_middleware()
    )
