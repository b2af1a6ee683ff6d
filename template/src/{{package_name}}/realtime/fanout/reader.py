"""How a message of a channel reaches the connections of this node: once made a frame, and written to each."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import structlog
from litestar.channels import ChannelsPlugin
from litestar.channels.subscriber import Subscriber
from litestar.exceptions import WebSocketDisconnect
from websockets.frames import CloseCode

from ..sessions.cause import Reason
from ..sessions.session import Session, Socket
from .link import History, Hole, Published
from .metrics import FanoutMetrics
from .settings import FanoutSettings

log = structlog.get_logger(__name__)

MAX_WRITE_BYTES: Final = 65536
"""Bytes after which it is looked anew whether the client still reads."""


class Channel(Subscriber):
    """All connections of this node that hear a channel, as one subscriber of Litestar Channels.

    What comes in one turn of the event loop is sent in one write to each of them.
    """

    def __init__(self, channels: ChannelsPlugin, name: str) -> None:
        super().__init__(channels)
        self.name = name
        self.readers: set[Reader] = set()
        self._news: list[Published] = []

    def put_nowait(self, item: bytes | None) -> bool:
        if not isinstance(item, Published):
            return False  # Litestar's sign that nothing follows
        if not self._news:
            asyncio.get_running_loop().call_soon(self._spread)
        self._news.append(item)
        return True

    def _spread(self) -> None:
        burst = Burst(self._news)
        self._news = []
        for reader in tuple(self.readers):
            reader.take(burst)


class Burst:
    """Messages of a channel that are sent together, in the bytes that are the same for everybody."""

    def __init__(self, messages: Sequence[Published]) -> None:
        self.messages = messages
        self.first = min(message.sequence for message in messages)
        self.skipped = {message.skipped for message in messages if message.skipped}
        self.fits = sum(map(len, messages)) <= MAX_WRITE_BYTES

    @cached_property
    def frames(self) -> bytes:
        return b"".join([message.frame for message in self.messages])

    @cached_property
    def numbered_frames(self) -> bytes:
        return b"".join([message.numbered_frame for message in self.messages])


class Reader:
    """One connection as a reader of one channel.

    Who reads too slowly loses the oldest messages, is told how many, and delays nobody; or, where BACKLOG_FULL says so,
    is closed with 1013. Where something between the handler and the server wants to see each message (a middleware,
    compression, a test client), it goes there as an event; else the frames are written as they are.

    Args:
        numbered: Send each message with its sequence.
    """

    __slots__ = (
        "_backlog",
        "_closes",
        "_closing",
        "_session",
        "_floor",
        "_id",
        "_metrics",
        "_missed",
        "_most",
        "_numbered",
        "_socket",
        "_started",
        "_task",
        "_writer",
        "channel",
    )

    def __init__(
        self, settings: FanoutSettings, metrics: FanoutMetrics, socket: Socket, channel: str, *, numbered: bool
    ) -> None:
        self.channel = channel
        self._socket = socket
        self._session = Session.of(socket)
        self._writer = self._session.writer
        self._id = self._session.connection.id if self._session.connection else ""
        self._metrics = metrics
        self._most = settings.max_backlog
        self._closes = settings.backlog_full == "close"
        self._numbered = numbered
        self._backlog: deque[Published] = deque()
        self._missed = 0
        self._floor = 0
        """Up to this sequence it has all already."""
        self._started = False
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[object] | None = None

    def take(self, burst: Burst) -> None:
        """Send messages of the channel, at once where the client keeps up."""
        writer = self._writer
        if (
            burst.fits
            and burst.first > self._floor
            and not self._backlog
            and self._started
            and writer is not None
            and writer.takes_frames
            and self._id not in burst.skipped
        ):
            writer.write_frames(burst.numbered_frames if self._numbered else burst.frames)
            self._session.messages_out += len(burst.messages)
            return
        for message in burst.messages:
            self._put(message)
        if self._started:
            self._flush()

    def start(self, after: int = 0, history: History | None = None) -> None:
        """Begin to send: first what the channel has after a sequence, or the gap, then what has come meanwhile."""
        if history:
            gap: list[Published] = []
            if after and (missed := history.missed(after)) != 0:
                self._metrics.gaps += 1
                gap.append(Hole.of(self.channel, missed))
            later = [each for each in self._backlog if isinstance(each, Hole) or each.sequence > history.sequence]
            self._backlog = deque([*gap, *history.messages, *later])
            self._floor = max(self._floor, history.sequence)
        self._started = True
        self._flush()

    async def stop(self) -> None:
        """Send nothing more."""
        self._started = False
        self._backlog.clear()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _put(self, message: Published) -> None:
        if isinstance(message, Hole):
            self._floor = 0  # the engine may have begun anew, with other numbers
        elif message.sequence <= self._floor or message.skipped == self._id:
            return
        if len(self._backlog) >= self._most:
            self._overflow()
        self._backlog.append(message)

    def _overflow(self) -> None:
        self._backlog.popleft()
        self._missed += 1
        self._metrics.dropped += 1
        if self._closes and self._closing is None:
            self._session.metrics.count_limit("max_backlog")
            closing = self._session.close(Reason.LIMIT_EXCEEDED, CloseCode.TRY_AGAIN_LATER, "too slow")
            self._closing = asyncio.create_task(closing)

    def _flush(self) -> None:
        if self._task is None and not self._write():
            self._task = asyncio.create_task(self._send())

    def _write(self) -> bool:
        """Write frames while the client takes them; return whether nothing is left."""
        while self._backlog:
            if self._writer is None or not self._writer.takes_frames:
                return False
            frames: list[bytes] = []
            size = 0
            while self._backlog and size < MAX_WRITE_BYTES:
                message = self._next()
                frames.append(message.numbered_frame if self._numbered else message.frame)
                size += len(frames[-1])
            self._writer.write_frames(b"".join(frames))
            self._session.messages_out += len(frames)
        return True

    async def _send(self) -> None:
        """Send what waits, as fast as the client takes it."""
        try:
            while not self._write():
                if self._writer:
                    await self._writer.writable.wait()
                    if not self._writer.takes_frames:
                        return  # it is ending; its own task cleans it up
                else:
                    message = self._next()
                    await self._socket.send_text(message.numbered if self._numbered else message.text)
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("a published message could not be sent")  # nobody else would say so
            await self._session.close(Reason.HANDLER_FAILED, CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._task = None

    def _next(self) -> Published:
        if self._missed:
            missed, self._missed = self._missed, 0
            return Hole.of(self.channel, missed)
        return self._backlog.popleft()
