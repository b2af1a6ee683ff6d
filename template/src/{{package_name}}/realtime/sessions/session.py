"""The open sockets: each is counted before its first await, and leaves when its clean-up is done."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect
from litestar.types import Message, Receive, ReceiveMessage, Send
from websockets.frames import CloseCode

from ..internals import function_behind
from .cause import PROTOCOL_CODES, Cause, Reason, is_sendable, truncate_reason
from .denial import refuse
from .frames import text_frame
from .limits import BadMessageLimit, MessageLimit

if TYPE_CHECKING:
    from .info import ConnectionInfo
    from .plugin import Sessions

Socket = WebSocket[Any, Any, Any]
"""Litestar's `WebSocket`, whatever its user, auth and state: the type to annotate `socket` with."""


class FrameWriter(ABC):
    """The server's end of a socket, as far as whole frames can be written to it; `WebSocketProtocol` is one."""

    writable: asyncio.Event
    """Set while the client keeps up, and when it is gone."""

    @property
    @abstractmethod
    def compresses(self) -> bool:
        """Each connection has an encoding of its own, so no frame fits two."""

    @property
    @abstractmethod
    def takes_frames(self) -> bool:
        """It is open, and the client keeps up."""

    @abstractmethod
    def write_frames(self, frames: bytes) -> None:
        """Write whole frames, only while it takes any."""


