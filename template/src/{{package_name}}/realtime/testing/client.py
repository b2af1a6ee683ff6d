"""What a test in the service's own process sends and receives, in typed messages, and what is sent undocumented."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from itertools import count
from queue import Empty, Queue
from typing import Any, Final, Protocol, TypeVar

import msgspec
from litestar import Litestar
from litestar.serialization import default_deserializer
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession
from msgspec import Struct

from ..errors import source_location
from ..fanout.dispatch import Batch
from ..fanout.messages import room_channel
from ..fanout.plugin import Fanout
from ..handlers.listener import ListenerRouteHandler
from ..handlers.messages import RESERVED_FIELDS, Cancel, End, ErrorMessage, MessageError, Ping
from ..internals import frames_of, function_of
from ..sessions.fast_path import encode_with, split_fields
from ..sessions.session import SESSION_KEY, Session, State
from .process import TIMEOUT

TURNS: Final = 8
"""Turns of the event loop after which what was published has reached each connection of this process; it takes four."""

Message = TypeVar("Message")


class Client:
    """One connection to the service, in the process of the test.

    Messages are the Structs of messages.py; for a listener that takes or sends `str` or `bytes`, they are that.

    Args:
        session: The connection, as Litestar's test client has it.
    """

    def __init__(self, session: WebSocketTestSession) -> None:
        self._session = session
        self._scope: Any = session.scope  # its types are partly unknown
        self._handler: Any = self._scope["route_handler"]
        self._refs = count(1)
        self._skipped: deque[Any] = deque()
        """What was received while an answer was waited for."""

    def send(self, message: Any) -> None:
        """Send a message without waiting for an answer."""
        self._send(message)

    def receive(self, message: type[Message]) -> Message:
        """Return the next message.

        Args:
            message: Its type.

        Raises:
            AssertionError: It is of another type, or nothing came within 20 seconds.
            WebSocketDisconnect: The service has closed the connection; `code` and `detail` say why.
        """
        return self._decode(self._skipped.popleft() if self._skipped else self._receive(), message)

    def receive_nothing(self) -> None:
        """Check that no message is left, after everything sent here is handled and everything published is sent.

        It sends a ping, which the service answers last, so no time has to pass.

        Raises:
            AssertionError: There is a message.
            TypeError: The listener answers no pings, because it does not receive JSON in text, or has its own `ping`.
        """
        handler = self._handler
        if not (isinstance(handler, ListenerRouteHandler) and handler.codec.answers_pings):
            place = source_location(function_of(handler))
            raise TypeError(f"{place} answers no pings. Fix: receive the answer to a message instead")
        self._call(_take_turns)
        self._receive_answer(self._send(Ping(), ref=True))
        if self._skipped:
            raise AssertionError(f"expected no message, received {[*self._skipped]}")

    def request(self, message: Any, answer: type[Message]) -> Message:
        """Send a message with a `ref`, and return its answer. Other messages are kept for `receive`.

        Args:
            message: The message.
            answer: The type of the answer.

        Raises:
            MessageError: The service refuses the message, and `answer` is not `ErrorMessage`.
            AssertionError: The answer is of another type, or did not come within 20 seconds.
            WebSocketDisconnect: The service has closed the connection.
        """
        return self._decode_answer(self._receive_answer(self._send(message, ref=True)), answer)

    def stream(self, message: Any, item: type[Message]) -> Generator[Message]:
        """Send a message with a `ref`, and yield the items of its answer. Other messages are kept for `receive`.

        Closing the generator cancels the stream.

        Args:
            message: The message.
            item: The type of the items.

        Returns:
            A generator, which ends with the stream. It raises as `request` does.
        """
        return self._receive_items(self._send(message, ref=True), item)

    def close(self, code: int = 1000) -> None:
        """Close the connection, unless it has ended, and wait until the service has cleaned up after it.

        Args:
            code: The close code.

        Raises:
            TimeoutError: The clean-up takes more than 20 seconds.
        """
        self._session.close(code)
        self._call(_wait_closed, self._scope["state"][SESSION_KEY])

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        with self._session.client.portal() as portal:
            portal.call(function, *arguments)

    def _send(self, message: Any, *, ref: bool = False) -> int:
        number = next(self._refs)
        if isinstance(message, str | bytes):
            self._session.send(message, "text" if isinstance(message, str) else "binary")
        else:
            encode = partial(msgspec.json.encode, enc_hook=self._handler.default_serializer)
            encoded = encode_with(message, "ref", number, encode) if ref else encode(message)
            self._session.send(encoded, frames_of(self._handler)[0])
        return number

    def _receive(self) -> Any:
        """Return the next frame."""
        try:
            return _frame_of(self._session.receive(timeout=TIMEOUT))
        except Empty:
            raise AssertionError(f"nothing was received within {TIMEOUT} seconds") from None

    def _receive_answer(self, ref: int) -> Any:
        while not _is_answer(frame := self._receive(), ref):
            self._skipped.append(frame)
        return frame

    def _decode_answer(self, frame: Any, answer: type[Message]) -> Message:
        if answer is not ErrorMessage and _has_tag(frame, ErrorMessage):
            error = self._decode(frame, ErrorMessage)
            raise MessageError(error.code, error.detail, extra=error.extra or None)
        return self._decode(frame, answer)

    def _decode(self, frame: Any, message: type[Message]) -> Message:
        return _decode(frame, message, self._handler.default_deserializer)

    def _receive_items(self, ref: int, item: type[Message]) -> Generator[Message]:
        frame = self._receive_answer(ref)
        try:
            while not _has_tag(frame, End):
                yield self._decode_answer(frame, item)
                frame = self._receive_answer(ref)
        except GeneratorExit:
            self._send(Cancel(ref))
            while not (_has_tag(frame, End) or _has_tag(frame, ErrorMessage)):
                frame = self._receive_answer(ref)
            raise


class Channel:
    """The messages that are published on a channel from now on.

    Args:
        client: The client of the application.
        name: The name of the channel.
    """

    def __init__(self, client: TestClient[Litestar], name: str) -> None:
        self._client: Any = client  # its types are partly unknown
        self._data: Queue[bytes] = Queue()
        with client.portal() as portal:
            portal.call(self._client.app.plugins.get(Fanout).subscribe, room_channel(name), self._deliver)

    def receive(self, message: type[Message]) -> Message:
        """Return the next message that is published.

        Args:
            message: Its type.

        Raises:
            AssertionError: It is of another type, or nothing is published within 20 seconds.
        """
        try:
            data = self._data.get(timeout=TIMEOUT)
        except Empty:
            raise AssertionError(f"nothing was published within {TIMEOUT} seconds") from None
        dec_hook = partial(default_deserializer, type_decoders=self._client.app.type_decoders)
        return _decode(data, message, dec_hook)

    def receive_nothing(self) -> None:
        """Check that no message is left.

        Raises:
            AssertionError: There is one.
        """
        with self._client.portal() as portal:
            portal.call(_take_turns)
        if not self._data.empty():
            raise AssertionError(f"expected nothing, {self._data.get()!r} was published")

    def _deliver(self, batch: Batch) -> None:
        for message in batch.messages:
            self._data.put(message.data)


class UndocumentedMessages:
    """Listens to what an application sends.

    Args:
        app: The application.
    """

    def __init__(self, app: Litestar) -> None:
        self.found: list[str] = []
        """A line for each message that no listener has declared."""
        app.before_send.append(self._look)

    async def _look(self, event: Any, scope: Any) -> None:
        handler = scope.get("route_handler")
        if event["type"] == "websocket.send" and isinstance(handler, ListenerRouteHandler):
            frame = _frame_of(event)
            if not any(_is(frame, declared.raw, handler) for declared in handler.sent_types()):
                self.found.append(
                    f"{source_location(function_of(handler))} lets clients receive {frame!r} and does not declare "
                    "it.\nFix: return it, or name its Struct, as in sends=Joined | Left."
                )


class Connect(Protocol):
    """Open a connection: `connect("/ws/rooms/{room}", user="eve", room="kitchen", after=0)`."""

    def __call__(self, path: str, *, user: str = "ada", **parameters: object) -> Client:
        """Open a connection. It is closed when the test ends.

        Args:
            path: The path, in which `{name}` stands for a parameter.
            user: The user who connects, if the service has authentication.
            parameters: The parameters of the path and of the query.

        Raises:
            WebSocketDisconnect: The service rejects the handshake.
        """
        ...


Published = Callable[[str], Channel]
"""Follow what is published on a channel: `published("kitchen")`."""


async def _take_turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _wait_closed(session: Session) -> None:
    async with asyncio.timeout(TIMEOUT):
        while session.state is not State.CLOSED:  # noqa: ASYNC110  the test client itself polls
            await asyncio.sleep(0)


def _frame_of(event: Any) -> Any:
    return event.get("bytes") if event.get("text") is None else event["text"]


def _fields(frame: Any) -> dict[str, msgspec.Raw]:
    """Return the fields of a message that is a JSON object; none of any other."""
    return split_fields(frame) if frame and frame[:1] in {"{", b"{"} else {}


def _without_reserved(frame: Any) -> Any:
    """Return a frame without the fields that the service adds to a message."""
    fields = _fields(frame)
    plain = {name: value for name, value in fields.items() if name not in RESERVED_FIELDS}
    return msgspec.json.encode(plain) if fields else frame


def _is_answer(frame: Any, ref: int) -> bool:
    return _fields(frame).get("ref") == msgspec.Raw(b"%d" % ref)


def _has_tag(frame: Any, kind: type[Struct]) -> bool:
    return _fields(frame).get("type") == msgspec.Raw(msgspec.json.encode(kind.__struct_config__.tag))


def _decode(frame: Any, kind: type[Message], dec_hook: Callable[[Any, Any], Any]) -> Message:
    """Return a message without what the service adds to it.

    Raises:
        AssertionError: It is of another type.
    """
    if isinstance(frame, str | bytes) and type(frame) is kind:
        return frame
    try:
        return msgspec.json.decode(_without_reserved(frame), type=kind, dec_hook=dec_hook)
    except (msgspec.DecodeError, TypeError) as error:
        raise AssertionError(f"expected {kind}, received {frame!r}: {error}") from None


def _is(frame: Any, kind: Any, handler: ListenerRouteHandler) -> bool:
    """Return whether a frame is a message of this type, and has nothing more."""
    if kind in {str, bytes}:
        return isinstance(frame, kind)
    try:
        message = _decode(frame, kind, handler.default_deserializer)
    except AssertionError:
        return False
    again = msgspec.json.encode(message, enc_hook=handler.default_serializer)
    return bool(msgspec.json.decode(again) == msgspec.json.decode(_without_reserved(frame)))
