"""What happened to the sessions since the process began, in plain integers."""

from bisect import bisect_left
from collections import Counter
from typing import Final

LIMITS: Final = (
    "max_message_size",
    "message_seconds",
    "max_messages_per_second",
    "max_frames_per_second",
    "max_bad_messages",
    "first_message_seconds",
    "idle_seconds",
    "send_seconds",
    "max_backlog",
)
"""The settings whose limits close a connection. Those that reject a handshake are counted as `refused`."""

BUCKETS: Final = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
"""Upper bounds of the handler's time, in seconds."""


class Metrics:
    """Counters that cost no more than an addition."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        """Handshakes that were rejected, by reason."""
        self.ended: Counter[str] = Counter()
        """Connections that ended, by the reason of their cause."""
        self.limits: Counter[str] = Counter()
        """Connections that were closed for a limit, by the name of its setting."""
        self.bad_messages = 0
        self.slow_disconnects = 0
        self.messages_in = 0
        """Of the sessions that are closed. Each session counts its own until then."""
        self.messages_out = 0
        self.handled = [0] * (len(BUCKETS) + 1)
        """Messages by the time that their handler took: one number for each of BUCKETS, and one for all above."""
        self.handled_seconds = 0.0

    def count_handled(self, seconds: float) -> None:
        """Count a message by the seconds from its arrival until its handler was ready for the next one."""
        self.handled[bisect_left(BUCKETS, seconds)] += 1
        self.handled_seconds += seconds
