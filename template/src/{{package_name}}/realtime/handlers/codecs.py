"""How a frame becomes a message."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from litestar.exceptions import WebSocketDisconnect
from litestar.typing import FieldDefinition
from msgspec import Meta

from ..sessions.frames import split_fields
from ..sessions.session import Session, Socket
from .messages import PINGS, ErrorMessage, Pong

MAX_DETAIL = 200
"""Characters of a decoder's error that go back to the client: it quotes what the client sent."""

Decode = Callable[[Any], Any]
"""Turn the data of a frame into a message, or raise `msgspec.DecodeError`."""


def make_receive(decode: Decode, *, binary: bool, is_json: bool, streams: bool) -> Callable[[Socket], Awaitable[Any]]:
    """Return what waits for the next message of a socket, and leaves its `ref` in the session.

    What cannot be decoded is answered here, and the connection stays open. So is a `ping`, unless the handler takes it,
    and a `cancel`.

    Args:
        decode: The decoder of the messages.
        binary: Messages come in binary frames; a frame of the other kind is a bad message.
        is_json: Messages are JSON, so that they may have a `ref`.
        streams: Messages are answered by streams, which a `cancel` stops; else it is ignored.
    """
    key = "bytes" if binary else "text"
    expected, other = ("binary", "text") if binary else ("text", "binary")
    wrong_frame = msgspec.DecodeError(f"Expected a {expected} frame, got a {other} frame")
    # Looked for in each message: only one that has it pays for more.
    mark: Any = (b'"ref"' if binary else '"ref"') if is_json else None
    answers_pings = is_json and not binary

    async def receive(socket: Socket) -> Any:
        session = Session.of(socket)
        while True:
            event: Any = await session.receive_event()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(detail="the client disconnected", code=event["code"])
            session.ref = None
            frame = event.get(key)
            if frame is None:
                await _answer_bad_message(session, wrong_frame)
                continue
            try:
                if mark and mark in frame:
                    frame, ref, cancels = _split_ref(frame)
                    session.ref = ref
                    if cancels:
                        if streams:
                            session.cancel_exchange(ref)
                        continue
                return decode(frame)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                # Only here: a message pays nothing for it, and a handler that has a `ping` of its own keeps it.
                if answers_pings and frame in PINGS:
                    await session.send_message(Pong(), session.ref)
                else:
                    await _answer_bad_message(session, error)

    return receive


def _split_ref(frame: Any) -> tuple[Any, Any, bool]:
    """Take the `ref` out of a message, so that no Struct sees it.

    Returns:
        The message without it, the `ref` or None, and whether the message is a `cancel`.
    """
    if frame.lstrip()[:1] not in {"{", b"{"}:
        return frame, None, False
    fields = split_fields(frame)
    if "ref" not in fields:  # it stands further down
        return frame, None, False
    ref = _decode_ref(fields.pop("ref"))
    return msgspec.json.encode(fields), ref, bytes(fields.get("type", b"")) == b'"cancel"'


_decode_ref: Final = msgspec.json.Decoder(
    Annotated[str, Meta(min_length=1, max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
).decode


def make_decoder(field: FieldDefinition | None, dec_hook: Callable[[Any, Any], Any]) -> Decode:
    """Return the decoder of the messages of a listener.

    Args:
        field: The parameter `data`: `str` and `bytes` take the frame as it is, everything else takes JSON.
        dec_hook: What makes the types that msgspec does not know.

    Raises:
        TypeError: msgspec cannot tell the types apart, or does not support one.
        NameError: An annotation of a message names something that does not exist at run time.
    """
    field = field or FieldDefinition.from_annotation(Any)
    if field.annotation in {str, bytes}:
        return field.annotation  # type: ignore[no-any-return]
    return msgspec.json.Decoder(field.raw, dec_hook=dec_hook).decode


async def _answer_bad_message(session: Session, error: Exception) -> None:
    await session.count_bad_message()
    detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    await session.send_message(ErrorMessage("invalid_message", detail[:MAX_DETAIL]), session.ref)