class Session:
    """One WebSocket between the server and Litestar, from its handshake to the end of its clean-up.

    It sees every event in both directions, so it alone knows whether the socket is accepted, who closed it and why,
    and how many messages went each way. The first end is the cause; nothing that follows changes it.
    """

    __slots__ = (
        "_receive",
        "_send",
        "accepted",
        "before_accept",
        "bad_messages",
        "cause",
        "client",
        "connection",
        "connections",
        "closing",
        "error_status",
        "handling_started_at",
        "last_received_at",
        "initialized",
        "exit_stack",
        "limit",
        "awaiting_message",
        "send_failed",
        "messages_in",
        "messages_out",
        "next_event",
        "path",
        "scope",
        "handled_error",
        "opened_at",
        "task",
        "user",
        "writer",
    )

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send, connections: "Sessions") -> None:
        self._receive = receive
        self._send = send
        self.scope = scope
        self.connections = connections
        self.connection: ConnectionInfo | None = None
        self.client = client_address(scope)
        self.user = ""
        """Set by whatever authenticates the handshake, before it is accepted."""
        self.path = quote(scope["path"])  # quoted again: what a stranger writes there must not break a log line
        self.task = asyncio.current_task()
        self.opened_at = monotonic()
        self.limit = MessageLimit.from_settings(connections.settings)
        self.bad_messages = BadMessageLimit(connections.settings.max_bad_messages)
        self.before_accept: Callable[[Message], None] = _let_pass
        """Called with the `websocket.accept` before it goes out, and may raise; for whatever authenticates."""
        self.accepted = False
        self.exit_stack: AsyncExitStack | None = None
        """What is undone when the connection ends, the last first; None until it is accepted in its lifespan."""
        self.initialized = False
        """`on_accept` is through: what raises from here on is the handler's."""
        self.closing = False
        """Its clean-up runs: bounded in time by itself, and cancelled by nobody."""
        self.cause: Cause | None = None
        self.send_failed = False
        """The server could not send; why, it says when it is asked for the next event."""
        self.next_event: Receive = self.receive
        """Takes the next event the way that the handler takes it, with all that stands between."""
        self.writer: FrameWriter | None = None
        """The server's end, to which whole frames can be written; None where each message has to be an event, for
        something on the way (a middleware, compression, a class of your own, a test client) wants to see it."""
        self.handled_error: BaseException | None = None
        """The exception that is dealt with already, so that it is logged once."""
        self.error_status: int | None = None
        """The HTTP status of an exception that left the handler outside of any lifespan."""
        self.messages_in = 0
        self.messages_out = 0
        self.awaiting_message = False
        """It waits for the next event: no message is handled, and none waits."""
        self.last_received_at = self.opened_at
        """When the last message came, as of `monotonic()`."""
        self.handling_started_at = 0.0
        """When the message that is handled now came; 0 where none is."""

    @staticmethod
    def of(socket: Socket) -> "Session":
        """Return the session of a socket that came through the gate.

        Raises:
            RuntimeError: The application has no `Connections` plugin.
        """
        try:
            session: Session = socket.scope["state"][SESSION_KEY]
        except KeyError:
            raise RuntimeError(
                f"{socket.scope['path']}: this application has no Sessions plugin, so nothing counts, limits or "
                "cleans up its sockets. Add it: Litestar(plugins=[Sessions(...)]), as create_app() does."
            ) from None
        return session

    def enable_fast_path(self, socket: Socket) -> None:
        """Look, once it is accepted, what is between the handler and the server, and set `writer` and `next_event`."""
        self.next_event = self.receive if function_behind(socket.receive) == self.receive else socket.receive
        server = getattr(function_behind(self._send), "__self__", None)
        plain = type(socket) is WebSocket and function_behind(socket.send) == self.send
        if plain and isinstance(server, FrameWriter) and not server.compresses:
            self.writer = server

    def write_text(self, payload: bytes) -> bool:
        """Send a text message the short way; False where there is none, or the client does not keep up."""
        writer = self.writer
        if writer is None or self.cause is not None or not writer.takes_frames:
            return False
        writer.write_frames(text_frame(payload))
        self.messages_out += 1
        return True

    async def receive(self) -> ReceiveMessage:
        """Take the next event from the server.

        Raises:
            WebSocketDisconnect: The socket was closed from our side.
        """
        if self.cause is not None:
            raise WebSocketDisconnect(detail="this connection is closed", code=self.cause.code)
        self.message_handled()
        self.awaiting_message = True
        message = await self._receive()
        self.awaiting_message = False
        if message["type"] == "websocket.receive":
            self.messages_in += 1
            self.handling_started_at = self.last_received_at = now = monotonic()
            if not self.limit.allows_message(now):
                await self.close_for_limit("max_messages_per_second", "too many messages")
                raise WebSocketDisconnect(detail="too many messages", code=CloseCode.POLICY_VIOLATION)
        elif message["type"] == "websocket.disconnect" and self.cause is None:
            self.cause = cause_of_disconnect(message)
            if self.cause.code == CloseCode.MESSAGE_TOO_BIG:
                self.connections.metrics.limits["max_message_size"] += 1
        return message

    def message_handled(self) -> None:
        """Count the time that the last message took, if there is one: it is through, or the connection has ended."""
        if self.handling_started_at:
            self.connections.metrics.message_handled(monotonic() - self.handling_started_at)
            self.handling_started_at = 0.0

    async def send(self, message: Message) -> None:
        """Hand an event to the server.

        Raises:
            WebSocketDisconnect: The peer is gone, whatever the server calls that, or the socket is closed already.
            ValueError: A close code that no endpoint may send.
        """
        if message["type"] == "websocket.close":
            await self._send_close(message["code"], message["reason"])
            return
        if self.cause is not None:
            raise WebSocketDisconnect(detail="this connection is closed", code=self.cause.code)
        if message["type"] == "websocket.accept" and self.connections.registry.draining:
            await self._refuse(503, "the service is about to restart")  # it came through the gate before the drain
            raise WebSocketDisconnect(detail="the service is about to restart", code=CloseCode.SERVICE_RESTART)
        if message["type"] == "websocket.accept":
            self.before_accept(message)
        await self._pass_on(message)
        if message["type"] == "websocket.accept":
            self.accepted = True
            self.connections.metrics.accepted += 1
        else:
            self.messages_out += 1

    async def close(self, reason: Reason, code: int, detail: str = "", error: BaseException | None = None) -> Cause:
        """Close from our side, unless it has ended already; return the cause. Never raises: nobody would hear it."""
        if self.cause is None:
            self.cause = Cause(reason, code, error)
            with suppress(WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(self.connections.settings.hook_seconds):  # a peer may read nothing
                    await self._pass_on({"type": "websocket.close", "code": code, "reason": truncate_reason(detail)})
        return self.cause

    async def close_for_limit(self, limit: str, detail: str) -> None:
        """Close with 1008, for the client went over a limit: the name of its setting."""
        if self.cause is None:
            self.connections.metrics.limits[limit] += 1
            await self.close(Reason.LIMIT_EXCEEDED, CloseCode.POLICY_VIOLATION, detail)

    def close_slow_consumer(self) -> Cause:
        """Note that the client reads too slowly; the server closes it. Return the cause: what ended it first."""
        if self.cause is None:
            self.connections.metrics.limits["send_seconds"] += 1
            self.cause = Cause(Reason.LIMIT_EXCEEDED, CloseCode.TRY_AGAIN_LATER)
        return self.cause

    async def _send_close(self, code: int, reason: str | None) -> None:
        if not self.accepted:
            # Whatever raised before the accept: an HTTP answer with its own status, not the bare 403 of a close.
            await self._refuse(self.error_status or 403, reason or "forbidden")
        elif self.error_status is not None:
            # Litestar's answer to an exception outside the lifespan: its 4500 is our 1011 or 1008.
            failed = self.error_status >= 500
            await self.close(
                Reason.HANDLER_FAILED if failed else Reason.SERVICE_CLOSED,
                CloseCode.INTERNAL_ERROR if failed else CloseCode.POLICY_VIOLATION,
                "internal error" if failed else reason or "",
            )
        elif not is_sendable(code):
            raise ValueError(f"close code {code} may not be sent: use 1000, 1008, or one of your own from 4000 to 4999")
        else:
            await self.close(Reason.SERVICE_CLOSED, code, reason or "")

    async def _refuse(self, status: int, detail: str) -> None:
        if self.cause is None:
            self.cause = Cause(Reason.SERVICE_CLOSED, CloseCode.POLICY_VIOLATION)
            await refuse(self.scope, self._send, status, detail)

    async def _pass_on(self, message: Message) -> None:
        """Send, and say `WebSocketDisconnect` where the server says OSError or, after a ping timeout, RuntimeError.

        Only what the server raises is translated here, so an OSError of a handler (a file, a database) stays itself.
        """
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            opening = not self.accepted or message["type"] == "websocket.accept"
            if opening and isinstance(error, RuntimeError):
                raise
            self.send_failed = True
            raise WebSocketDisconnect(detail="connection lost", code=CloseCode.ABNORMAL_CLOSURE) from error

    async def read_cause(self) -> None:
        """Where a send was the first to fail, read on to the cause: a client may well have closed behind messages that
        are still unread. Only for the task of the connection: a second reader would rob it of its events.
        """
        if not self.send_failed or self.cause is not None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.connections.settings.hook_seconds):
                while self.cause is None:
                    message = await self._receive()
                    if message["type"] == "websocket.disconnect":
                        self.cause = cause_of_disconnect(message)
        if self.cause is None:
            self.cause = Cause(Reason.CONNECTION_LOST, CloseCode.ABNORMAL_CLOSURE)


