"""`Fanout`: channels that connections join and publish to."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import filterfalse
from typing import Any, Final, TypeVar, overload

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
from ..handlers.messages import ErrorMessage
from ..sessions.outbox import current_outbox
from ..sessions.plugin import Sessions
from ..sessions.registry import Registry
from ..sessions.session import Session, Socket
from ..settings import PACKAGE
from .broker import Broker, FanoutSettings, Presence
from .dispatch import Batch, Deliver, Dispatcher, FanoutMetrics
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
from .subscription import Subscription

log = structlog.get_logger(__name__)

StateT = TypeVar("StateT", bound=Struct)

MAX_BATCH: Final = 200
"""Messages of a channel that are delivered in one turn of the event loop, at most."""

MAX_STATE_BYTES: Final = 4096
"""Bytes of JSON in the state of a member; a list has one of each."""

CHANNELS_KEY: Final = "_fanout_channels"
"""Where the state of a connection has its `Channels`."""

REMOVALS: Final = node_channel("Removal")
"""Where the nodes tell each other whom to put out."""


class Removal(Struct):
    """A user is put out of a room, or without one is disconnected."""

    user: str
    detail: str
    channel: str | None = None


@dataclass(slots=True, eq=False)
class Channels:
    """The channels of one connection."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict[str, Subscription])
    """Those that it has joined."""
    tracked: dict[str, str] = field(default_factory=dict[str, str])
    """Those in which it is tracked, each with the name of its user there."""


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    Args:
        settings: What is kept of each channel, and what happens to slow consumers.
        broker: What carries the messages; by default what the settings say.
    """

    def __init__(self, settings: FanoutSettings, broker: Broker | None = None) -> None:
        self._settings = settings
        self.broker = broker or settings.make_broker()
        self._dispatcher = Dispatcher(min(MAX_BATCH, settings.max_backlog))
        self._presence = Presence(self.broker, settings.presence_state_seconds)
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
        """Reach the connections of a running service from outside: from a worker, a script, a notebook.

        What has no socket can be called: `publish`, `publish_to_user`, `present`, `remove`, `disconnect`. Leaving the
        context waits for what was published and not awaited.

        Args:
            settings: The settings of the service, as in `Settings.load()`.

        Raises:
            ConfigurationError: The service keeps its channels in its own memory, or the settings are wrong.
        """
        fanout = cls(settings)
        if isinstance(fanout.broker, MemoryBroker):
            fix = f'let the nodes share an engine: see "Several processes" in {PACKAGE}/realtime/README.md'
            raise ConfigurationError("Fanout.connect", "reaches nobody: the service keeps its channels in memory", fix)
        await fanout.broker.check()
        async with fanout._running():
            yield fanout

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        self._encoder = msgspec.json.Encoder(enc_hook=get_serializer(app.type_encoders))
        async with self._running():
            self.subscribe(REMOVALS, partial(self._follow, app.plugins.get(Sessions).registry))
            yield

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        self._loop = asyncio.get_running_loop()
        await self.broker.start(self._dispatcher.dispatch)
        try:
            yield
        finally:
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
        """Subscribe a connection to a channel, until it leaves the channel or ends, whatever ends it.

        When this returns, the connection receives all that is published from now on. Joining twice is joining once.

        Args:
            socket: The connection; it is accepted.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            after: The last `sequence` of this channel that the client has, or 0. It first receives what it missed, in
                order and once, or a `Gap` where that is not kept any more; with 0, all that is kept. Each message has
                its `sequence` then, but for an `array_like` Struct, which has no place for it.
            first: Messages that are sent before all others, such as rows of a database. It is iterated over once the
                channel is subscribed to, so whatever is stored before it is published is received.
            key: The field, in `first` and in what is published, by which a message that came in `first` is recognized,
                and not sent again. It is looked at for a minute.
            states: Before all else send the state of each member that is present and has one: see `track`. What follows
                is later, but for what `after` asks for.

        Raises:
            ClientException: The name is too long, or `after` is no sequence. In a handler the error `client` answers;
                elsewhere the connection is closed with 1008.
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
                f"{socket.scope['path']} joined the channel of its user, and has none. "
                "Fix: let only authenticated clients connect, or look at connection.user first"
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
        subscriptions = self._channels_of(socket).subscriptions
        if channel in subscriptions:
            return
        subscription = Subscription(self._settings, self.metrics, socket, channel, numbered=after is not None)
        subscriptions[channel] = subscription
        self.subscribe(channel, subscription.deliver)
        try:
            await self.broker.wait_subscribed(channel)
            if states:
                await subscription.send_states(await self.broker.members(channel))
            if first is not None:
                await subscription.send_first((self._encoder.encode(message) async for message in first), key)
            if after is None:
                subscription.start()
            else:
                subscription.start_after(after, await self.broker.read_history(channel, after))
        except BaseException:
            await self._unsubscribe(subscriptions, channel)  # else joining again would do nothing
            raise

    def _channels_of(self, socket: Socket) -> Channels:
        """Return the channels of a connection, which end with it."""
        exits = Session.of(socket).exits
        if exits is None:
            raise RuntimeError(f"{socket.scope['path']} joined a channel before it was accepted: join in on_accept")
        state = socket.scope["state"]
        if CHANNELS_KEY not in state:
            state[CHANNELS_KEY] = Channels()
            exits.append(partial(self._leave_all, state[CHANNELS_KEY]))
        channels: Channels = state[CHANNELS_KEY]
        return channels

    def joined(self, socket: Socket) -> set[str]:
        """Return the names of the channels that a connection has joined now; that of its user is not among them."""
        channels: Channels = socket.scope["state"].get(CHANNELS_KEY, Channels())
        return {display_name(channel) for channel in channels.subscriptions if is_room(channel)}

    async def leave(self, socket: Socket, channel: str) -> None:
        """Unsubscribe a connection from a channel, and end its presence there. Where there is neither, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        if channels := socket.scope["state"].get(CHANNELS_KEY):
            await self._leave(channels, room_channel(channel))

    async def _leave(self, channels: Channels, channel: str) -> None:
        await self._unsubscribe(channels.subscriptions, channel)
        self._untrack(channels, channel)

    async def _unsubscribe(self, subscriptions: dict[str, Subscription], channel: str) -> None:
        subscription = subscriptions.pop(channel, None)
        if subscription is not None:
            self.unsubscribe(channel, subscription.deliver)
            await subscription.stop()

    async def _leave_all(self, channels: Channels, _: object) -> None:
        for channel in tuple(channels.tracked):
            self._untrack(channels, channel)
        for channel in tuple(channels.subscriptions):
            await self._unsubscribe(channels.subscriptions, channel)

    def subscribe(self, channel: str, deliver: Deliver) -> None:
        """Subscribe the service itself to a channel, on this node.

        Args:
            channel: A channel as messages.py calls it.
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
        publishes at once. Called in a thread, it returns when the message is on its way.

        Args:
            message: What is sent, as JSON; the `type_encoders` of the application apply.
            channel: The name of the channel: any text of at most 255 bytes of UTF-8.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future of the message's sequence, done when the message is on its way. It need not be awaited.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: Where the future is awaited, or at once in a thread: the message was not sent. A
                connection is closed with 1013.
            RuntimeError: Where the future is awaited inside a `per_message` scope, or in a thread of one.
        """
        return self._publish(room_channel(channel), message, exclude)

    def publish_to_user(self, message: Struct, user: str, *, exclude: Socket | None = None) -> asyncio.Future[int]:
        """Send a message to all connections of a user that have called `join_user`, on all nodes.

        Args:
            message: What is sent, as with `publish`.
            user: The user, as `connection.user` says.
            exclude: A connection that does not receive the message, such as its sender.

        Returns:
            A future, as that of `publish`.

        Raises:
            ClientException: The name of the user is too long.
            FanoutUnavailableError: As with `publish`.
            RuntimeError: As with `publish`.
        """
        return self._publish(user_channel(user), message, exclude)

    def _publish(self, channel: str, message: Any, exclude: Socket | None = None) -> asyncio.Future[int]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._publish_from_thread(channel, message, exclude)
        connection = Session.of(exclude).connection if exclude else None
        data, excluded = self._encoder.encode(message), connection.id if connection else ""

        def publish() -> asyncio.Future[int]:
            self.metrics.published += 1
            return self.broker.publish(channel, data, excluded)

        outbox = current_outbox()
        return outbox.hold(publish) if outbox else publish()

    def _publish_from_thread(self, channel: str, message: Any, exclude: Socket | None) -> asyncio.Future[int]:
        async def publish() -> asyncio.Future[int]:
            published = self._publish(channel, message, exclude)
            await published
            return published

        if self._loop is None:
            raise RuntimeError("publish was called in a thread before the application has started")
        return asyncio.run_coroutine_threadsafe(publish(), self._loop).result()

    async def track(
        self,
        socket: Socket,
        channel: str,
        *,
        joined: Struct | None = None,
        left: Struct | None = None,
        state: Struct | None = None,
    ) -> None:
        """Note that the user of a connection is present in a channel, until it leaves it, is untracked, or ends.

        `joined` is published when the user comes, `left` when the user is gone: once for each user, however many
        connections there are, and both are those of the user's first connection. Without authentication each connection
        is a user of its own. Tracking twice is tracking once.

        `state` is what the user is or does there. A further call changes it, from whichever connection of the user. A
        new one is published, at most once in PRESENCE_STATE_SECONDS from each node: then the latest.

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
        tracked = self._channels_of(socket).tracked
        member = _user_of(socket) or Session.of(socket).ensure_connection().id
        check_name(member, "the name of a user")
        first, last, current = (self._encoder.encode(each) if each else b"" for each in (joined, left, state))
        if len(current) > MAX_STATE_BYTES:
            raise ClientException(detail=f"the state of a user has at most {MAX_STATE_BYTES} bytes")
        if name not in tracked:
            await self._presence.join(name, member, first, last)
            if name in tracked:  # by another task, meanwhile
                self._presence.leave(name, member)
            tracked[name] = member
        if current:
            await self._presence.set_state(name, tracked[name], current)

    def untrack(self, socket: Socket, channel: str) -> None:
        """End the presence of a connection in a channel, which stays joined. Where it is not tracked, nothing happens.

        Args:
            socket: The connection.
            channel: The name of the channel.
        """
        if channels := socket.scope["state"].get(CHANNELS_KEY):
            self._untrack(channels, room_channel(channel))

    async def remove(self, user: str, channel: str, detail: str = "") -> None:
        """Put a user out of a channel, on all nodes: each of their connections there leaves it and stays open.

        Its client is told so, as `{"type":"error","code":"removed","detail":…,"extra":{"channel":…}}`. The user may
        join again, unless your code forbids it.

        Args:
            user: The user, as `connection.user` says.
            channel: The name of the channel.
            detail: Why; the client receives it.

        Raises:
            ClientException: The name of the channel is too long.
            FanoutUnavailableError: The nodes could not be told.
        """
        check_name(channel, "the name of a channel")
        await self.broker.publish(REMOVALS, msgspec.json.encode(Removal(user, detail, channel)))

    async def disconnect(self, user: str, detail: str = "") -> None:
        """Close all connections of a user with 1008, on all nodes. The client does not reconnect by itself.

        Args:
            user: The user, as `connection.user` says.
            detail: Why: the close reason, truncated to 123 bytes.

        Raises:
            FanoutUnavailableError: The nodes could not be told.
        """
        await self.broker.publish(REMOVALS, msgspec.json.encode(Removal(user, detail)))

    def _follow(self, registry: Registry, batch: Batch) -> None:
        """Do on this node what `remove` and `disconnect` ask of all."""
        for message in batch.messages:
            if not isinstance(message, GapMarker):
                try:
                    self._put_out(registry, msgspec.json.decode(message.data, type=Removal))
                except Exception:  # else those that come with it are lost
                    log.exception("a removal by another node could not be followed")

    def _put_out(self, registry: Registry, removal: Removal) -> None:
        if removal.channel is None:
            registry.disconnect(removal.user, removal.detail)
            return
        for session in registry.of_user(removal.user):
            with suppress(RuntimeError):  # it is about to end
                session.start(self._remove(session, removal.channel, removal.detail))

    async def _remove(self, session: Session, channel: str, detail: str) -> None:
        channels: Channels = session.scope["state"].get(CHANNELS_KEY, Channels())
        name = room_channel(channel)
        if name in channels.subscriptions or name in channels.tracked:
            await self._leave(channels, name)
            await session.send_message(ErrorMessage("removed", detail, {"channel": channel}))

    def _untrack(self, channels: Channels, channel: str) -> None:
        member = channels.tracked.pop(channel, None)
        if member is not None:
            self._presence.leave(channel, member)

    @overload
    async def present(self, channel: str) -> list[str]: ...
    @overload
    async def present(self, channel: str, state: type[StateT]) -> list[StateT]: ...
    async def present(self, channel: str, state: type[StateT] | None = None) -> list[str] | list[StateT]:
        """Return who is present in a channel.

        Args:
            channel: The name of the channel.
            state: The type of the states; without it the names are returned.

        Returns:
            The users, or without authentication the ids of the connections, in alphabetical order; or in the same order
            the states of those who have one.

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
