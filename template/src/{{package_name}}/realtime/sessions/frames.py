"""Whole WebSocket frames, written by the server as they are, past ASGI."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from litestar.types import ReceiveMessage
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


def add_fields(data: bytes, **fields: Any) -> bytes:
    """Add fields to a JSON object; any other JSON has no place for them and is returned as it is."""
    return msgspec.json.encode(split_fields(data) | fields) if data.startswith(b"{") else data


split_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Returns the fields of a JSON object, as JSON."""
