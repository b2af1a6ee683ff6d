"""The settings, read from the environment and from `.env`, typed and checked at start-up.

The field `port` is read from `<PACKAGE>_PORT`, and so on. `.env.example` lists them all.
"""

import inspect
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasChoices, AliasPath, Field, PrivateAttr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import ConfigurationError, SettingsError

PACKAGE: Final = __name__.removesuffix(".realtime.settings")
"""The package of the service, which contains this folder."""
PREFIX: Final = f"{PACKAGE.replace('.', '_').upper()}_"
"""The prefix of every environment variable."""
ENV_FILE: Final = Path(".env")
ENCODING: Final = "utf-8-sig"
"""The encoding of `ENV_FILE`. Some editors begin the file with a byte order mark."""
MAX_PORT: Final = 65535


Seconds = Annotated[float, Field(le=1e9)]
"""The type of a setting in seconds: so many that timers and engines can count them."""


class SettingsGroup(BaseSettings):
    """Settings that are read together, from variables with the same prefix."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    for_tests: ClassVar[dict[str, str]] = {}
    """Values that the tests of the service set, by field. A subclass lists only its own."""

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings.

        Args:
            overrides: Values that win over the environment; None stands for "not given".

        Raises:
            ConfigurationError: A variable is unknown or has a wrong value, or a subclass changes the type of a setting.
        """
        _check_redefined_fields(cls)
        problems = list(_unknown_variables(cls))
        try:
            settings = cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            problems += [_describe(details) for details in error.errors()]
            raise SettingsError(problems) from None
        if problems:
            raise SettingsError(problems)
        return settings


