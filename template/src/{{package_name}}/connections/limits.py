"""How much one connection may send: a token bucket that refills with time and lets a burst through."""

from time import monotonic
from typing import Self

from ..settings import Settings


class MessageLimit:
    """Messages a second with a burst. A rate of 0 lifts it."""

    __slots__ = ("_burst", "_rate", "_refilled", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = self._tokens = max(float(burst), 1.0)
        self._refilled = monotonic()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.max_messages_per_second, settings.message_burst)

    def allows_message(self) -> bool:
        """Count one message; False where it is one too many."""
        if not self._rate:
            return True
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
