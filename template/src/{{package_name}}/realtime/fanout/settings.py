"""The settings of the fan-out."""

from importlib.util import find_spec
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ..settings import SettingsGroup

ENGINES: Final = {
    "memory": "",
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(("postgresql", "postgres"), "psycopg"),
}
"""The engines of the fan-out: the scheme of FANOUT_URL, and the package that it needs."""
DRIVERS: Final = {"redis": "'redis[hiredis]'", "psycopg": "'psycopg[binary]'"}


class FanoutSettings(SettingsGroup):
    """What the fan-out keeps, and what it does with slow consumers."""

    fanout_url: str = Field(default="memory://", repr=False)  # it may hold a password, and settings are printed
    """The engine of the fan-out: memory:// reaches the connections of one process, redis:// and postgresql:// all."""
    history: int = Field(default=100, ge=0)
    """Messages that are kept of each channel for clients that reconnect. 0 keeps none."""
    history_seconds: float = Field(default=300, ge=1)
    """Seconds that the history of a channel is kept after its last message. At least 1."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of one channel that wait for one slow consumer. At least 1."""
    backlog_full: Literal["drop", "close"] = "drop"
    """When the backlog is full: `drop` the oldest message and tell the client of the gap, or `close` with 1013."""
    publish_seconds: float = Field(default=5, gt=0)
    """Seconds that `publish()` and `join()` wait for an unavailable engine before they raise `FanoutUnavailableError`.
    Must be positive."""
    presence_seconds: float = Field(default=15, ge=1)
    """Seconds after which the members on a dead node are reported as gone. At least 1."""

    @field_validator("fanout_url")
    @classmethod
    def _known_engine(cls, url: str) -> str:
        scheme = urlsplit(url).scheme
        if scheme not in ENGINES:
            raise ValueError("write memory://, redis://host:6379/0 or postgresql://user:password@host:5432/database")
        if (package := ENGINES[scheme]) and not find_spec(package):
            raise ValueError(f"{scheme}:// needs a package that is not installed: uv add {DRIVERS[package]}")
        try:
            _ = urlsplit(url).port
        except ValueError:  # its text may hold the password
            raise ValueError("the port is no number; in a password, write / # ? and @ as %2F %23 %3F and %40") from None
        return url
