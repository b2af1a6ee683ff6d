"""The supervisor notices what fails, and stops, whatever a driver does at that moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

from my_service.realtime.fanout.engine.backend import Heartbeat
from my_service.realtime.fanout.engine.send_queue import ENGINE_SECONDS, SendQueue
from my_service.realtime.fanout.engine.signatures import Signer
from my_service.realtime.fanout.engine.subscriptions import Subscriptions
from my_service.realtime.fanout.engine.supervisor import Supervisor

from ..recording import SkippingLoop

TIMEOUT = 5


class BreaksWhenCancelled:
    """Fails the first time that it is cancelled: its connection breaks at that moment."""

    broke = False

    @classmethod
    async def connect(cls, *_: object) -> "BreaksWhenCancelled":
        return cls()

    def events(self) -> Sequence[AsyncIterator[None]]:
        return [self._receive()]

    async def _receive(self) -> AsyncIterator[None]:
        try:
            await asyncio.Event().wait()
            yield
        except asyncio.CancelledError:
            if BreaksWhenCancelled.broke:
                raise
            BreaksWhenCancelled.broke = True
            raise ConnectionError from None

    async def heartbeat(self) -> Heartbeat:
        return Heartbeat("", known=True)

    async def close(self) -> None: ...


class FallsSilent(BreaksWhenCancelled):
    """Answers one heartbeat, and nothing after it, without a word."""

    answered_at = 0.0

    async def _receive(self) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async def heartbeat(self) -> Heartbeat:
        if FallsSilent.answered_at:
            await asyncio.Event().wait()
        FallsSilent.answered_at = asyncio.get_running_loop().time()
        return Heartbeat("", known=True)


class NobodyHere:
    async def restore(self, *_: object, **__: object) -> None: ...


def ignore(*_: object) -> None: ...


def supervisor_of(backend: type[BreaksWhenCancelled]) -> Supervisor:
    queue, subscriptions = SendQueue(TIMEOUT), Subscriptions(ignore, Signer([]))
    parts: tuple[Any, ...] = (backend, SimpleNamespace(presence_seconds=15), queue, subscriptions, NobodyHere())
    return Supervisor(*parts)


def test_it_stops_where_the_connection_breaks_at_the_same_moment() -> None:
    async def stop() -> None:
        supervisor = supervisor_of(BreaksWhenCancelled)
        await supervisor.start()
        assert supervisor.available
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.wait([stopping], timeout=TIMEOUT)
        assert BreaksWhenCancelled.broke
        assert stopping.done()

    asyncio.run(stop())


def test_an_engine_that_falls_silent_while_nothing_is_said_is_noticed_in_time() -> None:
    async def notice() -> None:
        loop = asyncio.get_running_loop()
        supervisor = supervisor_of(FallsSilent)
        await supervisor.start()
        while supervisor.available:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)
        assert loop.time() - FallsSilent.answered_at < ENGINE_SECONDS + 0.1
        await supervisor.stop()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(notice())