def _let_pass(_: Message) -> None: ...


SESSION_KEY = "_open_socket"


def cause_of_disconnect(message: ReceiveMessage) -> Cause:
    """Read the cause from a `websocket.disconnect` event.

    Servers give 1005 both to a client that closes without a code and to a connection that was cut; only the first
    comes with a `reason`, for only the first had a close frame.
    """
    code: int = message.get("code", CloseCode.NO_STATUS_RCVD)  # type: ignore[assignment]
    if code in {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE} and "reason" not in message:
        return Cause(Reason.CONNECTION_LOST, code)
    if code == CloseCode.SERVICE_RESTART and "reason" not in message:
        return Cause(Reason.SERVICE_RESTARTS, code)
    if code in PROTOCOL_CODES:
        return Cause(Reason.PROTOCOL_ERROR, code)
    return Cause(Reason.CLIENT_CLOSED, code)


def client_address(scope: dict[str, Any]) -> str:
    """Return the client's address without its port, or "" where the server does not know it (a unix socket)."""
    client = scope.get("client")
    return client[0] if client else ""


class Registry:
    """The sockets that are open now, how many each client address has, and which are of which user."""

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.by_address: Counter[str] = Counter()
        self.by_user: dict[str, set[Session]] = {}
        self.draining = False
        """No new socket is let in, and `/ready` says 503."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over a copy: sockets come and go while the caller awaits."""
        return iter(tuple(self._open))

    def add(self, session: Session) -> None:
        self._open.add(session)
        self._empty.clear()
        self.by_address[session.client] += 1

    def claim(self, session: Session, user: str, most: int) -> bool:
        """Count a socket as one of a user's, until it is removed; False where the user has so many already.

        For whatever authenticates, as soon as it knows the user. Nothing is awaited between the look and the count, so
        a burst of handshakes cannot pass. A `most` of 0 lifts the limit.
        """
        claimed = self.by_user.setdefault(user, set())
        if 0 < most <= len(claimed):
            return False
        claimed.add(session)
        session.user = user
        return True

    def remove(self, session: Session) -> None:
        self._open.remove(session)
        self.by_address[session.client] -= 1
        if not self.by_address[session.client]:
            del self.by_address[session.client]
        if claimed := self.by_user.get(session.user):
            claimed.discard(session)
            if not claimed:
                del self.by_user[session.user]
        if not self._open:
            self._empty.set()

    async def wait_empty(self, seconds: float) -> bool:
        """Wait until every socket is cleaned up, at most so long; say whether they are."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
