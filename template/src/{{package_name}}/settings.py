"""Shared: the settings of the service, from the environment and from `.env`, typed and checked at start-up.

The field `port` is read from `<PACKAGE>_PORT`, and so on. `.env.example` lists them all. Add your own below the last.
"""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import FANOUT_URL

PREFIX = f"{(__package__ or '').upper()}_"
ENV_FILE = Path(".env")
ENGINES = {
    "memory": "",
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(("postgresql", "postgres"), "psycopg"),
}
"""The engines of the fan-out: the scheme of FANOUT_URL, and the package that it needs."""
DRIVERS = {"redis": "'redis[hiredis]'", "psycopg": "'psycopg[binary]'"}
FOLDERS = tuple(f"{PREFIX}{file.parent.name.upper()}_" for file in Path(__file__).parent.glob("*/settings.py"))
"""A folder with a settings.py of its own answers for the variables that begin with its name."""


class SettingsError(Exception):
    """A setting that is unknown or has a wrong value; the message is one line for each."""


class Section(BaseSettings):
    """Settings that are read together, from variables with the same prefix."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings.

        Args:
            overrides: Values that win over the environment; None stands for "not given".

        Raises:
            SettingsError: A variable is unknown or has a wrong value.
        """
        prefix = str(cls.model_config.get("env_prefix"))
        problems = _unknown_variables(prefix, cls.model_fields)
        try:
            settings = cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            problems += [_describe(prefix, details) for details in error.errors()]
            raise SettingsError("\n".join(problems)) from None
        if problems:
            raise SettingsError("\n".join(problems))
        return settings


class Settings(Section):
    """All that is chosen at run time. A 0 lifts a limit."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes any that is free."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """How the log is written: auto is for people in a terminal, JSON elsewhere."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """From which level on a line is logged."""
    opentelemetry: bool = False
    """Send traces to a collector; needs the extra `opentelemetry`, and is configured by OTEL_* variables."""

    fanout_url: str = Field(default=FANOUT_URL, repr=False)  # it may hold a password, and settings are printed
    """The engine of the fan-out: memory:// reaches the connections of one process, redis:// and postgresql:// all."""
    history: int = Field(default=100, ge=0)
    """Messages of a channel that are kept for those who come back; with redis:// and 0 it is pub/sub alone."""
    history_seconds: float = Field(default=300, ge=1)
    """How long they are kept after the last message of the channel."""
    max_backlog: int = Field(default=1000, ge=1)
    """Messages of a channel that wait for a slow reader."""
    backlog_full: Literal["drop", "close"] = "drop"
    """What one more does: drop the oldest and tell the client of the gap, or close it with 1013."""
    publish_seconds: float = Field(default=5, gt=0)
    """How long a message, or who joins, waits for an engine that is away."""
    presence_seconds: float = Field(default=15, ge=1)
    """How soon the death of a node is noticed."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of pages that may connect besides the service's own, with commas between."""
    require_origin: bool = False
    """Refuse clients that send no Origin: let in nothing but browsers."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, with commas between."""

    max_message_size: int = Field(default=65536, ge=1)
    """Bytes in one message; a larger one closes the connection with 1009."""
    max_messages_per_second: float = Field(default=20, ge=0)
    """Messages a second from one connection, in the long run; more close it with 1008."""
    message_burst: int = Field(default=100, ge=1)
    """Messages that may come at once before that rate holds."""
    max_connections: int = Field(default=10_000, ge=0)
    """Sockets open at the same time; further ones are refused with 503."""
    max_connections_per_address: int = Field(default=1000, ge=0)
    """Sockets open at the same time from one client address; further ones are refused with 429."""
    max_bad_messages: int = Field(default=5, ge=0)
    """Messages in a row that may not be understood; each is answered, and one more closes the connection with 1008."""
    first_message_seconds: float = Field(default=10, ge=0)
    """Seconds for the first message, where the client has to speak first; later closes the connection with 1008."""
    idle_seconds: float = Field(default=0, ge=0)
    """Seconds that a client may say nothing; more close the connection with 1008."""
    max_pending_bytes: int = Field(default=65536, ge=0)
    """Bytes that may wait for a slow reader before each send waits too; 0 lets none wait."""
    send_seconds: float = Field(default=10, ge=0)
    """Seconds that a send may wait for a slow reader; more close the connection with 1013."""
    deflate: bool = False
    """Compress messages for clients that offer it: less traffic for more CPU and memory."""

    handshake_seconds: float = Field(default=10, gt=0)
    """Seconds in which the head of a request, and so of a handshake, must arrive."""
    ping_interval: float = Field(default=20, gt=0)
    """Seconds between pings, by which a connection is kept alive and a dead peer found."""
    ping_timeout: float = Field(default=20, gt=0)
    """Seconds to wait for the answer to a ping."""
    hook_seconds: float = Field(default=5, gt=0)
    """Seconds that one on_disconnect may take."""
    drain_seconds: float = Field(default=5, ge=0)
    """On SIGTERM, the span in which connections are closed, each at a random moment."""
    grace_seconds: float = Field(default=10, ge=0)
    """After that, the time that busy handlers have to finish."""

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

    @field_validator("trusted_proxies")
    @classmethod
    def _real_addresses(cls, proxies: str) -> str:
        for proxy in filter(None, (part.strip() for part in proxies.split(","))):
            try:
                ip_network(proxy)
            except ValueError:
                if proxies != "*":
                    raise ValueError(f"{proxy!r} is no address; write 10.0.0.1, 10.0.0.0/8 or * for any") from None
        return proxies

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _real_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or origin.count("/") != 2 or "*" in origin:
                raise ValueError(f"{origin!r} is no origin; write scheme and host, as in https://example.com")
        return origins


def _describe(prefix: str, problem: ErrorDetails) -> str:
    """Name the variable and what is wrong with it, but not its value, which may be a secret."""
    return f"{prefix}{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown_variables(prefix: str, known: Iterable[str]) -> list[str]:
    names = [f"{prefix}{name.upper()}" for name in known]
    given = {name.upper() for name in (*os.environ, *dotenv_values(ENV_FILE)) if name.upper().startswith(prefix)}
    others = tuple(each for each in FOLDERS if each != prefix)
    problems: list[str] = []
    for name in sorted(name for name in given.difference(names) if not name.startswith(others)):
        close = get_close_matches(name, names, n=1)
        problems.append(f"{name}: there is no such setting" + (f"; did you mean {close[0]}?" if close else ""))
    return problems
