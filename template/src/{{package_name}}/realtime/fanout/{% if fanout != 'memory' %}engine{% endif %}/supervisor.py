"""One connection to the engine after the other: a broken one is replaced after a growing delay, and all is resumed."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Final
from uuid import uuid4

import structlog

from .backend import Backend, EngineRefusedError, Event
from .presence import RegisteredPresence
from .send_queue import ANSWER_SECONDS, BATCH, ENGINE_SECONDS, SendQueue
from .settings import EngineSettings
from .subscriptions import Subscriptions

log = structlog.get_logger(__name__)

MIN_DELAY: Final = 0.1
MAX_DELAY: Final = 2.0
"""Seconds before the next attempt to connect, at most: they double, and each delay is a random part of them."""


class Supervisor:
    """Keeps a connection to the engine, and gives it what waits in the queue and the subscriptions of this node.

    Args:
        backend: The class that connects to the engine.
        settings: The URL of the engine, and how long it is waited for.
        queue: The operations for the engine.
        subscriptions: The channels of this node.
        presence: The members on this node.
    """

    def __init__(
        self,
        backend: type[Backend],
        settings: EngineSettings,
        queue: SendQueue,
        subscriptions: Subscriptions,
        presence: RegisteredPresence,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._queue = queue
        self._subscriptions = subscriptions
        self._presence = presence
        self._node = uuid4().hex
        self._attempts = 0
        self._attempted = asyncio.Event()
        self._unavailable_since: float | None = None
        self._refusal = ""
        self._task: asyncio.Task[None] | None = None
        self.available = False
        """There is a connection, and it was in order when last looked at."""
        self.connections_lost = 0

    async def start(self) -> None:
        """Begin, and return after the first attempt to connect."""
        self._task = asyncio.create_task(self._run())
        await self._attempted.wait()

    async def stop(self) -> None:
        """Close the connection."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        task = asyncio.current_task()
        while True:
            backend: Backend | None = None
            try:
                async with asyncio.timeout(ENGINE_SECONDS):
                    backend = await self._backend.connect(self._settings, self._node)
                await self._use(backend)
            except Exception as error:  # noqa: BLE001  a driver raises what it likes; each is a reason to try again
                self.connections_lost += backend is not None and self._unavailable_since is None
                self._log_unavailable(error)
            finally:
                self.available = False
                self._subscriptions.connection_lost()
                if backend:
                    with suppress(Exception):
                        async with asyncio.timeout(ENGINE_SECONDS):
                            await backend.close()
            self._attempted.set()
            if task and task.cancelling():  # a driver, or a TaskGroup with errors of its own, may swallow it
                return
            await asyncio.sleep(random.uniform(0, min(MAX_DELAY, MIN_DELAY * 2**self._attempts)))  # noqa: S311
            self._attempts = min(self._attempts + 1, 10)

    async def _use(self, backend: Backend) -> None:
        """Use a backend until it fails; raise why."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for events in backend.events():
                    tasks.create_task(self._receive_loop(events))
                await self._heartbeat(backend, reconnected=True)
                await self._subscriptions.sync(backend)
                tasks.create_task(self._queue.send_loop(backend))
                tasks.create_task(self._subscriptions.sync_loop(backend))
                self._mark_available()
                # Not as a task: in Python 3.11, one that fails when this block has ended leaves us marked as cancelled.
                await self._heartbeat_loop(backend)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _receive_loop(self, events: AsyncIterator[Event | None]) -> None:
        count = 0
        async for event in events:
            self._subscriptions.receive(event)
            count += 1
            if count % BATCH == 0:
                await asyncio.sleep(0)  # what was received is delivered before more is

    async def _heartbeat_loop(self, backend: Backend) -> None:
        while True:
            await asyncio.sleep(min(ENGINE_SECONDS - ANSWER_SECONDS, self._settings.presence_seconds / 3))
            self._subscriptions.sync_soon()
            await self._heartbeat(backend)

    async def _heartbeat(self, backend: Backend, *, reconnected: bool = False) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            heartbeat = await backend.heartbeat()
        self._queue.tell_lost()
        await self._presence.restore(backend, heartbeat, reconnected=reconnected)

    def _mark_available(self) -> None:
        if self._unavailable_since is None:
            log.info("engine available")
        else:
            log.info("engine available again", seconds=round(monotonic() - self._unavailable_since, 1))
        self._unavailable_since = None
        self._refusal = ""
        self._attempts = 0
        self.available = True
        self._attempted.set()

    def _log_unavailable(self, error: Exception) -> None:
        """Log that the engine is unavailable: once, and once more where only somebody's change helps."""
        detail = "no answer" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, EngineRefusedError) and self._refusal != str(error):
            self._refusal = str(error)
            log.error("engine refuses the connection", detail=self._refusal)
        elif self._unavailable_since is None:
            log.error("engine unavailable", detail=detail)
        self._unavailable_since = self._unavailable_since or monotonic()
