"""WebSocket frames that are whole: written for everybody at once, and read without a parser that can wait."""

from typing import Final

from websockets.frames import Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # where there is no compiled one for the platform
    from websockets.utils import apply_mask

__all__ = ["BINARY", "KNOWN", "MASKED", "MESSAGES", "TEXT", "apply_mask", "text_frame"]

FINAL: Final = 0x80
"""The bit of the last frame of a message, in the first byte (RFC 6455, 5.2)."""
TEXT: Final = FINAL | Opcode.TEXT
BINARY: Final = FINAL | Opcode.BINARY
MESSAGES: Final = frozenset((TEXT, BINARY))
KNOWN: Final = frozenset(map(int, Opcode))
"""The operation codes that there are, in the lower half of the first byte."""
MASKED: Final = 0x80
"""The bit of a masked payload, in the second byte; each frame of a client has it."""


def text_frame(payload: bytes) -> bytes:
    """Make the frame of a whole text message, as a server sends it: not masked. The payload is UTF-8."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + payload
