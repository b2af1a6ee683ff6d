"""`Session`: one WebSocket between the server and Litestar, from its handshake to the end of its clean-up."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import ASGIRouteHandler
from litestar.types import Message, Receive, ReceiveMessage, Send
from websockets.frames import CloseCode

from ..internals import frames_of
from ..settings import CoreSettings
from .cause import (
    LOST,
    Cause,
    Reason,
    Resolution,
    TooDeepError,
    cause_of_disconnect,
    held_exceptions,
    is_sendable,
    resolve_cause,
    truncate_reason,
)
from .fast_path import FrameWriter, encode_with, is_direct, text_frame
from .info import ConnectionInfo
from .runtime import Client, HandlerTraits, Ref, Runtime, TokenBucket, client_address, is_ping

log = structlog.get_logger(__name__)

Socket = WebSocket[Any, Any, Any]
"""Litestar's `WebSocket`, whatever its user, auth and state: the type to annotate `socket` with."""

SESSION_KEY: Final = "_session"
"""Where a session stands in the state of its socket."""

AUTHENTICATE: Final = '"authenticate"'
"""Only a message that has it may renew the access of its connection."""

RESTARTING: Final = "the service is about to restart"

MESSAGE_COST: Final = 4096
MAX_UNCHARGED: Final = 65536
"""Bytes of messages, with MESSAGE_COST for each, after which the client is charged for them: 16 messages at most."""


class State(IntEnum):
    """The state of a session, which only advances. A session has a cause exactly if it is closing or closed."""

    CONNECTING = 0
    """The handshake is not answered yet."""
    OPEN = 1
    """The handshake was accepted; messages go both ways."""
    CLOSING = 2
    """It is decided why it ends; its handler and its clean-up may still run."""
    CLOSED = 3
    """Its clean-up is done."""


class Access(Protocol):
    """The access that the authentication grants a connection."""

    claims: Mapping[str, Any]
    roles: frozenset[str]

    async def renew(self, text: str) -> bool:
        """Handle a message that renews the access, and say whether it was one."""
        ...


@dataclass(slots=True)
class Exchange:
    """A message that is handled in a task of its own: it is answered by a stream, or together with others."""

    key: object
    """Its `ref`, or an object of its own."""
    cancel_on_disconnect: bool
    begun: bool = False
    cancelled: bool = False
    """The client has cancelled it."""
    closing: bool = False
    """Its function is through; what cleans up after it is not cancelled."""
    task: asyncio.Task[None] = field(init=False)


