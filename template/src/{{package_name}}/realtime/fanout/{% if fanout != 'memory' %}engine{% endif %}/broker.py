"""The fan-out through an engine, whether it is available or not."""

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ...errors import SettingsError
from ...settings import PREFIX
from ..broker import Broker, Dispatch, closed
from ..memory import MemoryBroker
from ..messages import History, Message
from .backend import Backend, EngineRefusedError, ListMembers, Publish
from .history_reads import HistoryReads
from .presence import RegisteredPresence
from .send_queue import ENGINE_SECONDS, SendQueue
from .settings import EngineSettings
from .subscriptions import Subscriptions
from .supervisor import Supervisor


def choose_broker(settings: EngineSettings, backend: type[Backend]) -> Broker:
    """Return what carries the messages: the engine, or for memory:// this process."""
    if urlsplit(settings.fanout_url).scheme == "memory":
        return MemoryBroker(settings)
    return EngineBroker(settings, backend)


class EngineBroker(Broker):
    """Carries messages between all nodes.

    Operations wait, bounded, while the engine is unavailable. When it is available again, the channels of this node are
    resumed, or a gap is told, and presence is restored.

    Args:
        settings: The URL of the engine, and how long it is waited for.
        backend: The class that connects to the engine.
    """

    def __init__(self, settings: EngineSettings, backend: type[Backend]) -> None:
        self._settings = settings
        self._backend = backend
        self._begin(_drop)
        self._queue.close()

    def _begin(self, dispatch: Dispatch) -> None:
        self._queue = SendQueue(self._settings.publish_seconds)
        self._reads = HistoryReads(self._queue, self._settings.publish_seconds)
        self._subscriptions = Subscriptions(dispatch)
        self._presence = RegisteredPresence(self._queue)
        self._supervisor = Supervisor(self._backend, self._settings, self._queue, self._subscriptions, self._presence)

    async def start(self, dispatch: Dispatch) -> None:
        self._begin(dispatch)
        await self._supervisor.start()

    async def stop(self) -> None:
        if self.available:
            await self._queue.drain()
        await self._supervisor.stop()
        self._queue.close()

    @property
    def available(self) -> bool:
        return self._supervisor.available

    async def check(self) -> None:
        """Connect once. That the engine is not available yet is no mistake.

        Raises:
            SettingsError: It is there, and refuses for a reason that only another FANOUT_URL helps against.
        """
        try:
            async with asyncio.timeout(ENGINE_SECONDS):
                backend = await self._backend.connect(self._settings, uuid4().hex)
        except EngineRefusedError as error:
            raise SettingsError([f"{PREFIX}FANOUT_URL: {error}"]) from None
        except Exception:  # noqa: BLE001  whatever a driver raises where nothing listens
            return
        await backend.close()

    def publish(self, channel: str, data: bytes, exclude: str = "") -> asyncio.Future[int]:
        return self._queue.submit(Publish(channel=channel, data=data, exclude=exclude))

    async def read_history(self, channel: str, after: int) -> History:
        return await self._reads.read(channel, after)

    async def members(self, channel: str) -> list[str]:
        return await self._queue.submit(ListMembers(channel=channel))

    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[None]:
        return self._presence.join(channel, member, joined, left)

    def leave_presence(self, channel: str, member: str) -> asyncio.Future[None]:
        return self._presence.leave(channel, member)

    def subscribe(self, channel: str) -> None:
        self._subscriptions.add(channel)
        self._supervisor.sync_soon()

    async def wait_subscribed(self, channel: str) -> None:
        if self._queue.closed:
            await closed()
        await self._supervisor.wait_synced(channel)

    def unsubscribe(self, channel: str) -> None:
        self._subscriptions.discard(channel)

    def collect(self) -> Iterator[Metric]:
        """Iterate over the metrics of the engine."""
        available, lost = int(self.available), self._supervisor.connections_lost
        yield GaugeMetricFamily("fanout_engine_available", "1 while the engine of the fan-out is available", available)
        yield CounterMetricFamily("fanout_engine_connections_lost", "Connections to the engine that were lost", lost)
        dropped = self._supervisor.notifications_dropped + self._subscriptions.dropped
        yield CounterMetricFamily("fanout_notifications_dropped", "What arrived and is of no node of ours", dropped)
        waiting, failed = len(self._queue), self._queue.failed
        yield GaugeMetricFamily("fanout_operations_waiting", "Operations that wait for the engine", waiting)
        yield CounterMetricFamily("fanout_operations_failed", "Operations that the engine did not do in time", failed)


def _drop(_: str, message: Message) -> None:
    """Nothing is dispatched before the start."""
