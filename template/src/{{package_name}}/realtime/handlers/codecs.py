"""How a frame becomes a message, and an answer a frame."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar.exceptions import WebSocketDisconnect
from litestar.types.asgi_types import WebSocketMode
from litestar.typing import FieldDefinition

from ..sessions.limits import PONGS
from ..sessions.session import Session, Socket
from .messages import ErrorMessage

MAX_DETAIL = 200
"""Characters of a decoder's error that go back to the client: it quotes what the client sent."""

Decode = Callable[[Any], Any]
"""Turn a `websocket.receive` event into a message, or raise `msgspec.DecodeError`."""


def make_receive(decode: Decode, *, answers_pings: bool) -> Callable[[Socket], Awaitable[Any]]:
    """Return what waits for the next message of a socket.

    What cannot be decoded is answered here, and the connection stays open.
    """

    async def receive(socket: Socket) -> Any:
        receive_event = Session.of(socket).receive_event
        while True:
            event: Any = await receive_event()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(detail="the client disconnected", code=event["code"])
            try:
                return decode(event)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                # Only here: a message pays nothing for it, and a handler that has a `ping` of its own keeps it.
                if answers_pings and (pong := PONGS.get(event.get("text"))):
                    await Session.of(socket).count_ping()
                    await socket.send_text(pong)
                else:
                    await _answer_bad_message(socket, error)

    return receive


def make_decoder(field: FieldDefinition | None, dec_hook: Callable[[Any, Any], Any], *, binary: bool) -> Decode:
    """Return the decoder of the messages of a listener.

    Args:
        field: The parameter `data`: `str` and `bytes` take the frame as it is, everything else takes JSON.
        dec_hook: What makes the types that msgspec does not know.
        binary: Messages come in binary frames; a frame of the other kind is a bad message.

    Raises:
        TypeError: msgspec cannot tell the types apart, or does not support one.
        NameError: An annotation of a message names something that does not exist at run time.
    """
    field = field or FieldDefinition.from_annotation(Any)
    key = "bytes" if binary else "text"
    expected, other = ("binary", "text") if binary else ("text", "binary")
    decode: Callable[[Any], Any] = (
        field.annotation
        if field.annotation in {str, bytes}
        else msgspec.json.Decoder(field.raw, dec_hook=dec_hook).decode
    )

    def decode_event(event: Any) -> Any:
        frame = event.get(key)
        if frame is None:
            raise msgspec.DecodeError(f"Expected a {expected} frame, got a {other} frame")
        return decode(frame)

    return decode_event


def make_send(enc_hook: Callable[[Any], Any], mode: WebSocketMode) -> Callable[[Socket, Any], Awaitable[None]]:
    """Return what sends an answer: `str` and `bytes` as they are, None not at all, everything else as JSON.

    Args:
        enc_hook: What turns the types that msgspec does not know into those that it does.
        mode: The kind of frames for JSON.
    """
    encode = msgspec.json.Encoder(enc_hook=enc_hook).encode
    binary = mode == "binary"

    async def send(socket: Socket, data: Any) -> None:
        if data is None:
            return
        if isinstance(data, bytes):
            await socket.send_bytes(data)
            return
        text = not binary or isinstance(data, str)
        payload = data.encode() if isinstance(data, str) else encode(data)
        if not (text and Session.of(socket).write_text(payload)):
            await socket.send_data(payload, mode="text" if text else "binary")

    return send


async def _answer_bad_message(socket: Socket, error: Exception) -> None:
    await Session.of(socket).count_bad_message()
    detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    answer = ErrorMessage(code="invalid_message", detail=detail[:MAX_DETAIL])
    await socket.send_data(msgspec.json.encode(answer))
