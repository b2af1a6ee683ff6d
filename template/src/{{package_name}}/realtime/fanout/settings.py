"""The settings of the fan-out."""

from abc import abstractmethod
from typing import Final, Literal

from pydantic import Field

from ..settings import SettingsGroup
from .broker import Broker

CHANNEL_SHARE: Final = 8
"""One channel keeps at most this fraction, one in so many, of the bytes of all history."""

MESSAGE_BYTES: Final = 200
"""Bytes that a message takes besides its JSON, roughly: many small ones are bounded too."""


class FanoutSettings(SettingsGroup):
    """What the fan-out keeps, and what it does with slow consumers."""

    history: int = Field(default=100, ge=0)
    """Messages that are kept of each channel for clients that reconnect. 0 keeps none."""
    history_seconds: float = Field(default=300, ge=1)
    """Seconds that the history of a channel is kept after its last message. At least 1."""
    history_bytes: int = Field(default=67_108_864, ge=1_048_576)
    """Bytes of history that this node, or the engine, keeps of all channels; at most an eighth of them of one channel.
    The channel that was silent for longest is forgotten first. At least 1 MiB; the default is 64 MiB."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of one channel that wait for one slow consumer. At least 1."""
    backlog_full: Literal["drop", "close"] = "drop"
    """When the backlog is full: `drop` the oldest message and tell the client of the gap, or `close` with 1013."""

    presence_state_seconds: float = Field(default=1, ge=0)
    """Seconds between two changes of the state of one member that a node publishes; of those in between the last.
    0 lifts the limit."""

    @abstractmethod
    def make_broker(self) -> Broker:
        """Make what carries the messages."""
