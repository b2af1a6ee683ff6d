"""`Fanout`: channels that connections join and publish to."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import filterfalse
from typing import Any, Final, TypeVar, cast, overload

import msgspec
import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import ClientException
from litestar.plugins import InitPlugin
from litestar.serialization import decode_json, get_serializer
from msgspec import Struct

from ..errors import ConfigurationError
from ..handlers.message_loop import current_outbox
from ..handlers.messages import ErrorMessage
from ..sessions.plugin import Sessions
from ..sessions.registry import Registry
from ..sessions.session import Session, Socket
from ..settings import PACKAGE
from .broker import Broker, FanoutSettings, Presence
from .dispatch import Batch, Deliver, Dispatcher, FanoutMetrics, Subscription
from .memory import MemoryBroker
from .messages import (
    MAX_SEQUENCE,
    GapMarker,
    check_name,
    display_name,
    is_node_channel,
    is_room,
    node_channel,
    room_channel,
    user_channel,
)

log = structlog.get_logger(__name__)

StateT = TypeVar("StateT", bound=Struct)

MAX_BATCH: Final = 200
"""Messages of a channel that are delivered in one turn of the event loop, at most."""

MAX_STATE_BYTES: Final = 4096
"""Bytes of JSON in the state of a member; a list has one of each."""

CHANNELS_KEY: Final = "_fanout_channels"
"""Where the state of a connection has its `Channels`."""

REMOVALS: Final = node_channel("Removal")
"""The channel on which nodes publish each `Removal`."""


class Removal(Struct):
    """A user is removed from a room or, without a room, disconnected."""

    user: str
    detail: str
    channel: str | None = None


@dataclass(slots=True, eq=False)
class Tracked:
    """The presence of a connection in a channel, while that is wanted."""

    user: str = ""
    """As whom it is present; empty until the broker has been told."""


@dataclass(slots=True, eq=False)
class Channels:
    """The channels of one connection."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict[str, Subscription])
    """The subscriptions to the channels that the connection has joined."""
    tracked: dict[str, Tracked] = field(default_factory=dict[str, Tracked])
    """The channels for which `track` was called."""


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    Args:
        settings: The history of each channel, and the limits on slow consumers.
        broker: The broker that carries the messages; by default the one for the settings.
    """

    def __init__(self, settings: FanoutSettings, broker: Broker | None = None) -> None:
        self._settings = settings
        self.broker = broker or settings.make_broker()
        self._dispatcher = Dispatcher(min(MAX_BATCH, settings.max_backlog))
        self._presence = Presence(self.broker)
        self._encoder = msgspec.json.Encoder()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.metrics = FanoutMetrics(self._dispatcher, self.broker)

    @property
    def available(self) -> bool:
        """Whether messages are carried now. While they are not, `publish` and `join` wait."""
        return self.broker.available

    @property
    def channels(self) -> frozenset[str]:
        """The channels with a connection on this node."""
        return frozenset(filterfalse(is_node_channel, self._dispatcher.channels))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Provide `fanout`, and start and stop with the application."""
        app_config.dependencies["fanout"] = Provide(lambda: self, sync_to_thread=False)
        config: Any = app_config  # its types are partly unknown
        config.lifespan.append(self._lifespan)
        return app_config

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: FanoutSettings) -> AsyncGenerator["Fanout", None]:
        """Reach the connections of a running service from another process: a worker, a script, a notebook.

        Call only methods that take no socket: `publish`, `publish_to_user`, `present`, `remove`, `disconnect`. Leaving
        the context waits for published messages that were not awaited.

        Args:
            settings: The settings of the service, as in `Settings.load()`.

        Raises:
            ConfigurationError: The service keeps its channels in its own memory, or the settings are wrong.
        """
        fanout = cls(settings)
        if isinstance(fanout.broker, MemoryBroker):
            fix = f'let the nodes share an engine: see "Several processes" in {PACKAGE}/realtime/README.md'
            raise ConfigurationError("Fanout.connect", "reaches no client: the service keeps channels in memory", fix)
        await fanout.broker.check()
        async with fanout._running():
            yield fanout

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        self._encoder = msgspec.json.Encoder(enc_hook=get_serializer(app.type_encoders))
        async with self._running():
            registry = app.plugins.get(Sessions).registry
            registry.runtime.publishers = self._dispatcher.publishers
            self.subscribe(REMOVALS, partial(self._follow, registry))
            yield

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        self._loop = asyncio.get_running_loop()
        await self.broker.start(self._dispatcher.dispatch)
        try:
            yield
        finally:
            self._loop = None
            await self.broker.stop()

    async def join(
        self,
        socket: Socket,
        channel: str,
        *,
        after: int | None = None,
        first: AsyncIterable[Struct] | None = None,
        key: str = "id",
        states: bool = False,
    ) -> None:
        """Subscribe a connection to a channel, until it leaves the channel or ends for any reason.

        When this returns, the connection receives every message published from now on. A second call does nothing.

        Args:
            socket: The connection; it is accepted.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            after: The last `sequence` of this channel that the client has, or 0 for all messages that are kept. The
                client first receives the messages that it missed, in order and once, or a `Gap` if they are no longer
                kept. Each message then has its `sequence`, except an `array_like` Struct, which has no place for it.
            first: Messages to send before all others, such as rows of a database. They are read after the channel is
                subscribed to, so a message that is stored before it is published is never missed.
            key: The field that identifies a message in `first`. A published message with the same value is not sent
                again, for one minute.
            states: First of all, send the state of each present member that has one: see `track`. Later changes
                follow, except that messages requested by `after` may be older.

        Raises:
            ClientException: The name is too long, or `after` is not a sequence. A handler answers with the error
                `client`; elsewhere the connection is closed with 1008.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        await self._join(socket, room_channel(channel), after, first, key, states=states)

    async def join_user(self, socket: Socket, *, after: int | None = None) -> None:
        """Subscribe a connection to what is published to its user, until it ends: see `publish_to_user`.

        Args:
            socket: The connection; it is accepted, and its `Connection` has a `user`.
            after: As in `join`. A `Gap` has the channel "user:" with the name of the user.

        Raises:
            ClientException: `after` is no sequence.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The connection has no user, the socket is not accepted yet, or not in `connection_lifespan`.
        """
        user = _user_of(socket)
        if not user:
            raise RuntimeError(
                f"{socket.scope['path']} called join_user() on a connection that has no user. "
                "Fix: accept only authenticated clients, or check connection.user first"
            )
        await self._join(socket, user_channel(user), after)

    async def _join(
        self,
        socket: Socket,
        channel: str,
        after: int | None,
        first: AsyncIterable[Struct] | None = None,
        key: str = "",
        *,
        states: bool = False,
    ) -> None:
        if after is not None and not 0 <= after <= MAX_SEQUENCE:
            raise ClientException(detail="`after` is the sequence of a message, or 0 for all that is kept")
        while other := (subscriptions := self._channels_of(socket).subscriptions).get(channel):
            if other.joining is None or await asyncio.shield(other.joining):  # another task may be joining it, and fail
                await self.broker.wait_subscribed(channel)
                return
        subscription = Subscription(self._settings, self.metrics, socket, channel, numbered=after is not None)
        subscriptions[channel] = subscription
        joining = subscription.joining = asyncio.get_running_loop().create_future()
        self.subscribe(channel, subscription.deliver)
        try:
            await self.broker.wait_subscribed(channel)
            if states:
                await subscription.send_states(await self.broker.members(channel))
            if first is not None:
                await subscription.send_first(first, key, self._encoder.encode)
            if after is None:
                subscription.start()
            else:
                subscription.start_after(after, await self.broker.read_history(channel, after))
        except BaseException:
            joining.set_result(False)
            if subscriptions.get(channel) is subscription:  # otherwise a second join would do nothing
                await self._unsubscribe(subscriptions, channel)
            raise
        joining.set_result(True)
        subscription.joining = None

    def _channels_of(self, socket: Socket) -> Channels:
        """Return the channels of a connection, which end with it."""
        exits = Session.of(socket).exits
        if exits is None:
            raise RuntimeError(f"{socket.scope['path']} joined a channel before it was accepted, or after its end")
        state = socket.scope["state"]
        if CHANNELS_KEY not in state:
            state[CHANNELS_KEY] = Channels()
            exits.append(self._leave_all)
        channels: Channels = state[CHANNELS_KEY]
        return channels

    def joined(self, socket: Socket) -> set[str]:
        """Return the names of the channels that a connection has joined, without the channel of its user."""
        channels: Channels = socket.scope["state"].get(CHANNELS_KEY, Channels())
        return {display_name(channel) for channel in channels.subscriptions if is_room(channel)}

    async def leave(self, socket: Socket, channel: str) -> None:
        """Unsubscribe a connection from a channel, and end its presence there. Without either, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        if channels := socket.scope["state"].get(CHANNELS_KEY):
            await Session.of(socket).let_deliver()
            await self._leave(channels, room_channel(channel))

    async def _leave(self, channels: Channels, channel: str) -> None:
        await self._unsubscribe(channels.subscriptions, channel)
        self._untrack(channels, channel)

    async def _unsubscribe(self, subscriptions: dict[str, Subscription], channel: str) -> None:
        subscription = subscriptions.pop(channel, None)
        if subscription is not None:
            self.unsubscribe(channel, subscription.deliver)
            await subscription.stop()

    async def _leave_all(self, session: Session, _: object) -> None:
        channels: Channels = session.scope["state"].pop(CHANNELS_KEY)
        for channel in tuple(channels.tracked):
            self._untrack(channels, channel)
        for channel in tuple(channels.subscriptions):
            await self._unsubscribe(channels.subscriptions, channel)

    def subscribe(self, channel: str, deliver: Deliver) -> None:
        """Subscribe the service itself to a channel, on this node.

        Args:
            channel: The internal name of a channel, made by a function of messages.py.
            deliver: Called with messages of the channel until `unsubscribe` is called with the same function. It must
                not block.
        """
        self._dispatcher.add(channel, deliver)
        self.broker.subscribe(channel)

    def unsubscribe(self, channel: str, deliver: Deliver) -> None:
        """Unsubscribe a function from a channel."""
        self._dispatcher.remove(channel, deliver)
        if channel not in self._dispatcher.channels:
            self.broker.unsubscribe(channel)

    def publish(self, message: Struct, channel: str, *, exclude: Socket | None = None) -> asyncio.Future[int]:
        """Send a message to all connections that have joined a channel. The order of the calls is kept.

        In a listener with `per_message`, the message is sent after the scopes exit without an exception; a stream sends
        at once. In another thread, this returns when the message is on its way; if that thread runs an event loop,
        await the result there.

        Args:
            message: The message, encoded as JSON with the `type_encoders` of the application.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future of the message's sequence, done when the message is on its way. It need not be awaited.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: The message was not sent. Raised when the future is awaited, or at once in a thread.
                In a handler, it closes the connection with 1013.
            RuntimeError: The future is awaited inside a `per_message` scope, or in a thread that such a scope started.
        """
        return self._publish(room_channel(channel), message, exclude)

    def publish_to_user(self, message: Struct, user: str, *, exclude: Socket | None = None) -> asyncio.Future[int]:
        """Send a message to all connections of a user that have called `join_user`, on all nodes.

        Args:
            message: The message, as in `publish`.
            user: The name of the user, as in `connection.user`.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future, as for `publish`.

        Raises:
            ClientException: The name of the user is too long.
            FanoutUnavailableError: As for `publish`.
            RuntimeError: As for `publish`.
        """
        return self._publish(user_channel(user), message, exclude)

    def _publish(self, channel: str, message: Any, exclude: Socket | None = None) -> asyncio.Future[int]:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is None or (self._loop and here is not self._loop):
            return self._publish_from_elsewhere(here, channel, message, exclude)
        connection = Session.of(exclude).connection if exclude else None
        data, excluded = self._encoder.encode(message), connection.id if connection else ""

        def publish() -> asyncio.Future[int]:
            self.metrics.published += 1
            return self.broker.publish(channel, data, excluded)

        outbox = current_outbox()
        return outbox.hold(publish) if outbox else publish()

    def _publish_from_elsewhere(
        self, here: asyncio.AbstractEventLoop | None, channel: str, message: Any, exclude: Socket | None
    ) -> asyncio.Future[int]:
        """Publish from another thread, and wait for the message unless the thread runs its own event loop."""

        async def publish() -> int:
            return await self._publish(channel, message, exclude)

        if self._loop is None:
            raise RuntimeError("publish was called in a thread before the application has started, or after its end")
        published = asyncio.run_coroutine_threadsafe(publish(), self._loop)
        if here:
            return asyncio.wrap_future(published)
        published.result()
        return cast("asyncio.Future[int]", published)

    async def track(
        self,
        socket: Socket,
        channel: str,
        *,
        joined: Struct | None = None,
        left: Struct | None = None,
        state: Struct | None = None,
    ) -> None:
        """Track that a user is present in a channel, until the connection leaves it, is untracked, or ends.

        `joined` is published when the user's first connection is tracked, and `left` after the last one is gone. Both
        messages are taken from the first connection. Without authentication, each connection counts as its own user.
        Tracking a connection twice has no further effect.

        `state` describes the user in the channel. Another call, from any connection of the user, changes it. Changes
        are published at most once in PRESENCE_STATE_SECONDS for each user, with the latest state.

        Args:
            socket: The connection; it is accepted.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            joined: The message for the user's first connection.
            left: The message after the user's last connection.
            state: The state of the user: at most 4096 bytes of JSON, for `present`, and for `join` with `states`.

        Raises:
            ClientException: The name of the channel or the state is too long.
            FanoutUnavailableError: The fan-out is unavailable; the connection is closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        name = room_channel(channel)
        channels = self._channels_of(socket)
        user = _user_of(socket) or Session.of(socket).ensure_connection().id
        check_name(user, "the name of a user")
        first, last, current = (b"" if each is None else self._encoder.encode(each) for each in (joined, left, state))
        if len(current) > MAX_STATE_BYTES:
            raise ClientException(detail=f"the state of a user has at most {MAX_STATE_BYTES} bytes")
        tracked = channels.tracked.setdefault(name, Tracked())
        if not tracked.user:
            await self._presence.join(name, user, first, last)
            untracked = channels.tracked.get(name) is not tracked  # meanwhile, or the connection has ended
            if untracked or tracked.user:  # another task was faster
                self._presence.leave(name, user)
            if untracked:
                return
            tracked.user = tracked.user or user
        if current:
            await self._presence.set_state(name, tracked.user, current)

    def untrack(self, socket: Socket, channel: str) -> None:
        """End the presence of a connection in a channel that it stays joined to. If not tracked, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        if channels := socket.scope["state"].get(CHANNELS_KEY):
            self._untrack(channels, room_channel(channel))

    async def remove(self, user: str, channel: str, detail: str = "") -> None:
        """Remove a user from a channel, on all nodes. Each of their connections leaves the channel and stays open.

        Each client receives `{"type":"error","code":"removed","detail":…,"extra":{"channel":…}}`. The user may join
        again, unless your code forbids it.

        Args:
            user: The name of the user, as in `connection.user`.
            channel: The name of the channel.
            detail: The reason that the client receives.

        Raises:
            ClientException: A name is too long, or not UTF-8.
            FanoutUnavailableError: The nodes could not be told.
        """
        check_name(user, "the name of a user")
        check_name(channel, "the name of a channel")
        await self.broker.publish(REMOVALS, msgspec.json.encode(Removal(user, detail, channel)))

    async def disconnect(self, user: str, detail: str = "") -> None:
        """Close all connections of a user with 1008, on all nodes. The client does not reconnect by itself.

        Args:
            user: The name of the user, as in `connection.user`.
            detail: The close reason, truncated to 123 bytes.

        Raises:
            ClientException: The name is too long, or not UTF-8.
            FanoutUnavailableError: The nodes could not be told.
        """
        check_name(user, "the name of a user")
        await self.broker.publish(REMOVALS, msgspec.json.encode(Removal(user, detail)))

    def _follow(self, registry: Registry, batch: Batch) -> None:
        """Carry out on this node the calls of `remove` and `disconnect`."""
        for message in batch.messages:
            if not isinstance(message, GapMarker):
                try:
                    self._put_out(registry, msgspec.json.decode(message.data, type=Removal))
                except Exception:  # otherwise the rest of the batch would be lost
                    log.exception("a removal by another node could not be followed")

    def _put_out(self, registry: Registry, removal: Removal) -> None:
        if removal.channel is None:
            registry.disconnect(removal.user, removal.detail)
            return
        for session in registry.of_user(removal.user):
            with suppress(RuntimeError):  # the session is about to end
                session.start(self._remove(session, removal.channel, removal.detail))

    async def _remove(self, session: Session, channel: str, detail: str) -> None:
        channels: Channels = session.scope["state"].get(CHANNELS_KEY, Channels())
        name = room_channel(channel)
        if name in channels.subscriptions or name in channels.tracked:
            await self._leave(channels, name)
            await session.send_message(ErrorMessage("removed", detail, {"channel": channel}))

    def _untrack(self, channels: Channels, channel: str) -> None:
        tracked = channels.tracked.pop(channel, None)
        if tracked and tracked.user:
            self._presence.leave(channel, tracked.user)

    @overload
    async def present(self, channel: str) -> list[str]: ...
    @overload
    async def present(self, channel: str, state: type[StateT]) -> list[StateT]: ...
    async def present(self, channel: str, state: type[StateT] | None = None) -> list[str] | list[StateT]:
        """Return who is present in a channel.

        Args:
            channel: The name of the channel.
            state: The type of the states; without it, names are returned.

        Returns:
            The names of the users, or without authentication the ids of the connections, in alphabetical order. With
            `state`, the states of the users that have one, in the same order.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: The fan-out is unavailable.
            SerializationException: A state is of another type.
        """
        states = (await self.broker.members(room_channel(channel))).states
        if state is None:
            return sorted(states)
        return [decode_json(states[member], state) for member in sorted(states) if states[member]]


def _user_of(socket: Socket) -> str:
    return Session.of(socket).ensure_connection().user
