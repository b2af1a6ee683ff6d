"""The members that are present on this node, as the engine should record them."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from .backend import Backend, Heartbeat, Operation, PresenceJoin, PresenceLeave, PresenceState
from .send_queue import ANSWER_SECONDS, SendQueue
from .subscriptions import batches


class RegisteredPresence:
    """Registers the members on this node with the engine, and restores what the engine believes of this node."""

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue
        self._members: dict[tuple[str, str], tuple[PresenceJoin, asyncio.Future[None]]] = {}
        self._states: dict[tuple[str, str], PresenceState] = {}
        self._unsettled: set[tuple[str, str]] = set()
        """Those whose last state the engine does not know, or has perhaps not published."""
        self._lifetime = ""
        self._stale = False
        """An operation was given up, so the engine may believe something else."""

    def join(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[None]:
        """Register a member, and remember it until it leaves."""
        operation = PresenceJoin(channel=channel, member=member, joined=joined, left=left)
        result = self._queue.submit(operation)
        self._members[channel, member] = operation, result
        return result

    def set_state(self, channel: str, member: str, state: bytes) -> asyncio.Future[float]:
        """Tell the engine the state of a member, and remember it until the member leaves. Without one, ask again."""
        change = PresenceState(channel=channel, member=member, state=state, restored=not state)
        if state:
            self._states[channel, member] = change
        result = self._queue.submit(change)
        result.add_done_callback(partial(self._note_state, change))
        return result

    def leave(self, channel: str, member: str) -> asyncio.Future[None]:
        """Tell the engine that a member is gone."""
        self._members.pop((channel, member), None)
        self._states.pop((channel, member), None)
        result = self._queue.submit(PresenceLeave(channel=channel, member=member))
        result.add_done_callback(self._note_failure)
        return result

    def _note_failure(self, result: asyncio.Future[Any]) -> None:
        self._stale = self._stale or _failed(result)

    def _note_state(self, change: PresenceState, result: asyncio.Future[float]) -> None:
        self._note_failure(result)
        if _failed(result):
            self._unsettled.add((change.channel, change.member))
        else:
            change.restored = True

    async def restore(self, backend: Backend, heartbeat: Heartbeat, *, reconnected: bool = False) -> None:
        """Restore what the engine has recorded for this node, where it may be wrong.

        Where the other nodes took this node for dead, they were told that its members left, and are told of them again;
        where the engine has forgotten everything, nobody was told anything.
        """
        remembered = heartbeat.lifetime == self._lifetime
        if not reconnected and remembered and heartbeat.known and not self._stale:
            return
        self._stale = False
        async with asyncio.timeout(ANSWER_SECONDS):
            registered = await backend.registered_members()
        changes: list[Operation[Any]] = [
            PresenceLeave(channel=channel, member=member) for channel, member in registered - self._members.keys()
        ]
        for key, (operation, result) in self._members.items():
            if key not in registered and result.done():
                changes.append(operation if remembered else replace(operation, joined=b""))
        changes += [change for key, change in self._states.items() if key not in registered or key in self._unsettled]
        for batch in batches(changes):
            async with asyncio.timeout(ANSWER_SECONDS):
                results = await backend.apply(batch)
            self._stale = self._stale or any(results)  # one has failed, or a state is to be published later
            for change, result in zip(batch, results, strict=True):
                if isinstance(change, PresenceState):
                    change.restored = change.restored or not isinstance(result, Exception)
                elif isinstance(change, PresenceJoin) != ((change.channel, change.member) in self._members):
                    self._stale = True  # it has left, or come, meanwhile
        if not self._stale:
            self._unsettled.clear()
        self._lifetime = heartbeat.lifetime


def _failed(result: asyncio.Future[Any]) -> bool:
    return result.cancelled() or result.exception() is not None
