"""Decode frames to messages; and the messages that the service itself receives and sends.

Those of your service are in its own `messages.py`.
"""

import re
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar.exceptions import HTTPException, WebSocketDisconnect
from litestar.handlers.websocket_handlers import WebsocketListenerRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from ..internals import frames_of
from ..sessions.cause import TooDeepError, held_exceptions
from ..sessions.fast_path import split_fields
from ..sessions.runtime import PLAIN_PING, PLAIN_PONG, Ref, is_ping
from ..sessions.session import Session

MAX_DETAIL: Final = 200
"""Characters of a decoder's error that go back to the client: it quotes what the client sent."""

RESERVED_TAGS: Final = frozenset({"error", "end", "cancel", "authenticate"})
"""The tags that a message of a user may not have."""
RESERVED_FIELDS: Final = frozenset({"ref", "sequence"})
"""The fields that the service adds to the messages that it sends."""


class MessageError(Exception):
    """Refuse a message: raise it in a listener, and the client is answered with an `ErrorMessage`.

    The connection stays open. To close it, raise Litestar's `WebSocketException`.

    Args:
        code: The error code for programs, such as "name_taken".
        detail: The explanation for people.
        extra: Further data for programs, such as the name of the wrong field.
    """

    def __init__(self, code: str, detail: str = "", *, extra: dict[str, Any] | Struct | None = None) -> None:
        """Keep what the client is answered."""
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.extra = extra


class ErrorMessage(Struct, tag="error"):
    """The answer to a message that is refused. The connection stays open.

    A message that cannot be decoded is answered with the code "invalid_message", and no handler has seen it. A listener
    refuses one by `MessageError`, with a code of its own, or by one of Litestar's HTTP exceptions below 500, whose code
    is the name of its class: "permission_denied".

    Attributes:
        code: The error code, for programs.
        detail: The explanation, for people; at most 200 characters of msgspec's own if the message cannot be decoded.
        extra: Further data from the listener.
    """

    code: Annotated[str, Meta(examples=["invalid_message"])]
    detail: str = ""
    extra: Any | UnsetType = UNSET


class End(Struct, tag="end"):
    """The end of a stream, sent if the message that it answers has a `ref`.

    Attributes:
        cancelled: The client has cancelled it.
    """

    cancelled: bool | UnsetType = UNSET


class Cancel(Struct, tag="cancel"):
    """A client stops the stream that answers the message with this `ref`."""

    ref: Ref


class Ping(Struct, tag="ping"):
    """A heartbeat of the client. A page in a browser cannot see the pings of RFC 6455, section 5.5.2."""


class Pong(Struct, tag="pong"):
    """The answer to a `ping`, from the service itself; no handler has seen the `ping`."""


OWN_MESSAGES: Final = frozenset({ErrorMessage, End, Cancel, Ping, Pong})


REFUSALS: Final[tuple[type[Exception], ...]] = (MessageError, HTTPException, ExceptionGroup)
"""The exceptions that may refuse a message. A group refuses it if all exceptions in the group do."""


def error_answer(error: Exception) -> ErrorMessage:
    """Return the answer to a message that a listener refuses, also if the exception is in a group.

    Raises:
        Exception: The given exception, if it is a bug or an HTTP exception with a status of 500 or more.
    """
    held = held_exceptions(error)
    if not all(map(_refuses, held)):
        raise error
    refusal = held[0]
    if isinstance(refusal, MessageError | TooDeepError):
        return ErrorMessage(refusal.code, refusal.detail, UNSET if refusal.extra is None else refusal.extra)
    name = type(refusal).__name__.removesuffix("Exception")
    code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() or "http"
    extra: dict[str, Any] | list[Any] | None = refusal.extra
    return ErrorMessage(code, refusal.detail, extra if isinstance(extra, dict) else UNSET)


def _refuses(error: Any) -> bool:
    is_http = isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_http or isinstance(error, MessageError)


class Codec:
    """Receives the messages of a listener.

    Args:
        handler: The listener. If its `data` is `str` or `bytes`, it takes frames as they are; otherwise JSON.
        streams: Whether its messages are answered by streams, which a `cancel` stops.

    Raises:
        TypeError: msgspec cannot tell the types of the messages apart, or does not support one.
        NameError: An annotation of a message names something that does not exist at run time.
    """

    def __init__(self, handler: WebsocketListenerRouteHandler, *, streams: bool) -> None:
        data: Any = handler.parsed_data_field
        self._streams = streams
        self._receives_binary = frames_of(handler)[0] == "binary" or data.annotation is bytes
        self._key = "bytes" if self._receives_binary else "text"
        self._mark: Any = b'"ref"' if self._receives_binary else '"ref"'  # only a message that has it pays for more
        self.is_json = data.annotation not in {str, bytes}
        """Messages are JSON, so that they may have a `ref`."""
        self._decode: Any = data.annotation
        if self.is_json:
            self._decode = msgspec.json.Decoder(data.raw, dec_hook=handler.default_deserializer).decode
            for each in data.inner_types or (data,):  # msgspec 0.22 refuses a tag beyond ASCII until it has encoded it
                msgspec.json.encode(getattr(getattr(each.annotation, "__struct_config__", None), "tag", None))
        self.answers_pings = False
        """A `ping` in JSON is answered here, because it is not a message that the listener takes."""
        if self.is_json and not self._receives_binary:
            try:
                self._decode(msgspec.json.encode(Ping()))
            except msgspec.DecodeError:
                self.answers_pings = True

    async def receive(self, session: Session) -> Any:
        """Wait for the next message, and leave its `ref` in the session.

        Invalid messages, `ping` and `cancel` are answered here, and the connection stays open.

        Raises:
            WebSocketDisconnect: The connection has ended.
        """
        while True:
            event: Any = await session.receive_event()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(detail="the client disconnected", code=event["code"])
            session.ref = None
            frame = event.get(self._key)
            try:
                if frame is not None:
                    if self._mark not in frame or not self.is_json:
                        return self._decode(frame)
                    frame, ref, cancels = _split_ref(frame)
                    session.ref = ref
                    if not cancels:
                        return self._decode(frame)
                    if self._streams:
                        session.cancel_exchange(ref)
                    continue
                kinds = ("binary", "text") if self._receives_binary else ("text", "binary")
                detail = "Expected a {} frame, got a {} frame".format(*kinds)
            except RecursionError:
                detail = TooDeepError.detail
            except (msgspec.DecodeError, UnicodeError) as error:
                # Only here: a message pays nothing for it, and a handler that has a `ping` of its own keeps it.
                if self.answers_pings and is_ping(frame):
                    await session.count_ping()
                    await session.send_message(PLAIN_PONG if frame == PLAIN_PING else Pong(), session.ref)
                    continue
                detail = str(error)
            await session.count_bad_message()
            await session.send_message(ErrorMessage("invalid_message", detail[:MAX_DETAIL]), session.ref)


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


_decode_ref: Final = msgspec.json.Decoder(Ref).decode
