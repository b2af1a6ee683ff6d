"""Litestar Channels, tied to the life of a connection."""

from collections.abc import Iterable
from functools import partial

import msgspec
import structlog
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.subscriber import Subscriber
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.plugins import InitPlugin
from msgspec import Struct

from ..connections import Reason, Socket
from ..connections.cause import INTERNAL_ERROR
from ..connections.registry import OpenSocket
from ..settings import Settings

log = structlog.get_logger(__name__)


class Fanout(InitPlugin):
    """Channels that connections join and publish to; injected as `fanout: NamedDependency[Fanout]`.

    The engine is chosen by the setting FANOUT_URL; `memory://` reaches the connections of this process.
    A reader that is too slow loses the oldest of the messages that wait for it, and delays nobody.
    """

    def __init__(self, settings: Settings) -> None:
        self._channels = _Channels(
            backend=MemoryChannelsBackend(),
            arbitrary_channels_allowed=True,
            subscriber_max_backlog=settings.max_backlog,
            subscriber_backlog_strategy="dropleft",
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.dependencies["fanout"] = Provide(lambda: self, sync_to_thread=False)
        return self._channels.on_app_init(app_config)

    async def join(self, socket: Socket, channel: str) -> None:
        """Let a connection hear a channel until it ends, whatever ends it.

        When this returns, the connection hears all that is published from now on.

        Raises:
            RuntimeError: The socket is not accepted yet, or not in `connection_lifespan`.
        """
        life = OpenSocket.of(socket).life
        if life is None:
            raise RuntimeError(f"{socket.scope['path']} joined {channel!r} before it was accepted: join in on_accept")
        subscriber = await life.enter_async_context(self._channels.start_subscription([channel]))
        await life.enter_async_context(subscriber.run_in_background(partial(_forward, socket), join=False))

    def publish(self, message: Struct, channel: str) -> None:
        """Send a message to all who have joined a channel, soon; in the order in which this is called."""
        self._channels.publish(msgspec.json.encode(message), channel)  # pyright: ignore[reportUnknownMemberType]


class _Channels(ChannelsPlugin):
    """Litestar's channels, which forget the names that nobody hears any more; Litestar keeps them for ever."""

    async def unsubscribe(self, subscriber: Subscriber, channels: str | Iterable[str] | None = None) -> None:
        names = [channels] if isinstance(channels, str) else list(self._channels if channels is None else channels)
        await super().unsubscribe(subscriber, names)
        for name in names:
            if not self._channels.get(name, {subscriber}):
                del self._channels[name]


async def _forward(socket: Socket, payload: bytes) -> None:
    """Send what was published to one connection. An exception here would leave the socket open and deaf."""
    try:
        await socket.send_text(payload)
    except WebSocketDisconnect:
        pass  # it is ending; its own task cleans it up
    except Exception:
        log.exception("a published message could not be sent")
        await OpenSocket.of(socket).close(Reason.HANDLER_FAILED, INTERNAL_ERROR, "internal error")