class CoreSettings(SettingsGroup):
    """The settings of the server, of its connections and of the log."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8000, ge=0, le=MAX_PORT)
    """The port to listen on; 0 takes any free port."""
    root_path: str = ""
    """The prefix that a proxy strips from the path of each request, such as `/chat`. Empty without such a proxy."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`console` for people, `json` for machines; `auto` is console in a terminal and JSON elsewhere."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins, besides the service's own, whose pages may connect, separated by commas: `https://app.example.com`,
    `https://*.example.com` for all sub-domains, `capacitor://localhost`, `vscode-webview://*`; `null` for pages without
    an origin, such as local files."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names by which clients may reach the service, separated by commas: `chat.example.com`, `*.example.com`.
    Empty accepts any name; on loopback, pages must use `localhost` or an IP address."""
    require_origin: bool = False
    """Reject handshakes without an Origin header. Browsers always send one."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses and networks of proxies whose X-Forwarded-* headers are trusted, separated by commas; * trusts all."""

    max_message_size: int = Field(default=65536, ge=1)
    """Bytes in one message. A larger message closes the connection with 1009. Cannot be lifted."""
    max_messages_per_second: float = Field(default=20, ge=0)
    """Messages per second from one connection, on average. A faster connection is closed with 1008. 0 lifts the
    limit."""
    message_burst: int = Field(default=100, ge=1)
    """Messages that one connection may send at once before MAX_MESSAGES_PER_SECOND applies. At least 1."""
    max_messages_per_second_per_address: float = Field(default=1000, ge=0)
    """Messages per second that all connections of one client address, or of one user, send to this node, on average;
    closed connections count too. A burst may hold ten seconds' worth. Beyond it, the connection is closed with 1008 and
    further handshakes are rejected with 429. 0 lifts the limit, and so does MAX_MESSAGES_PER_SECOND=0."""
    max_bytes_per_second_per_address: int = Field(default=8_388_608, ge=0)
    """Bytes of messages per second, counted in the same way. 0 lifts the limit."""
    max_frames_per_second: float = Field(default=100, ge=0)
    """Frames per second from one connection that are not whole messages, on average: pings, pongs, fragments. A burst
    may hold ten seconds' worth. Beyond it, the connection is closed with 1008. 0 lifts the limit."""
    message_seconds: Seconds = Field(default=30, ge=0)
    """Seconds from the first to the last byte of one message. A slower message closes the connection with 1008. 0 lifts
    the limit."""
    max_connections: int = Field(default=10_000, ge=0)
    """Connections of this node. Further handshakes are rejected with 503. 0 lifts the limit."""
    max_connections_per_address: int = Field(default=1000, ge=0)
    """Connections of one client address to this node. Further handshakes are rejected with 429. 0 lifts the limit."""
    max_bad_messages: int = Field(default=5, ge=0)
    """Invalid messages in a row from one connection. Each is answered with an error; one more closes the connection
    with 1008. 0 lifts the limit."""
    max_streams: int = Field(default=8, ge=1)
    """Streams that one connection may run at once. A message for one more is answered with the error
    `too_many_streams`. At least 1."""
    first_message_seconds: Seconds = Field(default=10, ge=0)
    """Seconds until the first message of a connection, for listeners with `client_speaks_first`. A later message closes
    the connection with 1008. 0 lifts the limit."""
    idle_seconds: Seconds = Field(default=0, ge=0)
    """Seconds that a connection may send no message before it is closed with 1008. 0 lifts the limit."""
    max_pending_bytes: int = Field(default=65536, ge=0)
    """Bytes buffered for one connection whose client reads slowly, before sends wait. 0 buffers nothing."""
    send_seconds: Seconds = Field(default=10, ge=0)
    """Seconds that a send may wait for a slow consumer before the connection is closed with 1013. 0 waits for ever."""
    deflate: bool = False
    """Compress messages of clients that offer it (permessage-deflate): less traffic for more CPU and memory."""

    handshake_seconds: Seconds = Field(default=10, gt=0)
    """Seconds within which the head of a request or handshake must arrive, and each 4 KiB of a body. Must be
    positive."""
    ping_interval: Seconds = Field(default=20, gt=0)
    """Seconds between the pings that keep a connection alive and find a dead peer. Must be positive."""
    ping_timeout: Seconds = Field(default=20, gt=0)
    """Seconds to wait for the pong. Must be positive."""
    hook_seconds: Seconds = Field(default=5, gt=0)
    """Seconds that one `on_disconnect` may take. Must be positive."""
    drain_seconds: Seconds = Field(default=5, ge=0)
    """On SIGTERM, the seconds over which connections are closed, each at a random moment. 0 closes all at once."""
    grace_seconds: Seconds = Field(default=10, ge=0)
    """Seconds after the drain that busy handlers have to finish before they are cancelled. 0 cancels them at once."""

    _is_development: bool = PrivateAttr(default=False)

    @field_validator("host")
    @classmethod
    def _is_named(cls, host: str) -> str:
        if not host.strip():
            raise ValueError("is empty; write 127.0.0.1, or 0.0.0.0 to listen on every address")
        return host

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, path: str) -> str:
        if not re.fullmatch(r"(/[\w.~:@+-]+)*", path, re.ASCII):
            raise ValueError("is not the prefix of a path; write /chat, without a slash at its end")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: str) -> str:
        for proxy in filter(None, (part.strip() for part in proxies.split(","))):
            with suppress(ValueError):
                if not getattr(ip_network(proxy).network_address, "ipv4_mapped", None):
                    continue
            if proxies != "*":
                raise ValueError(
                    f"{proxy!r} is not an address or a network; write 10.0.0.1 (no ::ffff:), 10.0.0.0/8 or * for any"
                )
        return proxies

    @field_validator("allowed_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin in {"null", "file://"}:
                continue
            parts = ORIGIN.fullmatch(origin)
            scheme, host = (parts["scheme"].lower(), parts["host"]) if parts else ("ws", "")
            too_wide = host == "*" or (host.startswith("*.") and "." not in host[2:] and host != "*.localhost")
            no_port = parts and int(parts["port"] or 0) > MAX_PORT
            if scheme in {"ws", "wss"} or (too_wide and scheme in {"http", "https"}) or no_port:
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme and host, as in https://example.com or "
                    "https://*.example.com"
                )
        return tuple(map(normal_origin, origins))

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not HOST.fullmatch(host) or host == "*":
                raise ValueError(f"{host!r} is not a host name; write chat.example.com or *.example.com without a port")
        return tuple(ascii_name(host).strip("[]") for host in hosts)

    @property
    def is_development(self) -> bool:
        """Whether the service runs with `--reload` and may explain to any client why it is rejected."""
        return self._is_development

    def for_reload(self) -> Self:
        """Return the settings for a service that restarts whenever its code changes, beside a dev server."""
        origins = (*self.allowed_origins, *LOCAL_ORIGINS)
        settings = self.model_copy(update={"allowed_origins": origins, "drain_seconds": 0.0, "grace_seconds": 1.0})
        settings._is_development = True
        return settings


NAME: Final = r"\*|(?:\*\.)?[^\s/@?#*:\[\],]+|\[[0-9A-Fa-f:.]+\]"
HOST: Final = re.compile(NAME)
ORIGIN: Final = re.compile(rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>{NAME})(?::(?P<port>[0-9]{{1,5}}))?")
"""An origin, in which `*` may stand for the sub-domains or, with the scheme of an application, for any name."""

