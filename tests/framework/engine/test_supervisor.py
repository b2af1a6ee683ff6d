"""The supervisor stops, whatever a driver does at that moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

from my_service.realtime.fanout.engine.backend import Heartbeat
from my_service.realtime.fanout.engine.send_queue import SendQueue
from my_service.realtime.fanout.engine.signatures import Signer
from my_service.realtime.fanout.engine.subscriptions import Subscriptions
from my_service.realtime.fanout.engine.supervisor import Supervisor

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


class NobodyHere:
    async def restore(self, *_: object, **__: object) -> None: ...


def ignore(*_: object) -> None: ...


def test_it_stops_where_the_connection_breaks_at_the_same_moment() -> None:
    async def stop() -> None:
        queue, subscriptions = SendQueue(TIMEOUT), Subscriptions(ignore, Signer([]))
        settings = SimpleNamespace(presence_seconds=TIMEOUT)
        parts: tuple[Any, ...] = (BreaksWhenCancelled, settings, queue, subscriptions, NobodyHere())
        supervisor = Supervisor(*parts)
        await supervisor.start()
        assert supervisor.available
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.wait([stopping], timeout=TIMEOUT)
        assert BreaksWhenCancelled.broke
        assert stopping.done()

    asyncio.run(stop())
