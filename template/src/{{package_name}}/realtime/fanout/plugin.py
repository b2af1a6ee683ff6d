"""`Fanout`: channels that connections join and publish to."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import msgspec
import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import ClientException
from litestar.plugins import InitPlugin
from litestar.serialization import get_serializer
from msgspec import Struct

from ..sessions.session import Session, Socket
from .broker import Broker, Presence
from .dispatch import Batch, Deliver, Dispatcher, FanoutMetrics
from .memory import MemoryBroker
from .messages import GapMarker, Message
from .settings import FanoutSettings
from .subscription import Subscription

log = structlog.get_logger(__name__)
NodeMessage = TypeVar("NodeMessage", bound=Struct)

MAX_BATCH: Final = 200
"""Messages of a channel that are delivered in one turn of the event loop, at most."""

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in the name of a channel; it often comes from a URL, so from untrusted clients."""

NODE_CHANNEL_PREFIX: Final = ":" * (MAX_NAME_BYTES + 1)
"""Longer than the name of any other channel may be, so none can be that of a channel of the nodes."""

MAX_NODE_BACKLOG: Final = 1000
"""Messages of other nodes that wait for a callback; for more, the oldest are dropped."""

SUBSCRIPTIONS_KEY: Final = "_fanout_subscriptions"
"""Where the state of a connection has its subscriptions, by channel."""


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    Args:
        settings: What is kept of each channel, and what happens to slow consumers.
        broker: What carries the messages; by default it reaches the connections of this process.
    """

    def __init__(self, settings: FanoutSettings, broker: Broker | None = None) -> None:
        self._settings = settings
        self._broker = broker or MemoryBroker(settings)
        self._dispatcher = Dispatcher(min(MAX_BATCH, settings.max_backlog))
        self._presence = Presence(self._broker)
        self._encoder = msgspec.json.Encoder()
        self.metrics = FanoutMetrics(self._dispatcher, self._broker)

    @property
    def available(self) -> bool:
        """Whether messages are carried now. While they are not, `publish` and `join` wait."""
        return self._broker.available

    @property
    def channels(self) -> frozenset[str]:
        """The channels with a subscriber on this node."""
        return frozenset(self._dispatcher.channels)

    async def check(self) -> None:
        """Look before the service starts whether the settings are right.

        Raises:
            SettingsError: Only another setting helps.
        """
        await self._broker.check()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Provide `fanout`, and start and stop with the application."""
        app_config.dependencies["fanout"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(self._lifespan)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        self._encoder = msgspec.json.Encoder(enc_hook=get_serializer(app.type_encoders))
        await self._broker.start(self._dispatcher.dispatch)
        try:
            yield
        finally:
            await self._broker.stop()

    async def join(self, socket: Socket, channel: str, *, after: int | None = None) -> None:
        """Subscribe a connection to a channel, until it leaves the channel or ends, whatever ends it.

        When this returns, the connection receives all that is published from now on. Joining twice is joining once.

        Args:
            socket: The connection; it is accepted.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            after: The last `sequence` of this channel that the client has, or 0. It first receives what it missed, in
                order and once, or a `Gap` where that is not kept any more; with 0, all that is kept. Each message has
                its `sequence` then, but for an `array_like` Struct, which has no place for it.

        Raises:
            ClientException: The name is too long, or `after` is negative; the connection is closed with 1008.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        exit_stack = Session.of(socket).exit_stack
        if exit_stack is None:
            raise RuntimeError(f"{socket.scope['path']} joined {channel!r} before it was accepted: join in on_accept")
        _check_name(channel)
        if after is not None and after < 0:
            raise ClientException(detail="`after` is the sequence of a message, or 0 for all that is kept")
        if SUBSCRIPTIONS_KEY not in socket.scope["state"]:
            exit_stack.push_async_callback(self._leave_all, socket)
        subscriptions = _subscriptions_of(socket)
        if channel in subscriptions:
            return
        subscription = Subscription(self._settings, self.metrics, socket, channel, numbered=after is not None)
        subscriptions[channel] = subscription
        self._dispatcher.add(channel, subscription.deliver)
        try:
            self._broker.subscribe(channel)
            await self._broker.wait_subscribed(channel)
            if after is None:
                subscription.start()
            else:
                subscription.start_after(after, await self._broker.read_history(channel, after))
        except BaseException:
            await self.leave(socket, channel)  # else joining again would do nothing
            raise

    async def leave(self, socket: Socket, channel: str) -> None:
        """Unsubscribe a connection from a channel. Where it has not joined it, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        subscription = _subscriptions_of(socket).pop(channel, None)
        if subscription is not None:
            self._unsubscribe(channel, subscription.deliver)
            await subscription.stop()

    def _unsubscribe(self, channel: str, deliver: Deliver) -> None:
        self._dispatcher.remove(channel, deliver)
        if channel not in self._dispatcher.channels:
            self._broker.unsubscribe(channel)

    async def _leave_all(self, socket: Socket) -> None:
        for channel in tuple(_subscriptions_of(socket)):
            await self.leave(socket, channel)

    def publish(self, message: Struct, channel: str, *, exclude: Socket | None = None) -> asyncio.Future[int]:
        """Send a message to all connections that have joined a channel, in the order in which this is called.

        Args:
            message: What is sent, as JSON; the `type_encoders` of the application apply.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future of the message's sequence, done when the message is on its way. It need not be awaited.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: Where the future is awaited: the message was not sent. A connection is closed with
                1013.
        """
        _check_name(channel)
        connection = Session.of(exclude).connection if exclude else None
        self.metrics.published += 1
        return self._broker.publish(channel, self._encoder.encode(message), connection.id if connection else "")

    async def track(self, socket: Socket, channel: str, *, joined: Struct, left: Struct) -> None:
        """Note that the user of a connection is present in a channel, until the connection ends, whatever ends it.

        `joined` is published when the user comes, `left` when the user is gone: once for each user, however many
        connections there are, and both are those of the user's first connection. Without authentication each connection
        is a user of its own.

        Args:
            socket: The connection; it is accepted.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            joined: The message for the user's first connection.
            left: The message after the user's last connection.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        session = Session.of(socket)
        if session.exit_stack is None:
            raise RuntimeError(f"{socket.scope['path']} is tracked before it was accepted: track in on_accept")
        _check_name(channel)
        member = session.user or session.ensure_connection().id
        await self._presence.join(channel, member, self._encoder.encode(joined), self._encoder.encode(left))
        session.exit_stack.callback(self._presence.leave, channel, member)

    async def present(self, channel: str) -> list[str]:
        """Return who is present in a channel.

        Args:
            channel: The name of the channel.

        Returns:
            The users, or without authentication the ids of the connections, in alphabetical order.

        Raises:
            FanoutUnavailableError: The fan-out is unavailable.
        """
        return sorted(await self._broker.members(channel))

    def broadcast_to_nodes(self, message: Struct) -> asyncio.Future[int]:
        """Send a message to all nodes of the service, this one too; no connection can receive it.

        Args:
            message: An instance of a type that `subscribe_to_nodes` knows.

        Returns:
            A future like that of `publish`.
        """
        return self._broker.publish(_node_channel(type(message)), self._encoder.encode(message))

    @asynccontextmanager
    async def subscribe_to_nodes(
        self, kind: type[NodeMessage], callback: Callable[[NodeMessage], Awaitable[None]]
    ) -> AsyncGenerator[None, None]:
        """Call a function with each message of a type that a node broadcasts, as long as the context lasts.

        Args:
            kind: The type of the messages.
            callback: Called with one message after the other. What it raises is logged.
        """
        channel = _node_channel(kind)
        backlog: asyncio.Queue[Message] = asyncio.Queue(MAX_NODE_BACKLOG)

        def deliver(batch: Batch) -> None:
            for message in batch.messages:
                if backlog.full():
                    backlog.get_nowait()
                backlog.put_nowait(message)

        async def handle() -> None:
            while True:
                message = await backlog.get()
                if isinstance(message, GapMarker):
                    log.warning("messages of other nodes are lost", kind=kind.__name__)
                    continue
                try:
                    await callback(msgspec.json.decode(message.data, type=kind))
                except Exception:
                    log.exception("a message of another node could not be handled")

        self._dispatcher.add(channel, deliver)
        self._broker.subscribe(channel)
        task = asyncio.create_task(handle())
        try:
            yield
        finally:
            self._unsubscribe(channel, deliver)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _subscriptions_of(socket: Socket) -> dict[str, Subscription]:
    subscriptions: dict[str, Subscription] = socket.scope["state"].setdefault(SUBSCRIPTIONS_KEY, {})
    return subscriptions


def _node_channel(kind: type[Struct]) -> str:
    return f"{NODE_CHANNEL_PREFIX}{kind.__name__}"


def _check_name(channel: str) -> None:
    if len(channel.encode()) > MAX_NAME_BYTES:
        raise ClientException(detail=f"the name of a channel has at most {MAX_NAME_BYTES} bytes")
