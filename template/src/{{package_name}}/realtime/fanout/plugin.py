"""`Fanout`: channels that connections join and publish to, through Litestar Channels and an engine that heals."""

from asyncio import Future
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar.channels import ChannelsPlugin
from litestar.channels.subscriber import Subscriber
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import ClientException
from litestar.plugins import InitPlugin
from msgspec import Struct

from ..errors import SettingsError
from ..sessions.session import Session, Socket
from ..settings import PREFIX
from .engine import Engine
from .link import EngineRefusedError, Hole, Link, Members, Publish, Since
from .memory import MemoryLink
from .metrics import FanoutMetrics
from .reader import Channel, Reader
from .settings import ENGINES, FanoutSettings

LINKS: Final[dict[str, type[Link]]] = {"": MemoryLink}
"""What connects to an engine, by the package that it needs."""

log = structlog.get_logger(__name__)
Message = TypeVar("Message", bound=Struct)

MAX_UNREAD: Final = 1000
"""Messages that may wait for what hears a channel for the whole node; the oldest are dropped for more."""

OF_NODES: Final = "\0nodes:"
"""The channels that begin with this are for the nodes; strangers choose the names of rooms, and must not get in."""

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 that the name of a channel may have; it often comes from a URL, so from strangers."""


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    The engine is chosen by the setting FANOUT_URL: `memory://` reaches the connections of this process, `redis://` and
    `postgresql://` those of all nodes. See "Rooms over many machines" in the README for what is guaranteed.
    """

    def __init__(self, settings: FanoutSettings) -> None:
        self._settings = settings
        self._engine = Engine(LINKS[ENGINES[urlsplit(settings.fanout_url).scheme]], settings)
        self._channels = _Channels(self._engine)
        self.metrics = FanoutMetrics(self._engine)

    @property
    def up(self) -> bool:
        """The engine is there; where not, what is published waits for it, and new members do."""
        return self._engine.up

    @property
    def channels(self) -> frozenset[str]:
        """The channels that somebody on this node hears."""
        return self._channels.names

    async def check(self) -> None:
        """Try to reach the engine once. That it is not there yet is no error.

        Raises:
            SettingsError: It is there, and refuses for a reason that only another FANOUT_URL mends.
        """
        try:
            await self._engine.check()
        except EngineRefusedError as error:
            raise SettingsError([f"{PREFIX}FANOUT_URL: {error}"]) from None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["fanout"] = Provide(lambda: self, sync_to_thread=False)
        return self._channels.on_app_init(app_config)

    async def join(self, socket: Socket, channel: str, *, after: int | None = None) -> None:
        """Let a connection hear a channel until it leaves it or ends, whatever ends it.

        When this returns, it hears all that is published from now on. Joining twice is joining once.

        Args:
            channel: Any text of at most 255 bytes of UTF-8.
            after: The last `sequence` that the client has of this channel. It first hears what it missed, in order and
                once, or a `Gap` where that is not kept any more; with 0, all that is kept. Each message has its
                `sequence` then.

        Raises:
            ClientException: The name is too long or reserved, or `after` negative; the connection is closed with 1008.
            FanoutUnavailableError: The engine was away for PUBLISH_SECONDS; closed with 1013.
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        exit_stack = Session.of(socket).exit_stack
        if exit_stack is None:
            raise RuntimeError(f"{socket.scope['path']} joined {channel!r} before it was accepted: join in on_accept")
        _check_name(channel)
        if after is not None and after < 0:
            raise ClientException(detail="`after` is the sequence of a message, or 0 for all that is kept")
        readers: dict[str, Reader] = socket.scope["state"].setdefault(READERS_KEY, {})
        if channel in readers:
            return
        if not readers:
            exit_stack.push_async_callback(self._leave_all, readers)
        reader = Reader(self._settings, self.metrics, socket, channel, numbered=after is not None)
        readers[channel] = reader
        await self._channels.listen(reader)
        if after is None:
            reader.start()
        else:
            history = await self._engine.do(Since(channel=channel, after=after))
            reader.start(after, history)

    async def leave(self, socket: Socket, channel: str) -> None:
        """Let a connection no longer hear a channel. Where it does not, nothing happens."""
        readers: dict[str, Reader] = socket.scope["state"].get(READERS_KEY, {})
        if reader := readers.pop(channel, None):
            await self._channels.ignore(reader)

    def publish(self, message: Struct, channel: str, *, but: Socket | None = None) -> "Future[int]":
        """Send a message to all who have joined a channel, in the order in which this is called.

        Await what it returns to know that the engine has it, and its sequence; or do not, and it is sent soon.

        Args:
            but: A connection that shall not hear it, as its own sender.

        Raises:
            FanoutUnavailableError: When awaited: the engine was away for PUBLISH_SECONDS; closed with 1013.
            ClientException: The name of the channel is too long, or reserved.
        """
        _check_name(channel)
        connection = Session.of(but).connection if but else None
        skipped = connection.id if connection else ""
        return self._engine.do(Publish(channel=channel, data=msgspec.json.encode(message), skipped=skipped))

    async def track(self, socket: Socket, channel: str, *, joined: Struct, left: Struct) -> None:
        """Note that the user of a connection is in a channel, until the connection ends, whatever ends it.

        `joined` is published when the user comes, `left` when the user is gone: once for each user, however many
        connections and nodes there are, and both are those of the connection that came first. Where nobody has
        authenticated, each connection is a user of its own. A node that dies is noticed after PRESENCE_SECONDS.

        Raises:
            ClientException: The name of the channel is too long, or reserved.
            FanoutUnavailableError: The engine was away for PUBLISH_SECONDS; closed with 1013.
        """
        session = Session.of(socket)
        if session.exit_stack is None or session.connection is None:
            raise RuntimeError(f"{socket.scope['path']} is tracked before it was accepted: track in on_accept")
        _check_name(channel)
        member = session.user or session.connection.id
        session.exit_stack.callback(self._engine.depart, channel, member)
        await self._engine.arrive(channel, member, msgspec.json.encode(joined), msgspec.json.encode(left))

    async def present(self, channel: str) -> list[str]:
        """Return who is in a channel, over all nodes: users, or ids of connections of nobody.

        Raises:
            FanoutUnavailableError: The engine was away for PUBLISH_SECONDS.
        """
        members = await self._engine.do(Members(channel=channel))
        return sorted(members)

    def tell_nodes(self, message: Struct) -> "Future[int]":
        """Send a message to all nodes, this one too, where no connection can hear it; to be awaited like `publish`."""
        channel = f"{OF_NODES}{type(message).__name__}"
        return self._engine.do(Publish(channel=channel, data=msgspec.json.encode(message)))

    @asynccontextmanager
    async def hear_nodes(
        self, kind: type[Message], hear: Callable[[Message], Awaitable[None]]
    ) -> AsyncGenerator[None, None]:
        """Call a function with each message of a kind that a node tells the others, as long as the context lasts.

        One call after the other; what it raises is logged. It begins as soon as the engine is there.
        """

        async def hear_safely(message: bytes) -> None:
            try:
                if isinstance(message, Hole):
                    log.warning("what other nodes told is lost", kind=kind.__name__)
                else:
                    await hear(msgspec.json.decode(message, type=kind))
            except Exception:
                log.exception("what another node told could not be dealt with")  # it would end the task in silence

        async with self._channels.subscription(f"{OF_NODES}{kind.__name__}", hear_safely):
            yield

    async def _leave_all(self, readers: dict[str, Reader]) -> None:
        while readers:
            _, reader = readers.popitem()
            await self._channels.ignore(reader)


class _Channels(ChannelsPlugin):
    """Litestar's channels, which forget the names that nobody hears any more.

    Litestar keeps them for ever, and walks through all of them whenever one is left.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, arbitrary_channels_allowed=True)
        self._engine = engine
        self._here: dict[str, Channel] = {}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._channels)

    async def listen(self, reader: Reader) -> None:
        name = reader.channel
        channel = self._here.get(name)
        if channel is None:
            channel = self._here[name] = Channel(self, name)
            self._channels.setdefault(name, set()).add(channel)
        channel.readers.add(reader)
        await self._backend.subscribe([name])  # also where it is not the first: until all is heard

    async def ignore(self, reader: Reader) -> None:
        channel = self._here[reader.channel]
        channel.readers.remove(reader)
        if not channel.readers:
            del self._here[channel.name]
            await self._forget(channel, channel.name)
        await reader.stop()

    @asynccontextmanager
    async def subscription(self, name: str, hear: Callable[[bytes], Awaitable[None]]) -> AsyncGenerator[None, None]:
        """Subscribe without waiting for the engine, as Litestar's `start_subscription` would."""
        subscriber = Subscriber(self, max_backlog=MAX_UNREAD, backlog_strategy="dropleft")
        self._channels.setdefault(name, set()).add(subscriber)
        self._engine.want(name)
        try:
            async with subscriber.run_in_background(hear, join=False):
                yield
        finally:
            await self._forget(subscriber, name)

    async def unsubscribe(self, subscriber: Subscriber, channels: str | Iterable[str] | None = None) -> None:
        names = [channels] if isinstance(channels, str) else list(self._channels if channels is None else channels)
        await super().unsubscribe(subscriber, names)
        for name in names:
            await self._forget(subscriber, name)

    async def _forget(self, subscriber: Subscriber, name: str) -> None:
        subscribers = self._channels.get(name, set())
        subscribers.discard(subscriber)
        if not subscribers and self._channels.pop(name, None) is not None:
            await self._backend.unsubscribe([name])


READERS_KEY: Final = "_fanout_readers"


def _check_name(channel: str) -> None:
    if len(channel.encode()) > MAX_NAME_BYTES:
        raise ClientException(detail=f"the name of a channel has at most {MAX_NAME_BYTES} bytes")
    if channel.startswith(OF_NODES):
        raise ClientException(detail="this channel is for the nodes of the service")