@dataclass(slots=True, eq=False, repr=False)
class Session:
    """One WebSocket between the server and Litestar.

    It sees every event in both directions. So it knows whether the handshake was accepted, what ended the connection,
    and how many messages went each way. The first thing that ends it is the cause; nothing that follows changes it.
    """

    scope: dict[str, Any]
    _receive: Receive
    _send: Send
    runtime: Runtime
    server: FrameWriter | None = None
    """The server's end; None on a server that is not ours."""
    state: State = State.CONNECTING
    cause: Cause | None = None
    """What ended it; None as long as it is connecting or open."""
    noticed_cause: Cause | None = None
    """What is about to end it, once the messages before are handled: the client is gone."""
    user: str = ""
    """Who connected; "" where nobody has authenticated."""
    clients: tuple[Client, ...] = ()
    """What is counted for its address and for its user."""
    access: Access | None = None
    """What the authentication lets it do; None where nobody has authenticated."""
    connection: ConnectionInfo | None = None
    """The state of the connection; None until it is first asked for."""
    before_accept: Callable[[Message], None] | None = None
    """Called with the `websocket.accept` event before it is sent. It may change the event, or raise."""
    socket: Socket | None = None
    """Its socket; None until it is accepted in its lifespan."""
    exits: list[Callable[["Session", Cause], Awaitable[None]]] | None = None
    """What is called when the connection ends, the last first; None until it is accepted in its lifespan."""
    initializing: bool = False
    """Its `on_accept` hooks have not returned yet."""
    receive_event: Receive = field(init=False)
    """Receives the next event as the handler does, through all that wants to see it."""
    writer: FrameWriter | None = None
    """Where whole frames can be written; None where something wants to see each message as an event: a middleware,
    compression, a WebSocket class of the service, another server."""
    opened_at: float = field(default_factory=monotonic)
    """When the handshake began."""
    last_received_at: float = field(default_factory=monotonic)
    """When the last message came, or the handshake began."""
    awaiting_message: bool = True
    """No message is handled at the moment."""
    messages_received: int = 0
    messages_sent: int = 0
    exceeded_limit: str = ""
    """The setting whose limit the client exceeded; "" where it did not."""
    ref: Ref | None = None
    """The `ref` of the message that came last, if it had one."""
    exchanges: dict[object, Exchange] = field(default_factory=dict[object, Exchange])
    """What is handled in tasks of its own, by its `ref` if it has one."""
    _tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict[asyncio.Task[Any], None])
    _context: Context | None = None
    """The context variables for its tasks; None while it may have none: before it is accepted, and when it ends."""
    _closing: asyncio.Task[object] | None = None
    """Closes it; kept, because the event loop itself keeps no task alive."""
    _traits: HandlerTraits | None = None
    _limit: TokenBucket = field(init=False)
    _pings: TokenBucket | None = None
    _bad_messages: int = 0
    """Invalid messages in a row."""
    _last_bad_message: int = 0
    """The number of the last invalid message among all messages."""
    _uncharged: int = 0
    """Bytes of messages that its clients are not charged for yet, with MESSAGE_COST for each message."""
    _charged_messages: int = 0
    """Messages that its clients are charged for."""
    _send_failed: bool = False
    """The server could not send; it says why when it is asked for the next event."""
    _task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    """The task of its handler; None once its clean-up runs, which is bounded in time by itself."""

    def __post_init__(self) -> None:
        self.receive_event = self.receive
        self._limit = TokenBucket(self.settings.max_messages_per_second, self.settings.message_burst)

    @staticmethod
    def of(socket: Socket) -> "Session":
        """Return the session of a socket.

        Raises:
            RuntimeError: The application has no `Realtime` plugin.
        """
        try:
            session: Session = socket.scope["state"][SESSION_KEY]
        except KeyError:
            raise RuntimeError(
                f"{socket.scope['path']}: this application has no Realtime plugin, so connections are not counted, "
                "limited or cleaned up. Fix: add Litestar(plugins=[Realtime(...)]), as create_app() does."
            ) from None
        return session

    @property
    def settings(self) -> CoreSettings:
        """The settings of the service."""
        return self.runtime.settings

    @property
    def has_unread(self) -> bool:
        """The client is gone, and messages that it sent before are still to be handled."""
        return self.cause is None and self.noticed_cause is not None

    @property
    def client(self) -> str:
        """The client's address without its port; "" where the server does not know it."""
        return client_address(self.scope)

    @property
    def path(self) -> str:
        """The path, quoted again: what a client writes there must not break a log line."""
        return quote(self.scope["path"])

    async def receive(self) -> ReceiveMessage:
        """Receive the next event from the server.

        Raises:
            WebSocketDisconnect: The connection is closed already, or its client has exceeded a rate.
        """
        while True:
            if self.cause is not None:
                raise WebSocketDisconnect(detail="this connection is closed", code=self.cause.code)
            if not self.awaiting_message:
                self.message_handled()
            message: Any = await self._receive()
            if message["type"] == "websocket.receive":
                text = message.get("text")
                if self.server is None:
                    await self._check_size(message["bytes"] if text is None else text.encode())
                self.messages_received += 1
                self.awaiting_message = False
                self.last_received_at = now = monotonic()
                self._uncharged += MESSAGE_COST + len(message["bytes"] if text is None else text)
                if self._uncharged > MAX_UNCHARGED and (setting := self._charge_clients()):
                    await self._exceed(setting, "too many messages")
                if not self._limit.allows(now) and not (is_ping(text) and self._allows_ping(1)):
                    await self._exceed("max_messages_per_second", "too many messages")
                if self.access and text and AUTHENTICATE in text and self.socket and await self.access.renew(text):
                    continue  # no handler sees the token
            elif message["type"] == "websocket.disconnect":
                self._disconnected(message)
            return message  # type: ignore[no-any-return]

    async def send(self, message: Message) -> None:
        """Send an event to the server.

        Raises:
            WebSocketDisconnect: The client is gone, whatever the server calls that, or the connection is closed.
            ValueError: The close code is one that no endpoint may send.
        """
        if self.runtime.publishers:
            await self.let_deliver()
        if message["type"] == "websocket.http.response.body":
            await self._pass_on(message)
        elif self.cause is not None:
            if message["type"] != "websocket.close":
                raise WebSocketDisconnect(detail="this connection is closed", code=self.cause.code)
        elif message["type"] == "websocket.http.response.start":  # of a middleware
            await self._pass_on(message)
            self._end_with(Cause(Reason.SERVICE_CLOSED, int(CloseCode.POLICY_VIOLATION)))
            self.runtime.count_rejected(self.scope, "handler", message["status"], "a denial response")
        elif message["type"] == "websocket.accept":
            await self._accept(message)
        elif message["type"] == "websocket.close":
            await self._close_as_asked(message.get("code", 1000), message.get("reason") or "")
        else:
            await self._pass_on(message)
            self.messages_sent += 1

    def write_frames(self, frames: bytes, messages: int) -> bool:
        """Send whole frames on the fast path.

        Args:
            frames: Frames as they go over the wire, as `text_frame` makes them.
            messages: How many there are.

        Returns:
            Whether they are sent; False where there is no fast path, or the client does not keep up.
        """
        writer = self.writer
        if writer is None or self.cause is not None or not writer.takes_frames:
            return False
        writer.write_frames(frames)
        self.messages_sent += messages
        return True

    async def send_message(self, message: Any, ref: Ref | None = None) -> None:
        """Send a message: `str` and `bytes` as they are, None not at all, everything else as JSON.

        Args:
            message: The message to send.
            ref: The `ref` of the message that it answers; added to a JSON object.

        Raises:
            RuntimeError: The connection is not accepted yet, or not in `connection_lifespan`.
            TooDeepError: The message is nested too deeply for JSON; in a listener that refuses the client's.
            WebSocketDisconnect: The client is gone, or the connection is closed.
        """
        if message is None:
            return
        traits, socket = self._traits, self.socket
        if traits is None or socket is None:
            raise RuntimeError(f"{self.path}: a message is sent before the connection is accepted: send in on_accept")
        if isinstance(message, bytes):
            payload, binary = message, True
        elif isinstance(message, str):
            payload, binary = message.encode(), False
        else:
            binary = traits.binary
            try:
                payload = traits.encode(message) if ref is None else encode_with(message, "ref", ref, traits.encode)
            except RecursionError:
                raise TooDeepError from None
        if self.runtime.publishers:
            await self.let_deliver()
        if binary or not self.write_frames(text_frame(payload), 1):
            await socket.send_data(payload, mode="binary" if binary else "text")

    async def let_deliver(self) -> None:
        """Let what this task has published go first: one turn of the event loop delivers it, the next one sends it."""
        if asyncio.current_task() in self.runtime.publishers:
            for _ in range(2):
                await asyncio.sleep(0)

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine in a task that ends with the session; its failure ends the session.

        Raises:
            RuntimeError: The connection is not accepted yet, or it has ended.
        """
        if self._context is None:
            coroutine.close()
            raise RuntimeError(f"{self.path}: a task is started before the connection is accepted, or after its end")
        context = self._context.copy()
        task = asyncio.create_task(coroutine, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._task_done, context=context)
        return task

    def cancel_exchange(self, ref: Ref) -> None:
        """Cancel the task that answers a message, if it still runs."""
        exchange = self.exchanges.get(ref)
        if exchange and not (exchange.cancelled or exchange.closing):
            exchange.cancelled = True
            if exchange.begun:  # else it sees for itself, and still says how it ended
                exchange.task.cancel()

    async def wait_exchanges(self) -> None:
        """Wait until the messages that are handled in tasks of their own now are answered."""
        if tasks := [each.task for each in self.exchanges.values()]:
            await asyncio.wait(tasks)

    async def end_tasks(self) -> None:
        """Cancel the tasks and await them, for up to HOOK_SECONDS. No other can be started from then on."""
        self._task = self._context = None
        closing = {each.task for each in self.exchanges.values() if each.closing}
        for task in self._tasks:
            if task not in closing and not task.cancelling():  # a second cancellation would cut short how it ends
                task.cancel()
        closes = [self._closing] if self._closing and not self._closing.done() else []
        if pending := [*self._tasks, *closes]:
            _, late = await asyncio.wait(pending, timeout=self.settings.hook_seconds)
            if late:
                log.error("tasks did not end in time", path=self.path, tasks=len(late))
                for task in late:
                    task.cancel()
                self._tasks.clear()

    async def close(
        self, reason: Reason, code: int, detail: str = "", error: BaseException | None = None, limit: str = ""
    ) -> Cause:
        """Close from this side, unless the connection has ended already. Never raises.

        Args:
            reason: Why it is closed.
            code: The close code.
            detail: The close reason that the client receives; truncated to 123 bytes.
            error: The exception behind it, where the service failed.
            limit: The setting whose limit the client exceeded.

        Returns:
            The cause: what ended the connection first.
        """
        if self.cause is not None:
            return self.cause
        cause = self._end_with(Cause(reason, int(code), error), limit)
        with suppress(WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(self.settings.hook_seconds):  # the client may read nothing
                await self._pass_on({"type": "websocket.close", "code": code, "reason": truncate_reason(detail)})
        return cause

    def close_soon(self, closing: Coroutine[Any, Any, object]) -> None:
        """Run `close()` or `close_for_limit()` in a task, so that a client that does not read delays nobody else."""
        if self._closing is None:
            self._closing = asyncio.create_task(closing)
        else:
            closing.close()

    def end_access(self, detail: str) -> None:
        """Close with 1008, in a task: the client may no longer be connected."""
        self.close_soon(self.close(Reason.ACCESS_ENDED, CloseCode.POLICY_VIOLATION, detail))

    async def close_for_limit(self, setting: str, detail: str, code: int = CloseCode.POLICY_VIOLATION) -> None:
        """Close, because the client exceeded the limit of a setting."""
        await self.close(Reason.LIMIT_EXCEEDED, code, detail, limit=setting)

    def exceed_limit(self, setting: str, code: int) -> Cause:
        """Note that the client exceeded the limit of a setting; the server closes the connection with this code.

        Returns:
            The cause: what ended the connection first.
        """
        return self._end_with(Cause(Reason.LIMIT_EXCEEDED, int(code)), setting)

    async def count_bad_message(self) -> None:
        """Count a message that could not be decoded.

        Raises:
            WebSocketDisconnect: The limit is exceeded, and the connection is closed with 1008.
        """
        self.runtime.metrics.bad_messages += 1
        in_a_row = self.messages_received == self._last_bad_message + 1
        self._bad_messages = self._bad_messages + 1 if in_a_row else 1
        self._last_bad_message = self.messages_received
        if 0 < self.settings.max_bad_messages < self._bad_messages:
            await self._exceed("max_bad_messages", "too many bad messages")

    async def count_ping(self) -> None:
        """Count the message as a ping instead; pings have a separate rate.

        Raises:
            WebSocketDisconnect: The limit is exceeded, and the connection is closed with 1008.
        """
        self.messages_received -= 1
        self._uncharged -= MESSAGE_COST
        if not self._allows_ping(-1):
            await self._exceed("max_frames_per_second", "too many pings")

    async def reject(self, reason: str, status: int, detail: str, **hints: Any) -> None:
        """Reject the handshake with an HTTP status, unless it is answered already.

        Args:
            reason: Why, in the metrics and in the log.
            status: The HTTP status.
            detail: The body of the response.
            hints: More for the log.
        """
        if self.cause is None:
            self._end_with(Cause(Reason.SERVICE_CLOSED, int(CloseCode.POLICY_VIOLATION)))
            await self.runtime.reject(self.scope, self._send, reason, status, detail, **hints)

    def ensure_connection(self) -> ConnectionInfo:
        """Return the one `Connection` of this session; make it on the first call."""
        if self.connection is None:
            self.connection = self.runtime.make_connection()
            self.connection._session = self  # pyright: ignore[reportPrivateUsage]
            self.connection.client = self.client
            self.connection.user = self.user
            self.scope["state"]["connection"] = self.connection
        return self.connection

    def begin_lifespan(self, socket: Socket) -> list[Callable[["Session", Cause], Awaitable[None]]]:
        """Enter the connection's lifespan, once it is accepted, on the fast path where there is one.

        What surrounds the application as a whole, such as tracing, sees the handshake and the end of a connection on
        the fast path, but not its messages.
        """
        self.exits, self.initializing = [], True
        handler: Any = socket.route_handler
        traits = self.runtime.handlers.get(handler)
        if traits is None:
            direct = is_direct(handler) and not socket.app.before_send
            encode = msgspec.json.Encoder(enc_hook=handler.default_serializer).encode
            traits = self.runtime.handlers[handler] = HandlerTraits(direct, encode, frames_of(handler)[1] == "binary")
        self.socket, self._traits = socket, traits
        self._context = copy_context()
        if self.server is not None:
            self.writer = self.server if traits.direct and not self.server.compresses else None
            self.server.notify_disconnect(self._notice_disconnect)
        if not traits.direct:
            self.receive_event = socket.receive
        return self.exits

    def begin_messages(self) -> None:
        """Note that the `on_accept` hooks have returned: the time of the first message counts from now."""
        self.initializing = False
        self._context = copy_context()  # with what the hooks have set
        self.last_received_at = monotonic()

    def message_handled(self) -> None:
        """Count the time that the handler took for the last message, if it has one."""
        if not self.awaiting_message:
            self.awaiting_message = True
            self.runtime.metrics.count_handled(monotonic() - self.last_received_at)

    async def end(self, error: BaseException | None) -> Cause:
        """Decide why the connection ended once its handler has returned; close or reject it if it is open.

        Bugs are logged here, with their traceback.

        Args:
            error: What the handler raised; None where it returned.

        Returns:
            The cause: what ended the connection first.
        """
        await self.end_tasks()
        await self.let_deliver()
        if self._send_failed and self.cause is None:
            await self._read_cause()
        self.message_handled()
        resolution = self._resolve(error)
        if self.state is State.CONNECTING:
            await self.reject("error" if resolution.is_bug else "handler", resolution.status, resolution.detail)
        return await self.close(resolution.reason, resolution.code, resolution.detail, resolution.error)

    def _resolve(self, error: BaseException | None, *, in_task: bool = False) -> Resolution:
        """Decide what an exception means, and log it where it is a bug."""
        draining = self.runtime.draining
        resolution = resolve_cause(error, initializing=self.initializing, draining=draining, in_task=in_task)
        if resolution.is_bug:
            connecting = self.state is State.CONNECTING
            event = "handshake failed" if connecting else resolution.reason.value.replace("_", " ")
            log.error(event, path=self.path, exc_info=error)
        return resolution

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        """Forget a task; where it failed, close."""
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        ends = self.cause or self.noticed_cause  # else it is the disconnect of another connection
        if ends and all(isinstance(each, WebSocketDisconnect) for each in held_exceptions(error)):
            return
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Close, because one of its tasks raised an exception, or was cancelled by what it awaited."""
        cause = self._resolve(error, in_task=True)
        if cause.error or not self._send_failed:  # else the handler is about to read why it could not send
            self.close_soon(self.close(cause.reason, cause.code, cause.detail, cause.error))

    def cancel(self) -> None:
        """Cancel the handler. A clean-up that runs already goes on: it is bounded in time by itself."""
        if self._task is not None:
            self._task.cancel()

    def leave(self) -> None:
        """Count it as closed: its clean-up is done."""
        self._end_with(LOST)  # only where a handler without the lifespan left it open: the server drops it
        self._advance(State.CLOSED)
        self._charge_clients()
        self.runtime.metrics.messages_received += self.messages_received
        self.runtime.metrics.messages_sent += self.messages_sent

    def _advance(self, state: State) -> None:
        """Change the state, here alone."""
        if state <= self.state:
            raise RuntimeError(f"{self.path}: a session that is {self.state.name} cannot become {state.name}")
        self.state = state

    def _end_with(self, cause: Cause, limit: str = "") -> Cause:
        """Set the cause, here alone, and only once; return what ended the connection first."""
        if self.cause is None:
            self._advance(State.CLOSING)
            self.cause = self.noticed_cause or cause
            if limit:
                self.runtime.metrics.limits[limit] += 1
                self.exceeded_limit = limit
        return self.cause

    def _notice_disconnect(self, message: ReceiveMessage) -> None:
        """Note that the client is gone, while its messages are still handled; cancel what answers it alone."""
        self.noticed_cause = cause_of_disconnect(message)
        for exchange in self.exchanges.values():
            if exchange.cancel_on_disconnect and not (exchange.closing or exchange.task.cancelling()):
                exchange.task.cancel()

    async def _accept(self, message: Message) -> None:
        if self.runtime.draining:  # the drain began after its admission
            await self.reject("draining", HTTPStatus.SERVICE_UNAVAILABLE, RESTARTING)
            raise WebSocketDisconnect(detail=RESTARTING, code=CloseCode.SERVICE_RESTART)
        if self.before_accept is not None:
            self.before_accept(message)
        await self._pass_on(message)
        self._advance(State.OPEN)
        self.runtime.metrics.accepted += 1
        handler = self.scope.get("route_handler")
        if isinstance(handler, ASGIRouteHandler) and handler not in self.runtime.mounted:
            self.runtime.mounted.add(handler)
            log.warning(
                "a mounted application has accepted a socket, for which no hook is called", path=min(handler.paths)
            )

    async def _close_as_asked(self, code: int, reason: str) -> None:
        if self.state is State.CONNECTING:
            await self.reject("handler", HTTPStatus.FORBIDDEN, reason or "forbidden")
        elif not is_sendable(code):
            raise ValueError(f"close code {code} may not be sent: use 1000, 1008, or one of your own from 4000 to 4999")
        else:
            await self.close(Reason.SERVICE_CLOSED, code, reason)

    def _allows_ping(self, messages: int) -> bool:
        """Let a ping pass, charged as a message or not: `count_ping` comes when it is handled as one."""
        self._limit.charge(messages)
        self._pings = self._pings or TokenBucket(self.settings.max_frames_per_second)
        return self._pings.allows(monotonic())

    def _charge_clients(self) -> str:
        """Charge its address and its user for its messages; return the setting whose limit they exceed together."""
        messages = self.messages_received - self._charged_messages
        size = self._uncharged - messages * MESSAGE_COST
        self._uncharged, self._charged_messages = 0, self.messages_received
        return next(filter(None, [client.exceeded(messages, size) for client in self.clients]), "")

    async def _check_size(self, payload: bytes) -> None:
        """Enforce MAX_MESSAGE_SIZE on other servers, which may have another limit, or none."""
        if len(payload) > self.settings.max_message_size:
            await self._exceed("max_message_size", "too big", CloseCode.MESSAGE_TOO_BIG)

    async def _exceed(self, setting: str, detail: str, code: int = CloseCode.POLICY_VIOLATION) -> None:
        await self.let_deliver()
        await self.close_for_limit(setting, detail, code)
        raise WebSocketDisconnect(detail=detail, code=code)

    async def _pass_on(self, message: Message) -> None:
        """Send, and raise `WebSocketDisconnect` for the server's OSError or, after a ping timeout, RuntimeError.

        Only what the server raises is translated here, so an OSError of a handler (a file, a database) stays itself.
        """
        opening = self.state is State.CONNECTING
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            if opening and isinstance(error, RuntimeError):
                raise
            self._send_failed = True
            raise WebSocketDisconnect(detail="connection lost", code=CloseCode.ABNORMAL_CLOSURE) from error

    def _disconnected(self, message: ReceiveMessage) -> None:
        cause = cause_of_disconnect(message)
        self._end_with(cause, "max_message_size" if cause.reason is Reason.LIMIT_EXCEEDED else "")

    async def _read_cause(self) -> None:
        """Read on to the cause after a send failed: the client may have closed behind messages that are still unread.

        Only the task of the handler may call it: a second reader would take its events away.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.hook_seconds):
                while self.cause is None:
                    message = await self._receive()
                    if message["type"] == "websocket.disconnect":
                        self._disconnected(message)
        self._end_with(LOST)
