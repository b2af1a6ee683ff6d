"""The fan-out through an engine, also while the engine is unavailable."""

import asyncio
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit
from uuid import uuid4

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import SecretStr

from ...errors import SettingsError
from ...secrets import GENERATE
from ...settings import PREFIX
from ..broker import Broker, Dispatch, FanoutUnavailableError, closed
from ..memory import MemoryBroker
from ..messages import History, Members
from .backend import Backend, EngineRefusedError, ListMembers, ListRemembered, Publish, Remember
from .history_reads import HistoryReads
from .presence import RegisteredPresence
from .send_queue import ENGINE_SECONDS, UNAVAILABLE, SendQueue
from .settings import EngineSettings, secrets_of
from .signatures import Signer
from .subscriptions import Subscriptions
from .supervisor import Supervisor


def choose_broker(settings: EngineSettings, backend: type[Backend], auth_secret: SecretStr | None = None) -> Broker:
    """Return the broker: that of the engine or, for memory://, of this process.

    Args:
        settings: The settings of the engine.
        backend: The class that connects to it.
        auth_secret: What signs while FANOUT_SECRET is empty. None without authentication.

    Raises:
        SettingsError: With authentication there must be a secret, or the messages of the nodes could be forged.
    """
    if urlsplit(settings.fanout_url).scheme == "memory":
        return MemoryBroker(settings)
    secrets = secrets_of(settings.fanout_secret)
    if not secrets and auth_secret is not None:
        if not auth_secret.get_secret_value():
            raise SettingsError([f"{PREFIX}FANOUT_SECRET: is missing; generate one with: {GENERATE}"])
        secrets = [auth_secret.get_secret_value()]
    return EngineBroker(settings, backend, secrets)


class EngineBroker(Broker):
    """Carries messages between all nodes.

    Operations wait, bounded, while the engine is unavailable. When it is available again, the channels of this node are
    resumed, or a gap is told, and presence is restored.

    Args:
        settings: The URL of the engine, and how long it is waited for.
        backend: The class that connects to the engine.
        secrets: What the nodes sign their messages with: the first one signs, all of them verify.
    """

    def __init__(self, settings: EngineSettings, backend: type[Backend], secrets: Sequence[str] = ()) -> None:
        self._settings = settings
        self._backend = backend
        self._signer = Signer(secrets)
        self._begin(lambda _channel, _message: None)
        self._queue.close()

    def _begin(self, dispatch: Dispatch) -> None:
        self._queue = SendQueue(self._settings.publish_seconds)
        self._reads = HistoryReads(self._queue, self._signer, self._settings.publish_seconds)
        self._subscriptions = Subscriptions(dispatch, self._signer)
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
        """Try to connect once. The service also starts while the engine is unavailable.

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
        signed = self._signer.sign(channel, data, exclude)
        return self._queue.submit(Publish(channel=channel, data=signed, exclude=exclude))

    async def read_history(self, channel: str, after: int) -> History:
        return await self._reads.read(channel, after)

    async def remember(self, text: str, until: float) -> None:
        await self._queue.submit(Remember(channel="", text=self._signer.sign("", text.encode()), until=until))

    async def remembered(self) -> list[str]:
        kept = [self._signer.open("", text) for text in await self._queue.submit(ListRemembered(channel=""))]
        return [text.decode() for text in kept if text]

    async def members(self, channel: str) -> Members:
        members = await self._queue.submit(ListMembers(channel=channel))
        states = {member: self._signer.open(channel, state) for member, state in members.states.items()}
        return Members(members.sequence, states)

    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[None]:
        signed = [self._signer.sign(channel, data) if data else b"" for data in (joined, left)]
        return self._presence.join(channel, member, *signed)

    def set_presence_state(self, channel: str, member: str, state: bytes = b"") -> asyncio.Future[float]:
        return self._presence.set_state(channel, member, self._signer.sign(channel, state) if state else b"")

    def leave_presence(self, channel: str, member: str) -> asyncio.Future[None]:
        return self._presence.leave(channel, member)

    def subscribe(self, channel: str) -> None:
        self._subscriptions.add(channel)

    async def wait_subscribed(self, channel: str) -> None:
        if self._queue.closed:
            await closed()
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await self._subscriptions.wait_synced(channel)
        except TimeoutError:
            raise FanoutUnavailableError(detail=UNAVAILABLE) from None

    def unsubscribe(self, channel: str) -> None:
        self._subscriptions.discard(channel)

    def collect(self) -> Iterator[Metric]:
        """Iterate over the metrics of the engine."""
        available, lost = int(self.available), self._supervisor.connections_lost
        yield GaugeMetricFamily("fanout_engine_available", "1 while the engine of the fan-out is available", available)
        yield CounterMetricFamily("fanout_engine_connections_lost", "Connections to the engine that were lost", lost)
        dropped = self._subscriptions.dropped + self._signer.rejected
        yield CounterMetricFamily("fanout_notifications_dropped", "What arrived and is of no node of ours", dropped)
        waiting, failed = len(self._queue), self._queue.failed
        yield GaugeMetricFamily("fanout_operations_waiting", "Operations that wait for the engine", waiting)
        yield CounterMetricFamily("fanout_operations_failed", "Operations that the engine did not do in time", failed)
