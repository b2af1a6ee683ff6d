"""Reads of history for clients that reconnect: however many they are, the engine gets few reads at a time."""

import asyncio
from typing import Final

from ..broker import FanoutUnavailableError, fail
from ..messages import History
from .backend import ReadHistory
from .send_queue import UNAVAILABLE, SendQueue
from .signatures import Signer

MAX_READS: Final = 2
"""Histories that are read from the engine at the same time; each may be an eighth of HISTORY_BYTES."""


class HistoryReads:
    """Reads the history of a channel once for all clients that wait for it, and not for clients that are gone.

    Args:
        queue: The operations for the engine.
        signer: Verifies what is read.
        seconds: Seconds that a read may take.
    """

    def __init__(self, queue: SendQueue, signer: Signer, seconds: float) -> None:
        self._queue = queue
        self._signer = signer
        self._seconds = seconds
        self._slots = asyncio.Semaphore(MAX_READS)
        self._wanted: dict[str, list[tuple[int, asyncio.Future[History]]]] = {}
        """Who waits for the next read of each channel, and after which sequence."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, channel: str, after: int) -> History:
        """Return what a channel has after a sequence, with all that was published before this was called.

        Raises:
            FanoutUnavailableError: That took too long.
        """
        result: asyncio.Future[History] = asyncio.get_running_loop().create_future()
        if channel not in self._wanted:
            self._wanted[channel] = []
            task = asyncio.create_task(self._read(channel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._wanted[channel].append((after, result))
        try:
            async with asyncio.timeout(self._seconds):
                return await result
        except TimeoutError:
            raise FanoutUnavailableError(detail=UNAVAILABLE) from None

    async def _read(self, channel: str) -> None:
        async with self._slots:
            wanted = [(after, result) for after, result in self._wanted.pop(channel) if not result.done()]
            if not wanted:
                return
            try:
                first = min(after for after, _ in wanted)
                history = await self._queue.submit(ReadHistory(channel=channel, after=first))
            except FanoutUnavailableError as error:
                for _, result in wanted:
                    fail(result, error.detail)
                return
            for message in history.messages:
                message.data = self._signer.open(channel, message.data, message.exclude)
            for after, result in wanted:
                if not result.done():
                    messages = [message for message in history.messages if message.sequence > after]
                    result.set_result(History(history.began, history.sequence, messages))
