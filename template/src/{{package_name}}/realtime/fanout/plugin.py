"""`Fanout`: channels that connections join and publish to."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import ClientException
from litestar.plugins import InitPlugin
from litestar.serialization import get_serializer
from msgspec import Struct

from ..sessions.outbox import current_outbox
from ..sessions.session import Session, Socket
from .broker import Broker, Presence
from .dispatch import Deliver, Dispatcher, FanoutMetrics
from .memory import MemoryBroker
from .messages import MAX_SEQUENCE
from .settings import FanoutSettings
from .subscription import Subscription

MAX_BATCH: Final = 200
"""Messages of a channel that are delivered in one turn of the event loop, at most."""

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in the name of a channel; it often comes from a URL, so from untrusted clients."""

SUBSCRIPTIONS_KEY: Final = "_fanout_subscriptions"
"""Where the state of a connection has its subscriptions, by channel."""

TRACKED_KEY: Final = "_fanout_tracked"
"""Where it has the channels in which it is tracked, each with the name of its user there."""


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    Args:
        settings: What is kept of each channel, and what happens to slow consumers.
        broker: What carries the messages; by default it reaches the connections of this process.
    """

    def __init__(self, settings: FanoutSettings, broker: Broker | None = None) -> None:
        self._settings = settings
        self.broker = broker or MemoryBroker(settings)
        self._dispatcher = Dispatcher(min(MAX_BATCH, settings.max_backlog))
        self._presence = Presence(self.broker)
        self._encoder = msgspec.json.Encoder()
        self.metrics = FanoutMetrics(self._dispatcher, self.broker)

    @property
    def available(self) -> bool:
        """Whether messages are carried now. While they are not, `publish` and `join` wait."""
        return self.broker.available

    @property
    def channels(self) -> frozenset[str]:
        """The channels with a subscriber on this node."""
        return frozenset(self._dispatcher.channels)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Provide `fanout`, and start and stop with the application."""
        app_config.dependencies["fanout"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(self._lifespan)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        self._encoder = msgspec.json.Encoder(enc_hook=get_serializer(app.type_encoders))
        await self.broker.start(self._dispatcher.dispatch)
        try:
            yield
        finally:
            await self.broker.stop()

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
            ClientException: The name is too long, or `after` is no sequence. In a handler the error `client` answers;
                elsewhere the connection is closed with 1008.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        exit_stack = Session.of(socket).exit_stack
        if exit_stack is None:
            raise RuntimeError(f"{socket.scope['path']} joined {channel!r} before it was accepted: join in on_accept")
        _check_name(channel)
        if after is not None and not 0 <= after <= MAX_SEQUENCE:
            raise ClientException(detail="`after` is the sequence of a message, or 0 for all that is kept")
        if SUBSCRIPTIONS_KEY not in socket.scope["state"]:
            exit_stack.push_async_callback(self._leave_all, socket)
        subscriptions = _subscriptions_of(socket)
        if channel in subscriptions:
            return
        subscription = Subscription(self._settings, self.metrics, socket, channel, numbered=after is not None)
        subscriptions[channel] = subscription
        self.subscribe(channel, subscription.deliver)
        try:
            await self.broker.wait_subscribed(channel)
            if after is None:
                subscription.start()
            else:
                subscription.start_after(after, await self.broker.read_history(channel, after))
        except BaseException:
            await self._unsubscribe(socket, channel)  # else joining again would do nothing
            raise

    async def leave(self, socket: Socket, channel: str) -> None:
        """Unsubscribe a connection from a channel, and end its presence there. Where there is neither, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        await self._unsubscribe(socket, channel)
        self.untrack(socket, channel)

    async def _unsubscribe(self, socket: Socket, channel: str) -> None:
        subscription = _subscriptions_of(socket).pop(channel, None)
        if subscription is not None:
            self.unsubscribe(channel, subscription.deliver)
            await subscription.stop()

    async def _leave_all(self, socket: Socket) -> None:
        for channel in tuple(_subscriptions_of(socket)):
            await self._unsubscribe(socket, channel)

    def subscribe(self, channel: str, deliver: Deliver) -> None:
        """Subscribe the service itself to a channel, on this node.

        Args:
            channel: The name of the channel; it may be longer than one that a connection joins.
            deliver: Called with messages of the channel until `unsubscribe` is called with the same function. It must
                not wait.
        """
        self._dispatcher.add(channel, deliver)
        self.broker.subscribe(channel)

    def unsubscribe(self, channel: str, deliver: Deliver) -> None:
        """Unsubscribe a function from a channel."""
        self._dispatcher.remove(channel, deliver)
        if channel not in self._dispatcher.channels:
            self.broker.unsubscribe(channel)

    def publish(self, message: Struct, channel: str, *, exclude: Socket | None = None) -> asyncio.Future[int]:
        """Send a message to all connections that have joined a channel, in the order in which this is called.

        In a listener with `per_message` it is held back until the scopes have been left without an exception; a stream
        publishes at once.

        Args:
            message: What is sent, as JSON; the `type_encoders` of the application apply.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future of the message's sequence, done when the message is on its way. It need not be awaited.

        Raises:
            ClientException: The name of the channel is too long.
            RuntimeError: It was called in a thread; the error says what to call there.
            FanoutUnavailableError: Where the future is awaited: the message was not sent. A connection is closed with
                1013.
            RuntimeError: Where the future is awaited inside a `per_message` scope.
        """
        _check_name(channel)
        _check_loop()
        connection = Session.of(exclude).connection if exclude else None
        publish = partial(self._publish, channel, self._encoder.encode(message), connection.id if connection else "")
        outbox = current_outbox()
        return outbox.hold(publish) if outbox else publish()

    def _publish(self, channel: str, data: bytes, exclude: str) -> asyncio.Future[int]:
        self.metrics.published += 1
        return self.broker.publish(channel, data, exclude)

    async def track(self, socket: Socket, channel: str, *, joined: Struct, left: Struct) -> None:
        """Note that the user of a connection is present in a channel, until it leaves it, is untracked, or ends.

        `joined` is published when the user comes, `left` when the user is gone: once for each user, however many
        connections there are, and both are those of the user's first connection. Without authentication each connection
        is a user of its own. Tracking twice is tracking once.

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
        _utf8(member, "the user")
        if TRACKED_KEY not in socket.scope["state"]:
            session.exit_stack.callback(self._untrack_all, socket)
        tracked = _tracked_by(socket)
        if channel in tracked:
            return
        await self._presence.join(channel, member, self._encoder.encode(joined), self._encoder.encode(left))
        if channel in tracked:  # by another task, meanwhile
            self._presence.leave(channel, member)
        tracked[channel] = member

    def untrack(self, socket: Socket, channel: str) -> None:
        """End the presence of a connection in a channel, which stays joined. Where it is not tracked, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        member = _tracked_by(socket).pop(channel, None)
        if member is not None:
            self._presence.leave(channel, member)

    def _untrack_all(self, socket: Socket) -> None:
        for channel in tuple(_tracked_by(socket)):
            self.untrack(socket, channel)

    async def present(self, channel: str) -> list[str]:
        """Return who is present in a channel.

        Args:
            channel: The name of the channel.

        Returns:
            The users, or without authentication the ids of the connections, in alphabetical order.

        Raises:
            FanoutUnavailableError: The fan-out is unavailable.
        """
        return sorted(await self.broker.members(channel))


def _subscriptions_of(socket: Socket) -> dict[str, Subscription]:
    subscriptions: dict[str, Subscription] = socket.scope["state"].setdefault(SUBSCRIPTIONS_KEY, {})
    return subscriptions


def _check_name(channel: str) -> None:
    if _utf8(channel, "the name of a channel") > MAX_NAME_BYTES:
        raise ClientException(detail=f"the name of a channel has at most {MAX_NAME_BYTES} bytes")


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        fix = "write the handler as `async def`, or call loop.call_soon_threadsafe(fanout.publish, message, channel)"
        raise RuntimeError(f"publish was called in a thread. Fix: {fix}, with the loop of the service") from None


def _tracked_by(socket: Socket) -> dict[str, str]:
    tracked: dict[str, str] = socket.scope["state"].setdefault(TRACKED_KEY, {})
    return tracked


def _utf8(text: str, what: str) -> int:
    """Return how many bytes a text has."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        raise ClientException(detail=f"{what} is not UTF-8") from None
