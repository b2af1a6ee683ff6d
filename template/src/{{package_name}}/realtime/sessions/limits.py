"""How much one connection may send, and how long it may say nothing.

What a slow reader may leave unread is in `protocol.py`; how many connections there may be, in `gate.py`.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Self

from ..settings import CoreSettings

if TYPE_CHECKING:
    from .session import Session


class MessageLimit:
    """Messages a second: a token bucket that refills with time and lets a burst through. A rate of 0 lifts it."""

    __slots__ = ("_burst", "_rate", "_refilled", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = self._tokens = max(float(burst), 1.0)
        self._refilled = monotonic()

    @classmethod
    def from_settings(cls, settings: CoreSettings) -> Self:
        return cls(settings.max_messages_per_second, settings.message_burst)

    def allows_message(self, now: float) -> bool:
        """Count one message that came at `now`, as of `monotonic()`; False where it is one too many."""
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class BadMessageLimit:
    """Messages in a row that were not understood. Told by their numbers, so a good one costs nothing. 0 lifts it."""

    __slots__ = ("_in_a_row", "_latest", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = 0
        self._latest = 0

    def allows_another(self, number: int) -> bool:
        """Count a bad message, the connection's `number`th of all; False where it is one too many."""
        self._in_a_row = self._in_a_row + 1 if number == self._latest + 1 else 1
        self._latest = number
        return not self._most or self._in_a_row <= self._most


class SilenceLimit:
    """Seconds until the first message, where the client has to speak first, and seconds between one and the next.

    One timer for each connection that has such a limit. A message only leaves its time in `session.last_received_at`; the timer
    looks at it when it is due, and is set again for the rest. While a message is handled nothing is overdue.
    """

    __slots__ = ("_closing", "_session", "_first", "_idle", "_timer")

    def __init__(self, session: "Session", *, first: float, idle: float) -> None:
        self._session = session
        self._first = first
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        """Kept, for the loop itself keeps no task alive."""

    def start(self) -> None:
        """Begin to count the seconds, from now on. Nothing happens where there is no limit."""
        self._session.last_received_at = monotonic()
        if limits := [seconds for seconds in (self._first, self._idle) if seconds]:
            self._wait(min(limits))

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        session = self._session
        first = self._first and not session.messages_in
        seconds = self._first if first else self._idle
        silent = monotonic() - session.last_received_at if session.awaiting_message else 0.0
        if not seconds:
            return
        if silent < seconds:
            self._wait(seconds - silent)
        elif first:
            self._closing = asyncio.create_task(
                session.close_for_limit("first_message_seconds", "no message came in time")
            )
        else:
            self._closing = asyncio.create_task(session.close_for_limit("idle_seconds", "idle for too long"))
