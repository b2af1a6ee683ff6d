"""An operation on which the engine fails twice fails alone."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from my_service.realtime.fanout.broker import FanoutUnavailableError
from my_service.realtime.fanout.engine.backend import Backend, Operation, Publish, ReadHistory
from my_service.realtime.fanout.engine.history_reads import HistoryReads
from my_service.realtime.fanout.engine.send_queue import SendQueue
from my_service.realtime.fanout.engine.signatures import Signer
from my_service.realtime.fanout.messages import History, Message

from ..recording import SkippingLoop

TIMEOUT = 20


class Poisoned:
    """Breaks whenever it is given one message."""

    keeps_history = True

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        if any(isinstance(each, Publish) and each.data == b"poison" for each in operations):
            raise ConnectionError
        return [1 for _ in operations]


class Counting:
    """Answers when it is let, and notes what it was given at once."""

    keeps_history = True

    def __init__(self) -> None:
        self.batches: list[list[Operation[Any]]] = []
        self.let = asyncio.Event()

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self.batches.append(list(operations))
        await self.let.wait()
        messages = [Message(b"{}", sequence) for sequence in range(1, 6)]
        return [History(0, 5, messages) if isinstance(each, ReadHistory) else 1 for each in operations]


def test_a_history_is_read_once_for_all_who_wait_and_alone_and_for_nobody_who_is_gone() -> None:
    async def read() -> None:
        queue, engine = SendQueue(TIMEOUT), Counting()
        reads = HistoryReads(queue, Signer([]), TIMEOUT)
        sending = asyncio.create_task(queue.send_loop(cast("Backend", engine)))
        clients = [asyncio.create_task(reads.read("hall", number % 5)) for number in range(200)]
        others = [asyncio.create_task(reads.read(f"room {number}", 0)) for number in range(50)]
        publish = queue.submit(Publish(channel="other", data=b"{}"))
        while not engine.batches:  # noqa: ASYNC110  # it counts, and tells nobody
            await asyncio.sleep(0)
        for task in (*clients[100:], *others):
            task.cancel()
        engine.let.set()
        histories = await asyncio.gather(*clients[:100])
        await publish
        for number, history in enumerate(histories):
            assert [message.sequence for message in history.messages] == [*range(number % 5 + 1, 6)]
        given = [each for batch in engine.batches for each in batch]
        assert len([each for each in given if isinstance(each, ReadHistory)]) <= 3
        assert all(len(batch) == 1 for batch in engine.batches if any(isinstance(each, ReadHistory) for each in batch))
        sending.cancel()

    asyncio.run(asyncio.wait_for(read(), TIMEOUT))


def test_what_fails_twice_fails_alone() -> None:
    async def send() -> None:
        queue = SendQueue(TIMEOUT)
        texts = [b"1", b"poison", b"2", b"3"]
        results = [queue.submit(Publish(channel="hall", data=text)) for text in texts]
        connections = 0
        while not all(result.done() for result in results):
            connections += 1
            sending = asyncio.create_task(queue.send_loop(cast("Backend", Poisoned())))
            ends: list[asyncio.Future[Any]] = [sending, asyncio.gather(*results, return_exceptions=True)]
            await asyncio.wait(ends, return_when="FIRST_COMPLETED")
            sending.cancel()
            with pytest.raises((ConnectionError, asyncio.CancelledError)):
                await sending
        assert connections <= 3
        outcomes = await asyncio.gather(*results, return_exceptions=True)
        assert [isinstance(outcome, FanoutUnavailableError) for outcome in outcomes] == [False, True, False, False]

    asyncio.run(asyncio.wait_for(send(), TIMEOUT))


def test_what_waits_behind_what_was_cancelled_fails_in_time() -> None:
    async def wait() -> None:
        queue = SendQueue(1)
        results: list[asyncio.Future[int]] = []
        for _ in range(3):
            results.append(queue.submit(Publish(channel="hall", data=b"1")))
            await asyncio.sleep(0.1)
        first, cancelled, last = results
        cancelled.cancel()
        for result in (first, last):
            with pytest.raises(FanoutUnavailableError):
                await result

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(asyncio.wait_for(wait(), TIMEOUT))
