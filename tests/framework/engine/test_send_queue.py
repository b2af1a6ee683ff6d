"""An operation on which the engine fails twice fails alone."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from my_service.realtime.fanout.broker import FanoutUnavailableError
from my_service.realtime.fanout.engine.backend import Backend, Operation, Publish
from my_service.realtime.fanout.engine.send_queue import SendQueue

TIMEOUT = 20


class Poisoned:
    """Breaks whenever it is given one message."""

    keeps_history = True

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        if any(isinstance(each, Publish) and each.data == b"poison" for each in operations):
            raise ConnectionError
        return [1 for _ in operations]


def test_what_fails_twice_fails_alone() -> None:
    async def send() -> None:
        queue = SendQueue(TIMEOUT)
        texts = [b"1", b"poison", b"2", b"3"]
        results = [queue.submit(Publish(channel="hall", data=text)) for text in texts]
        connections = 0
        while not all(result.done() for result in results):
            connections += 1
            sending = asyncio.create_task(queue.send_loop(cast("Backend", Poisoned())))
            await asyncio.wait(
                [sending, asyncio.gather(*results, return_exceptions=True)], return_when="FIRST_COMPLETED"
            )
            sending.cancel()
            with pytest.raises((ConnectionError, asyncio.CancelledError)):
                await sending
        assert connections <= 3
        outcomes = await asyncio.gather(*results, return_exceptions=True)
        assert [isinstance(outcome, FanoutUnavailableError) for outcome in outcomes] == [False, True, False, False]

    asyncio.run(asyncio.wait_for(send(), TIMEOUT))
