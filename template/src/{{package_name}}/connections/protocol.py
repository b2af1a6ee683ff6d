"""uvicorn's protocols, with bounds on a peer that only waits. For uvicorn 0.54.

By itself uvicorn waits without end for a peer to read what was sent before it closes.
"""

import asyncio

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, with a bound on its end."""

    async def send(self, message: ASGISendEvent) -> None:
        if self.transport.is_closing():
            await asyncio.sleep(0)  # a handler that does nothing but send would never let `connection_lost` run
        await super().send(message)

    def send_keepalive_ping(self) -> None:
        if self.close_sent or self.transport.is_closing():
            self._abort_in(self.ping_timeout or 0)
        else:
            super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_in(self.ping_timeout or 0)

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_in((self.config.timeout_graceful_shutdown or 0) / 2)

    def _abort_in(self, seconds: float) -> None:
        self.ping_timer = self.loop.call_later(seconds, self.transport.abort)  # `connection_lost` cancels it
