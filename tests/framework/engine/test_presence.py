"""What is restored in the engine is what is there, also where somebody comes or goes meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from my_service.realtime.fanout.engine.backend import Heartbeat, Operation, PresenceJoin
from my_service.realtime.fanout.engine.presence import RegisteredPresence
from my_service.realtime.fanout.engine.send_queue import SendQueue

TIMEOUT = 20
ADA = ("hall", "ada")


class Engine:
    """Knows who is present; somebody changes that while it restores."""

    def __init__(self, presence: RegisteredPresence) -> None:
        self.registered: set[tuple[str, str]] = set()
        self.changes = False
        self._presence = presence

    async def registered_members(self) -> set[tuple[str, str]]:
        return self.registered.copy()

    async def apply(self, operations: Sequence[Operation[Any]]) -> list[None]:
        if self.changes:
            self.changes = False
            await (self._presence.leave(*ADA) if ADA not in self.registered else self._presence.join(*ADA, b"", b""))
        for operation in operations:
            change = self.registered.add if isinstance(operation, PresenceJoin) else self.registered.discard
            change((operation.channel, operation.member))
        return [None] * len(operations)


@pytest.mark.parametrize("comes", [True, False])
def test_who_comes_or_goes_while_presence_is_restored_is_there_or_not(*, comes: bool) -> None:
    async def restore() -> None:
        queue = SendQueue(TIMEOUT)
        presence = RegisteredPresence(queue)
        engine: Any = Engine(presence)
        sending = asyncio.create_task(queue.send_loop(engine))
        await presence.join(*ADA, b"", b"")
        if comes:
            await presence.leave(*ADA)
        engine.registered = {ADA} if comes else set[tuple[str, str]]()  # not noticed yet, or the node counts as dead
        engine.changes = True
        await presence.restore(engine, Heartbeat("", known=False))
        await presence.restore(engine, Heartbeat("", known=True))
        assert engine.registered == ({ADA} if comes else set[tuple[str, str]]())
        sending.cancel()

    asyncio.run(asyncio.wait_for(restore(), TIMEOUT))
