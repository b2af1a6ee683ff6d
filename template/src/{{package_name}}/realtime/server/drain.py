"""Graceful shutdown: every connection is closed and its clean-up awaited, before anything they share is closed.

By the time the application learns of a shutdown, servers have closed its sockets. So the server itself drains: it turns
`/ready` to 503, rejects new handshakes, closes each connection with 1012 at a random moment, lets busy handlers finish,
cancels the rest, and only then shuts down as uvicorn does.
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

from ..sessions.cause import Cause, Reason
from ..sessions.registry import Registry
from ..sessions.session import Session, State
from ..settings import CoreSettings

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn, with a drain before its shutdown.

    SIGTERM drains in full. Ctrl+C closes all at once, and busy handlers still have their grace period. A second signal
    skips that too. The clean-up of every connection is awaited in each case.

    Args:
        config: The configuration of uvicorn.
        registry: The sessions that are drained.
        settings: How long each step may take.
    """

    def __init__(self, config: uvicorn.Config, registry: Registry, settings: CoreSettings) -> None:
        super().__init__(config)
        self._registry = registry
        registry.is_drained = True
        self._settings = settings
        self._signals: list[int] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to stop. On a second Ctrl+C, uvicorn's own would skip the shutdown of the application."""
        self._signals.append(sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down."""
        await self.drain()
        await super().shutdown(sockets)
        exit_timer = threading.Timer(self._settings.hook_seconds, _force_exit)
        exit_timer.daemon = True
        exit_timer.start()

    async def drain(self) -> None:
        """Close each connection and await its clean-up; let no new one in."""
        self._registry.runtime.draining = True
        log.info("draining", connections=len(self._registry))
        deadline = monotonic() + self._settings.drain_seconds + self._settings.grace_seconds
        closing = await self._close_all()
        while not await self._registry.wait_empty(0.1) and monotonic() < deadline and len(self._signals) < 2:
            pass
        for session in self._registry:
            session.cancel()
        await self._registry.wait_empty(3 * self._settings.hook_seconds)
        for task in closing:
            task.cancel()
        log.info("drained", connections=len(self._registry))

    async def _close_all(self) -> list[asyncio.Task[Cause]]:
        """Begin to close each connection at its own moment, so that the clients do not all reconnect at once."""
        began = monotonic()
        sessions = [session for session in self._registry if session.state is State.OPEN]
        moments = [(random.uniform(0, self._settings.drain_seconds), session) for session in sessions]  # noqa: S311
        closing: list[asyncio.Task[Cause]] = []
        for moment, session in sorted(moments, key=itemgetter(0)):
            while (wait := began + moment - monotonic()) > 0 and not self._skips_the_delay():
                await self._registry.wait_empty(min(wait, 0.1))
            closing.append(asyncio.create_task(_close(session)))  # one that takes long must not delay the others
        return closing

    def _skips_the_delay(self) -> bool:
        return signal.SIGINT in self._signals or len(self._signals) > 1 or not len(self._registry)


async def _close(session: Session) -> Cause:
    """Close a connection as soon as the streams that run have ended."""
    await session.wait_exchanges()
    return await session.close(Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART, "service restarts")


def _force_exit() -> None:
    """End the process. Python waits for all threads, and one that a handler began cannot be cancelled."""
    log.error("a thread of a handler did not end, and is left")
    os._exit(0)
