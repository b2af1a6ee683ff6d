"""Graceful shutdown: close every connection and await its clean-up, before the resources that they share are closed.

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

    SIGTERM drains completely. Ctrl+C closes all connections at once, but busy handlers keep their grace period, which a
    second signal skips. In each case, the clean-up of every connection is awaited.

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
        """Begin to stop. uvicorn's handler would skip the shutdown of the application on a second Ctrl+C."""
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
        """Reject new connections, close each open one, and await its clean-up."""
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
        """Begin to close each connection at a random moment, so that clients do not all reconnect at once."""
        began = monotonic()
        sessions = [session for session in self._registry if session.state is State.OPEN]
        moments = [(random.uniform(0, self._settings.drain_seconds), session) for session in sessions]  # noqa: S311
        closing: list[asyncio.Task[Cause]] = []
        for moment, session in sorted(moments, key=itemgetter(0)):
            while (wait := began + moment - monotonic()) > 0 and not self._skips_the_delay():
                await self._registry.wait_empty(min(wait, 0.1))
            closing.append(asyncio.create_task(_close(session)))  # a slow one must not delay the others
        return closing

    def _skips_the_delay(self) -> bool:
        return signal.SIGINT in self._signals or len(self._signals) > 1 or not len(self._registry)


async def _close(session: Session) -> Cause:
    """Close a connection as soon as its running streams have ended."""
    await session.wait_exchanges()
    return await session.close(Reason.SERVICE_RESTARTS, CloseCode.SERVICE_RESTART, "service restarts")


def _force_exit() -> None:
    """Exit the process. Python would wait for all threads, but a thread that a handler started cannot be cancelled."""
    log.error("a thread of a handler did not end, and is left")
    os._exit(0)
