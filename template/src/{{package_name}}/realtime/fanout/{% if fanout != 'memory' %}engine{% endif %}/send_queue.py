"""Operations on their way to the engine: in order, bounded in number and in time, retried where that is safe."""

import asyncio
from collections import Counter, deque
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from ..broker import closed, fail
from .backend import Backend, Operation, Publish, ReadHistory

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH: Final = 200
"""Operations, or channels, that the engine is given at once."""
ENGINE_SECONDS: Final = 5
"""Seconds within which it is noticed that the engine says nothing any more: by a heartbeat that is not answered."""
ANSWER_SECONDS: Final = 3
"""Seconds that the engine may take for an answer, before the connection to it counts as broken."""
MAX_WAITING: Final = 10_000
"""Operations that may wait for the engine; further ones fail at once."""
MAX_NAMED: Final = 10
"""Channels that a line of the log names."""
UNAVAILABLE: Final = "the engine of the fan-out is unavailable"


class _Result(asyncio.Future[T]):
    """Knows whether somebody waits for it."""

    awaited = False

    def add_done_callback(self, *args: Any, **options: Any) -> None:
        self.awaited = True
        super().add_done_callback(*args, **options)


class _Waiting(NamedTuple):
    operation: Operation[Any]
    result: _Result[Any]
    deadline: float


class SendQueue:
    """Operations that wait for a connection to the engine.

    Args:
        seconds: Seconds that an operation waits before it fails.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: list[_Waiting] = []
        """What the engine was given, and has not answered yet."""
        self._arrived = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self.closed = False
        self.failed = 0
        self._lost: Counter[str] = Counter()
        """Messages of each channel that were given up, and nobody was told of."""

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Have an operation done, in the order in which this is called; the result may be left unawaited.

        Raises:
            FanoutUnavailableError: In the future: the engine was unavailable for too long.
        """
        if self.closed:
            return closed()
        loop = asyncio.get_running_loop()
        result: _Result[T] = _Result(loop=loop)
        waiting = _Waiting(operation, result, loop.time() + self._seconds)
        try:
            f"{operation.channel}{operation.member}".encode()
        except UnicodeEncodeError:
            fail(result, "what is no UTF-8 cannot be sent to the engine of the fan-out")
            return result
        if len(self._waiting) >= MAX_WAITING:
            self._fail(waiting, "too much waits for the engine of the fan-out")
            return result
        self._waiting.append(waiting)
        self._arrived.set()
        if self._expiry is None:
            self._expiry = loop.call_later(self._seconds, self._expire)
        return result

    async def send_loop(self, backend: Backend) -> None:
        """Send waiting operations to the engine, until the backend fails or this is cancelled."""
        while True:
            await self._arrived.wait()
            batch = self._in_flight = self._next_batch()
            if not self._waiting:
                self._arrived.clear()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    results = await backend.apply([waiting.operation for waiting in batch])
            except BaseException:
                self._put_back(backend)
                raise
            self._in_flight = []
            for waiting, result in zip(batch, results, strict=True):
                if waiting.result.done():
                    continue
                if isinstance(result, Exception):
                    kind = type(result).__name__  # its text may quote the message
                    log.error("operation failed in the engine", channel=waiting.operation.channel, problem=kind)
                    self._fail(waiting, "the engine of the fan-out could not do it")
                else:
                    waiting.result.set_result(result)

    def _next_batch(self) -> list[_Waiting]:
        """Return what waits.

        What has failed before is tried alone, so that nothing else fails with it again; and history is read alone, for
        it may be large, and nothing else is to wait in the same transaction.
        """
        together = takewhile(
            lambda each: not (each.operation.retried or isinstance(each.operation, ReadHistory)), self._waiting
        )
        batch = list(islice(together, BATCH)) or list(islice(self._waiting, 1))
        for _ in batch:
            self._waiting.popleft()
        return batch

    def _put_back(self, backend: Backend) -> None:
        """Retry what was in flight where the engine can tell whether it was done; the rest fails."""
        batch, self._in_flight = self._in_flight, []
        for waiting in reversed(batch):
            if waiting.result.done():
                continue
            if isinstance(waiting.operation, Publish) and not backend.keeps_history:
                self._fail(waiting, "the engine became unavailable, and nobody knows who received the message")
            elif waiting.operation.retried:
                log.error("operation failed twice", channel=waiting.operation.channel)
                self._fail(waiting, "the engine of the fan-out failed at it twice")
            else:
                waiting.operation.retried = True
                self._waiting.appendleft(waiting)
        self._arrived.set()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and self._waiting[0].deadline <= now:
            self._fail(self._waiting.popleft(), UNAVAILABLE)
        for waiting in self._in_flight:
            if waiting.deadline <= now:
                self._fail(waiting, UNAVAILABLE)
        deadlines = [each.deadline for each in self._in_flight if not each.result.done()]
        deadlines += [each.deadline for each in islice(self._waiting, 1)]  # also where nobody waits for the first
        self._expiry = loop.call_at(deadlines[0], self._expire) if deadlines else None

    def _fail(self, waiting: _Waiting, detail: str) -> None:
        operation, result, _ = waiting
        if result.done():
            return
        self.failed += 1
        if isinstance(operation, Publish) and not result.awaited:
            self._lost[operation.channel] += 1
        fail(result, detail)

    def tell_lost(self) -> None:
        """Say what was given up while nobody awaited it, and leave its place in the channel empty: a gap to all."""
        if not self._lost:
            return
        lost, self._lost = self._lost, Counter()
        channels = [name for name, _ in lost.most_common(MAX_NAMED)]
        log.error("messages given up", messages=lost.total(), channels=channels, more=len(lost) - len(channels))
        if not self.closed:
            for channel in lost.elements():
                self.submit(Publish(channel=channel, data=b""))

    async def drain(self) -> None:
        """Wait until the engine has answered all that waits now, for ENGINE_SECONDS at most."""
        if pending := [waiting.result for waiting in (*self._in_flight, *self._waiting)]:
            await asyncio.wait(pending, timeout=ENGINE_SECONDS)

    def close(self) -> None:
        """Fail all waiting operations, and all that are submitted from now on."""
        self.closed = True
        if self._expiry:
            self._expiry.cancel()
        for waiting in (*self._in_flight, *self._waiting):
            self._fail(waiting, "the fan-out is closed")
        self._waiting.clear()
        self.tell_lost()
