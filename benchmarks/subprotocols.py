"""What clients send inside the frames: the messages of the service's contract, as each server wants them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Subprotocol:
    """The messages of a server, and its own handshake where it has one."""

    say: str
    """A message; `%s` stands for its text, in JSON."""
    stream: str = ""
    """Asks for a stream; `%(length)d` stands for how many messages, `%(ref)d` for what they refer to."""
    ready: bytes = b""
    """How the frame begins with which the server is ready; with the WebSocket itself where this is empty."""
    replies: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    """What a client sends, by how the frame begins that asks for it."""


PLAIN = Subprotocol('{"type":"say","text":%s}', '{"type":"say","text":"%(length)d","ref":%(ref)d}')
CHANX = Subprotocol(
    '{"action":"say","payload":{"text":%s}}',
    '{"action":"say","payload":{"text":"%(length)d"},"ref":"%(ref)d"}',
)
SOCKET_IO = Subprotocol(
    '42["say",{"type":"say","text":%s}]',
    '42["stream",{"text":"%(length)d","ref":%(ref)d}]',
    ready=b"40",
    replies={b"0{": "40", b"2": "3"},
)
