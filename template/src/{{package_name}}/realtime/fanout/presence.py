"""Who is present: the connections of each member of a channel on this node, counted."""

import asyncio
from dataclasses import dataclass

from .broker import Broker


@dataclass(slots=True)
class _Member:
    joining: asyncio.Future[None]
    connections: int = 0


class Presence:
    """Tells the broker of the first connection of each member, and of the end of the last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._members: dict[tuple[str, str], _Member] = {}

    async def join(self, channel: str, member: str, joined: bytes, left: bytes) -> None:
        """Count a connection of a member, until `leave` is called. Where this raises, it is not counted.

        Raises:
            FanoutUnavailableError: The broker could not be told in time.
        """
        entry = self._members.get((channel, member))
        if entry is None:
            joining = self._broker.join_presence(channel, member, joined, left)
            entry = self._members[channel, member] = _Member(joining)
        entry.connections += 1
        try:
            await asyncio.shield(entry.joining)
        except BaseException:
            self.leave(channel, member)
            raise

    def leave(self, channel: str, member: str) -> None:
        """Count a connection of a member no longer."""
        entry = self._members[channel, member]
        entry.connections -= 1
        if not entry.connections:
            del self._members[channel, member]
            self._broker.leave_presence(channel, member)
