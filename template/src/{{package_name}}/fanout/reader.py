"""What one connection hears of one channel: a bounded backlog, and the task that sends it."""

import asyncio
from collections import deque

import msgspec
import structlog
from litestar.channels import ChannelsPlugin
from litestar.channels.subscriber import Subscriber
from litestar.exceptions import WebSocketDisconnect

from ..connections import Reason, Socket
from ..connections.cause import INTERNAL_ERROR, TRY_AGAIN_LATER
from ..connections.registry import OpenSocket
from ..settings import Settings
from .link import History, Hole, Published
from .messages import Gap
from .metrics import FanoutMetrics

log = structlog.get_logger(__name__)


class Reader(Subscriber):
    """A connection as a subscriber of a channel.

    Who reads too slowly loses the oldest messages, is told how many, and delays nobody; or, where BACKLOG_FULL says so,
    is closed with 1013.

    Args:
        numbered: Send each message with its sequence.
    """

    def __init__(
        self,
        channels: ChannelsPlugin,
        settings: Settings,
        metrics: FanoutMetrics,
        socket: Socket,
        channel: str,
        *,
        numbered: bool,
    ) -> None:
        super().__init__(channels)
        self.channel = channel
        self._socket = socket
        self._entry = OpenSocket.of(socket)
        self._id = self._entry.connection.id if self._entry.connection else ""
        self._metrics = metrics
        self._most = settings.max_backlog
        self._closes = settings.backlog_full == "close"
        self._numbered = numbered
        self._backlog: deque[Published] = deque()
        self._missed = 0
        self._last = 0
        self._wake = asyncio.Event()

    def put_nowait(self, item: bytes | None) -> bool:
        """Take a message of the channel, without waiting; return whether the connection is to hear it."""
        if not isinstance(item, Published):
            return False  # Litestar's sign that nothing follows
        if isinstance(item, Hole):
            self._last = 0  # the engine may begin anew with other numbers
        elif item.sequence <= self._last or item.skipped == self._id:
            return False
        else:
            self._last = item.sequence
        if len(self._backlog) >= self._most:
            self._overflow()
        self._backlog.append(item)
        self._wake.set()
        return True

    def catch_up(self, after: int, history: History) -> None:
        """Put what the channel still has after a sequence before what has come meanwhile; after 0 there is no gap."""
        gap: list[Hole] = []
        if after and (missed := history.missed(after)) != 0:
            self._metrics.gaps += 1
            gap.append(_gap(self.channel, missed))
        later = [each for each in self._backlog if isinstance(each, Hole) or each.sequence > history.sequence]
        self._backlog = deque([*gap, *history.messages, *later])
        self._last = max(self._last, history.sequence)
        self._wake.set()

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_all())

    def _overflow(self) -> None:
        self._backlog.popleft()
        self._missed += 1
        self._metrics.dropped += 1
        if self._closes and self._missed == 1:
            self._entry.connections.metrics.limits["max_backlog"] += 1
            closing = self._entry.close(Reason.LIMIT_EXCEEDED, TRY_AGAIN_LATER, "too slow")
            self._closing = asyncio.create_task(closing)

    async def _send_all(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._backlog:
                    if self._missed:
                        missed, self._missed = self._missed, 0
                        await self._socket.send_text(_gap(self.channel, missed).text)
                    published = self._backlog.popleft()
                    numbered = self._numbered and published.sequence
                    await self._socket.send_text(published.numbered if numbered else published.text)
        except WebSocketDisconnect:
            pass  # it is ending; its own task cleans it up
        except Exception:
            log.exception("a published message could not be sent")  # nobody else would: it would stay open, and deaf
            await self._entry.close(Reason.HANDLER_FAILED, INTERNAL_ERROR, "internal error")


def _gap(channel: str, missed: int | None) -> Hole:
    return Hole(msgspec.json.encode(Gap(channel=channel, missed=missed)), 0)
