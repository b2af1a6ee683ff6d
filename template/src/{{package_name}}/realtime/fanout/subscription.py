"""One connection that has joined one channel: how messages reach its client, and what happens where it reads slowly."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any, Final

import msgspec
import structlog
from litestar.exceptions import WebSocketDisconnect
from msgspec import Raw
from websockets.frames import CloseCode

from ..sessions.cause import Reason
from ..sessions.session import Session, Socket
from .broker import FanoutSettings
from .dispatch import MAX_WRITE_BYTES, Batch, FanoutMetrics
from .messages import GapMarker, History, Members, Message, resume

log = structlog.get_logger(__name__)

DOUBLE_SECONDS: Final = 60
"""Seconds after a join in which a message may still come that was stored before."""


@dataclass(slots=True, eq=False)
class Subscription:
    """Sends the messages of a channel to a connection.

    A slow consumer loses the oldest messages, is told how many, and delays nobody; or is closed with 1013, where the
    setting BACKLOG_FULL says so. Where something between the handler and the server wants to see each message (a
    middleware, compression, a test client), messages go there as events; else their frames are written as they are.

    Args:
        settings: How long the backlog may be, and what happens when it is full.
        metrics: Where gaps and dropped messages are counted.
        socket: The connection.
        channel: The name of the channel.
        numbered: Send each message with its sequence.
    """

    settings: FanoutSettings
    metrics: FanoutMetrics
    socket: Socket
    channel: str
    numbered: bool = field(kw_only=True)
    _session: Session = field(init=False)
    _connection_id: str = field(init=False)
    _backlog: deque[Message] = field(default_factory=deque[Message], init=False)
    _missed: int = field(default=0, init=False)
    """Messages dropped from the backlog since the client was last told of a gap."""
    _last_sequence: int = field(default=0, init=False)
    """What comes up to this sequence was sent already, or waits in the backlog."""
    _started: bool = field(default=False, init=False)
    _key: str = field(default="", init=False)
    _sent_first: set[Any] = field(default_factory=set[Any], init=False)
    """The keys of the messages that were sent before those of the channel, for a while."""
    _forgetting: asyncio.TimerHandle | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._session = Session.of(self.socket)
        self._connection_id = self._session.ensure_connection().id

    def deliver(self, batch: Batch) -> None:
        """Send messages of the channel, at once where the client keeps up."""
        session = self._session
        if (
            self._started
            and not self._backlog
            and not self._sent_first
            and batch.fits
            and batch.first > self._last_sequence
            and self._connection_id not in batch.excluded
            and session.writer is not None
            and session.write_frames(batch.numbered_frames if self.numbered else batch.frames, len(batch.messages))
        ):
            return
        for message in batch.messages:
            self._queue(message)
        if self._started:
            self._flush()

    async def send_states(self, members: Members) -> None:
        """Send the states of those who are present, in place of what the channel had until then."""
        self._last_sequence = members.sequence
        self._backlog = deque(
            each for each in self._backlog if isinstance(each, GapMarker) or each.sequence > members.sequence
        )
        for state in filter(None, members.states.values()):
            await self._session.send_message(Raw(state))

    async def send_first(self, messages: AsyncIterator[bytes], key: str) -> None:
        """Send messages, while those of the channel wait. What is among both, by a field, is sent once."""
        self._key = key
        async for data in messages:
            if (value := self._key_of(data)) is None:
                raise ValueError(f"{self.socket.scope['path']}: a message that is sent first has no {key!r}")
            await self._session.send_message(Raw(data))
            self._sent_first.add(value)
        self._forgetting = asyncio.get_running_loop().call_later(DOUBLE_SECONDS, self._sent_first.clear)

    def start(self) -> None:
        """Begin to send: first what has come since the channel was joined."""
        if self._sent_first:
            self._backlog = deque(filterfalse(self._is_double, self._backlog))
        self._started = True
        self._flush()

    def start_after(self, after: int, history: History) -> None:
        """Begin to send: first what the channel has after a sequence, or a gap for what it has not."""
        self._backlog = deque(resume(self.channel, after, history, self._backlog))
        self._last_sequence = max(self._last_sequence, history.sequence)
        self.start()

    async def stop(self) -> None:
        """Send nothing more."""
        self._started = False
        self._backlog.clear()
        if self._forgetting:
            self._forgetting.cancel()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _queue(self, message: Message) -> None:
        if isinstance(message, GapMarker):
            self._last_sequence = 0  # the channel may have begun anew, with lower numbers
        elif (
            message.sequence <= self._last_sequence
            or (message.exclude and message.exclude == self._connection_id)
            or (self._started and self._is_double(message))
        ):
            return
        if len(self._backlog) >= self.settings.max_backlog:
            self._drop_oldest()
        self._backlog.append(message)

    def _is_double(self, message: Message) -> bool:
        """Return whether a message was sent already, before those of the channel."""
        return bool(self._sent_first) and self._key_of(message.data) in self._sent_first

    def _key_of(self, data: bytes) -> Any:
        return msgspec.json.decode(data).get(self._key) if data.startswith(b"{") else None

    def _drop_oldest(self) -> None:
        self._backlog.popleft()
        self._missed += 1
        self.metrics.dropped += 1
        if self.settings.backlog_full == "close":
            session = self._session
            session.close_soon(session.close_for_limit("max_backlog", "too slow", CloseCode.TRY_AGAIN_LATER))

    def _flush(self) -> None:
        if self._task is None and not self._write():
            self._task = asyncio.create_task(self._send_loop())

    def _write(self) -> bool:
        """Write frames while the client keeps up; return whether nothing is left."""
        while self._backlog:
            if self._session.writer is None or not self._session.writer.takes_frames:
                return False
            frames: list[bytes] = []
            size = 0
            while self._backlog and size < MAX_WRITE_BYTES:
                frames.append(self._next().frame(numbered=self.numbered))
                size += len(frames[-1])
            self._session.write_frames(b"".join(frames), len(frames))
        return True

    async def _send_loop(self) -> None:
        """Send the backlog as fast as the client reads it."""
        try:
            while not self._write():
                if writer := self._session.writer:
                    await writer.writable.wait()
                    if not writer.takes_frames:
                        return  # the connection is ending, and its own task cleans it up
                else:
                    await self.socket.send_text(self._next().payload(numbered=self.numbered).decode())
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("a published message could not be sent")  # nothing else reports it
            await self._session.close(Reason.HANDLER_FAILED, CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._task = None

    def _next(self) -> Message:
        if self._missed:
            missed, self._missed = self._missed, 0
            return GapMarker(self.channel, missed)
        message = self._backlog.popleft()
        self.metrics.gaps += isinstance(message, GapMarker)
        return message