LOCAL_ORIGINS: Final = tuple(
    f"{scheme}://{name}{port}"
    for scheme in ("http", "https")
    for name in ("localhost", "*.localhost", "127.0.0.1", "[::1]")
    for port in ("", ":*")
)
"""Origins of this machine, on any port, such as those of dev servers."""


def normal_origin(origin: str) -> str:
    """Write an origin as browsers do: lower case, in Punycode, without the port that its scheme implies."""
    scheme, separator, host = origin.lower().partition("://")
    host = ascii_name(host).removesuffix({"http": ":80", "https": ":443"}.get(scheme, "://"))
    return f"{scheme}{separator}{host}"


def ascii_name(name: str) -> str:
    """Write a name as DNS does: lower case, each label with other letters than ASCII in Punycode (RFC 3492)."""
    labels = unicodedata.normalize("NFKC", name.lower()).split(".")
    return ".".join(each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in labels)


def _describe(problem: ErrorDetails) -> str:
    """Name the variable and what is wrong with it, but not its value, which may be a secret."""
    path = "__".join(str(part) for part in problem["loc"]).upper()
    return f"{PREFIX}{path}: {problem['msg'].removeprefix('Value error, ')}"


def variables_of(name: str, field: FieldInfo) -> list[str]:
    """Return the variables from which a field is read, in capitals: one with the prefix, or those of its aliases."""
    aliases = field.validation_alias
    choices = aliases.choices if isinstance(aliases, AliasChoices) else [aliases]
    firsts = [alias.path[0] if isinstance(alias, AliasPath) else alias for alias in choices]
    return [(str(first) if first else f"{PREFIX}{name}").upper() for first in firsts]


def _unknown_variables(group: type[SettingsGroup]) -> Iterator[str]:
    known = [each for name, field in group.model_fields.items() for each in variables_of(name, field)]
    delimiter = str(group.model_config.get("env_nested_delimiter") or "")
    nested = tuple(f"{name}{delimiter}".upper() for name in known) if delimiter else ()
    env_file = group.model_config.get("env_file")
    try:
        given = {**(dotenv_values(ENV_FILE, encoding=ENCODING) if env_file else {}), **os.environ}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(ENV_FILE), f"cannot be read: {error}", "save it as text in UTF-8") from None
    values = {name.upper(): value or "" for name, value in given.items() if name.upper().startswith(PREFIX)}
    links = [name for name in sorted(values) if _is_service_link(name, values[name], known)]
    if links:
        several = f" and {len(links) - 1} more" if len(links) > 1 else ""
        yield f"{links[0]}{several}: set by a cluster for a service; set enableServiceLinks: false in the pod's spec"
    names = {name.removeprefix(PREFIX): name for name in known}
    for name in sorted(values.keys() - {*known, *links}):
        if not name.startswith(nested or "\0"):
            short = name.removeprefix(PREFIX)
            words = short.split("_")
            alike = [each for each in names if all(get_close_matches(word, each.split("_")) for word in words)]
            close = get_close_matches(short, alike, n=1)
            yield f"{name}: there is no such setting" + (f"; did you mean {names[close[0]]}?" if close else "")


SERVICE_LINK: Final = re.compile(
    r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""The names of the variables that a cluster sets in a pod for each service of its namespace."""


def _is_service_link(name: str, value: str, known: list[str]) -> bool:
    if name.rpartition("_")[2] == "PORT" and value.startswith(("tcp://", "udp://", "sctp://")):
        return True
    return name not in known and SERVICE_LINK.fullmatch(name.removeprefix(PREFIX)) is not None


def _check_redefined_fields(group: type[SettingsGroup]) -> None:
    """Refuse a field of a service's own class that has the name, but not the type, of a setting of this folder."""
    ours = [cls for cls in group.__mro__ if issubclass(cls, SettingsGroup) and cls.__module__.startswith(_FOLDER)]
    for cls in group.__mro__:
        if cls in ours or not issubclass(cls, SettingsGroup):
            continue
        for name in inspect.get_annotations(cls):
            setting = next((each.model_fields[name] for each in ours if name in each.model_fields), None)
            if setting is not None and cls.model_fields[name].annotation != setting.annotation:
                kind = getattr(setting.annotation, "__name__", None) or str(setting.annotation)
                raise ConfigurationError(
                    cls,
                    f"has a field {name!r}, but the setting {PREFIX}{name.upper()} has another type: {kind}",
                    f"rename the field, or annotate it as {kind} to change only the default",
                )


_FOLDER = f"{PACKAGE}.realtime."
