"""How a frame becomes a message, and an answer a frame; and the messages that the service itself receives and sends.

Those of your service are in its own `messages.py`.
"""

from typing import Any, Final, Literal

import msgspec
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from msgspec import Struct

from ..internals import frames_of
from ..sessions.session import Session, Socket

MAX_DETAIL: Final = 200
"""Characters of a decoder's error that go back to the client: it quotes what the client sent."""


class ErrorMessage(Struct, tag="error"):
    """The answer to a message that cannot be decoded. The connection stays open; no handler has seen the message.

    Attributes:
        code: "invalid_message".
        detail: What is wrong with the message, in msgspec's words; at most 200 characters.
    """

    code: Literal["invalid_message"]
    detail: str


class Ping(Struct, tag="ping"):
    """A client asks for a sign of life. A browser does not show its page the pings of RFC 6455, section 5.5.2."""


class Pong(Struct, tag="pong"):
    """The answer to a `ping`, from the service itself; no handler has seen the `ping`."""


PINGS: Final = frozenset({'{"type":"ping"}', '{"type": "ping"}'})
"""A ping as `JSON.stringify` writes it, and as Python's `json.dumps` does."""
PONG: Final = msgspec.json.encode(Pong()).decode()


class Codec:
    """Receives the messages of a listener, and sends its answers.

    Args:
        handler: The listener. Where its `data` is `str` or `bytes`, it takes frames as they are; else they are JSON.

    Raises:
        TypeError: msgspec cannot tell the types of the messages apart, or does not support one.
        NameError: An annotation of a message names something that does not exist at run time.
    """

    def __init__(self, handler: WebsocketListenerRouteHandler) -> None:
        data: Any = handler.parsed_data_field
        receive_mode, send_mode = frames_of(handler)
        self._receives_binary = receive_mode == "binary" or data.annotation is bytes
        self._sends_binary = send_mode == "binary"
        self._encode = msgspec.json.Encoder(enc_hook=handler.default_serializer).encode
        self._decode: Any = data.annotation
        if data.annotation not in {str, bytes}:
            self._decode = msgspec.json.Decoder(data.raw, dec_hook=handler.default_deserializer).decode
        self.answers_pings = False
        """A `ping` in JSON is answered here, because it is not a message that the listener takes."""
        if not self._receives_binary:
            try:
                self._decode(next(iter(PINGS)))
            except msgspec.DecodeError:
                self.answers_pings = True

    async def receive(self, socket: Socket) -> Any:
        """Wait for the next message. What cannot be decoded is answered here, and the connection stays open.

        Raises:
            WebSocketDisconnect: The connection has ended.
        """
        receive_event = Session.of(socket).receive_event
        while True:
            event: Any = await receive_event()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(detail="the client disconnected", code=event["code"])
            frame = event.get("bytes" if self._receives_binary else "text")
            try:
                if frame is not None:
                    return self._decode(frame)
                kinds = ("binary", "text") if self._receives_binary else ("text", "binary")
                detail = "Expected a {} frame, got a {} frame".format(*kinds)
            except RecursionError:
                detail = "nested too deeply"
            except (msgspec.DecodeError, UnicodeError) as error:
                # Only here: a message pays nothing for it, and a handler that has a `ping` of its own keeps it.
                if self.answers_pings and frame in PINGS:
                    await socket.send_text(PONG)
                    continue
                detail = str(error)
            await Session.of(socket).count_bad_message()
            answer = ErrorMessage(code="invalid_message", detail=detail[:MAX_DETAIL])
            await socket.send_data(msgspec.json.encode(answer))

    async def send(self, socket: Socket, data: Any) -> None:
        """Send an answer: `str` and `bytes` as they are, None not at all, everything else as JSON."""
        if data is None:
            return
        if isinstance(data, bytes):
            await socket.send_bytes(data)
            return
        text = not self._sends_binary or isinstance(data, str)
        payload = data.encode() if isinstance(data, str) else self._encode(data)
        if not (text and Session.of(socket).write_text(payload)):
            await socket.send_data(payload, mode="text" if text else "binary")
