"""The settings of the fan-out."""

from typing import Literal

from pydantic import Field

from ..settings import SettingsGroup


class FanoutSettings(SettingsGroup):
    """What the fan-out keeps, and what it does with slow consumers."""

    history: int = Field(default=100, ge=0)
    """Messages that are kept of each channel for clients that reconnect. 0 keeps none."""
    history_seconds: float = Field(default=300, ge=1)
    """Seconds that the history of a channel is kept after its last message. At least 1."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of one channel that wait for one slow consumer. At least 1."""
    backlog_full: Literal["drop", "close"] = "drop"
    """When the backlog is full: `drop` the oldest message and tell the client of the gap, or `close` with 1013."""
