"""Messages that the nodes of the service send each other, which no connection can receive or send."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec
import structlog
from msgspec import Struct

from .dispatch import Batch
from .messages import GapMarker

log = structlog.get_logger(__name__)
NodeMessage = TypeVar("NodeMessage", bound=Struct)

MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in the name of a channel; it often comes from a URL, so from untrusted clients."""

NODE_CHANNEL_PREFIX: Final = ":" * (MAX_NAME_BYTES + 1)
"""Longer than the name of any other channel may be, so none can be that of a channel of the nodes."""

MAX_BACKLOG: Final = 1000
"""Messages that wait for a callback; for more, the oldest are dropped."""


def node_channel(kind: type[Struct]) -> str:
    """Return the name of the channel for a type of message."""
    return f"{NODE_CHANNEL_PREFIX}{kind.__name__}"


class NodeSubscriber(Generic[NodeMessage]):
    """Calls a function with each message of a type, one call after the other. What it raises is logged."""

    def __init__(self, kind: type[NodeMessage], callback: Callable[[NodeMessage], Awaitable[None]]) -> None:
        self._kind = kind
        self._callback = callback
        self._backlog: deque[bytes] = deque(maxlen=MAX_BACKLOG)
        self._arrived = asyncio.Event()

    def deliver(self, batch: Batch) -> None:
        """Take messages for `run`."""
        for message in batch.messages:
            if isinstance(message, GapMarker):
                log.warning("messages of other nodes are lost", kind=self._kind.__name__)
            else:
                self._backlog.append(message.data)
        self._arrived.set()

    async def run(self) -> None:
        """Call the function until this is cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._backlog:
                try:
                    await self._callback(msgspec.json.decode(self._backlog.popleft(), type=self._kind))
                except Exception:
                    log.exception("a message of another node could not be handled")
