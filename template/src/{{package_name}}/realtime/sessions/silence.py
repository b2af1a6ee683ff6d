"""How long a connection may send nothing."""

import asyncio
from time import monotonic

from .session import Session


class SilenceLimit:
    """Seconds until the first message, and seconds between one message and the next.

    It has one timer for each connection with such a limit. A message only leaves its time in the session. The timer
    looks at it when it is due, and is set again for the rest. While a message is handled, nothing is overdue.

    Args:
        session: A session whose `on_accept` hooks have returned.
        first: Seconds until its first message. 0 lifts the limit.
        idle: Seconds between messages. 0 lifts the limit.
    """

    __slots__ = ("_closing", "_first", "_idle", "_session", "_timer")

    def __init__(self, session: Session, *, first: float, idle: float) -> None:
        self._session = session
        self._first = first
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        """Kept, because the event loop itself keeps no task alive."""

    def start(self) -> None:
        """Begin to count the seconds. Nothing happens where there is no limit."""
        if limits := [seconds for seconds in (self._first, self._idle) if seconds]:
            self._wait(min(limits))

    def stop(self) -> None:
        """Count no further."""
        if self._timer:
            self._timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        session = self._session
        waits_for_first = self._first and not session.messages_in
        seconds = self._first if waits_for_first else self._idle
        silent = monotonic() - session.last_received_at if session.awaiting_message else 0.0
        if not seconds:
            return
        if silent < seconds:
            self._wait(seconds - silent)
        elif waits_for_first:
            self._close("first_message_seconds", "no message came in time")
        else:
            self._close("idle_seconds", "idle for too long")

    def _close(self, setting: str, detail: str) -> None:
        self._closing = asyncio.create_task(self._session.close_for_limit(setting, detail))
