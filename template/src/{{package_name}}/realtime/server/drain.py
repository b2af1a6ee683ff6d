"""A shutdown that closes every connection and awaits its clean-up, before anything they share is closed.

By the time the application hears of a shutdown, servers have closed its sockets. So the server itself drains: it turns
`/ready` to 503, refuses new sockets, closes each open one with 1012 at a random moment, lets busy handlers finish,
cancels the rest, and only then shuts down as ever.
"""

import asyncio
import os
import random
import signal
import socket
import threading
from operator import itemgetter
from time import monotonic
from types import FrameType

import structlog
import uvicorn
from websockets.frames import CloseCode

from ..sessions.cause import Reason
from ..sessions.session import Registry, Session
from ..settings import CoreSettings

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain before its shutdown.

    SIGTERM drains in full. Ctrl+C closes all at once, and busy handlers still have their grace period. A second signal
    skips that too. The clean-up of every connection is awaited in each case.
    """

    def __init__(self, config: uvicorn.Config, registry: Registry, settings: CoreSettings) -> None:
        super().__init__(config)
        self._registry = registry
        self._settings = settings
        self._signals: list[int] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to stop. On a second Ctrl+C, uvicorn's own leaves out the shutdown of the application."""
        self._signals.append(sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._registry.draining = True
        log.info("draining", connections=len(self._registry))
        deadline = monotonic() + self._settings.drain_seconds + self._settings.grace_seconds
        closing = await self._close_all()
        while not await self._registry.wait_empty(0.1) and monotonic() < deadline and len(self._signals) < 2:
            pass
        for session in self._registry:
            if session.task is not None and not session.closing:
                session.task.cancel()
        await self._registry.wait_empty(2 * self._settings.hook_seconds)
        for task in closing:
            task.cancel()
        log.info("drained", connections=len(self._registry))
        await super().shutdown(sockets)
        leaving = threading.Timer(self._settings.hook_seconds, _leave_threads)
        leaving.daemon = True
        leaving.start()

    async def _close_all(self) -> list[asyncio.Task[None]]:
        """Begin to close each socket at its own moment, so that the clients do not all come back at once."""
        began = monotonic()
        accepted = [session for session in self._registry if session.accepted]
        moments = [(random.uniform(0, self._settings.drain_seconds), session) for session in accepted]  # noqa: S311
        closing: list[asyncio.Task[None]] = []
        for moment, session in sorted(moments, key=itemgetter(0)):
            while (wait := began + moment - monotonic()) > 0 and not self._in_a_hurry():
                await self._registry.wait_empty(min(wait, 0.1))
            # Each in a task of its own: one client that reads nothing must not delay the others.
            closing.append(asyncio.create_task(_close(session)))
        return closing

    def _in_a_hurry(self) -> bool:
        return signal.SIGINT in self._signals or len(self._signals) > 1 or not len(self._registry)


async def _close(session: Session) -> None:
    await session.close(Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART, "service restarts")


def _leave_threads() -> None:
    """End the process. Python waits for all threads, and one that a handler began cannot be cancelled."""
    log.error("a thread of a handler did not end, and is left")
    os._exit(0)
