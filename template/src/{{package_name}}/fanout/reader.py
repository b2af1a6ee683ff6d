"""What one connection hears of one channel: a bounded backlog, and how it reaches the client."""

import asyncio
from collections import deque
from typing import Final

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

LARGEST_WRITE: Final = 65536
"""Bytes after which it is looked anew whether the client still reads."""


class Flush:
    """Sends what has come to any reader, once for each turn of the event loop: a burst is one write to each client."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []

    def add(self, reader: "Reader") -> None:
        if not self._readers:
            asyncio.get_running_loop().call_soon(self._run)
        self._readers.append(reader)

    def _run(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.flush()


class Reader(Subscriber):
    """A connection as a subscriber of a channel.

    Who reads too slowly loses the oldest messages, is told how many, and delays nobody; or, where BACKLOG_FULL says so,
    is closed with 1013.

    A message is made a frame once, for all who hear it, and written to each; only where something stands between the
    handler and the server (a middleware, compression, a test client) does it go through there.

    Args:
        numbered: Send each message with its sequence.
    """

    _task: asyncio.Task[None] | None

    def __init__(
        self,
        channels: ChannelsPlugin,
        settings: Settings,
        metrics: FanoutMetrics,
        flush: Flush,
        socket: Socket,
        channel: str,
        *,
        numbered: bool,
    ) -> None:
        super().__init__(channels)
        self.channel = channel
        self._socket = socket
        self._entry = OpenSocket.of(socket)
        self._writer = self._entry.frame_writer(socket)
        self._id = self._entry.connection.id if self._entry.connection else ""
        self._metrics = metrics
        self._flush = flush
        self._most = settings.max_backlog
        self._closes = settings.backlog_full == "close"
        self._numbered = numbered
        self._backlog: deque[Published] = deque()
        self._missed = 0
        self._last = 0
        self._due = True  # nothing is sent before `start`

    def put_nowait(self, item: bytes | None) -> bool:
        """Take a message of the channel, without waiting; return whether the connection is to hear it."""
        if not isinstance(item, Published):
            return False  # Litestar's sign that nothing follows
        if isinstance(item, Hole):
            self._last = 0  # the engine may have begun anew, with other numbers
        elif item.sequence <= self._last or item.skipped == self._id:
            return False
        else:
            self._last = item.sequence
        if len(self._backlog) >= self._most:
            self._overflow()
        self._backlog.append(item)
        if not self._due:
            self._due = True
            self._flush.add(self)
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

    def start(self) -> None:
        """Begin to send."""
        self._flush.add(self)

    def flush(self) -> None:
        """Send all that has come; whatever the client does not take waits for it in a task."""
        self._due = False
        if self._task is None and not self._write():
            self._task = asyncio.create_task(self._send())

    def _overflow(self) -> None:
        self._backlog.popleft()
        self._missed += 1
        self._metrics.dropped += 1
        if self._closes and self._missed == 1:
            self._entry.connections.metrics.limits["max_backlog"] += 1
            closing = self._entry.close(Reason.LIMIT_EXCEEDED, TRY_AGAIN_LATER, "too slow")
            self._closing = asyncio.create_task(closing)

    def _write(self) -> bool:
        """Write frames while the client takes them; return whether nothing is left."""
        while self._backlog:
            if self._writer is None or not self._writer.takes_frames:
                return False
            frames: list[bytes] = []
            size = 0
            while self._backlog and size < LARGEST_WRITE:
                message = self._next()
                frame = message.numbered_frame if self._numbered and message.sequence else message.frame
                frames.append(frame)
                size += len(frame)
            self._writer.write_frames(b"".join(frames))
            self._entry.messages_out += len(frames)
        return True

    async def _send(self) -> None:
        try:
            while not self._write():
                if self._writer:
                    await self._writer.writable.wait()
                    if not self._writer.takes_frames:
                        return  # it is ending; its own task cleans it up
                else:
                    message = self._next()
                    text = message.numbered if self._numbered and message.sequence else message.text
                    await self._socket.send_text(text)
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("a published message could not be sent")  # nobody else would say so
            await self._entry.close(Reason.HANDLER_FAILED, INTERNAL_ERROR, "internal error")
        finally:
            self._task = None

    def _next(self) -> Published:
        if self._missed:
            missed, self._missed = self._missed, 0
            return _gap(self.channel, missed)
        return self._backlog.popleft()


def _gap(channel: str, missed: int | None) -> Hole:
    return Hole(msgspec.json.encode(Gap(channel=channel, missed=missed)), 0)
