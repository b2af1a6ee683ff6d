"""The settings of the engine; the module of the engine adds its schemes and its default."""

from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from ...secrets import check_secret
from ...settings import Seconds
from ..broker import FanoutSettings


class EngineSettings(FanoutSettings):
    """The URL of the engine, and how long to wait for it."""

    schemes: ClassVar[tuple[str, ...]]
    """The schemes of a URL of this engine."""
    example_url: ClassVar[str]
    for_tests: ClassVar = {"fanout_url": "memory://"}  # tests neither need nor disturb an engine

    fanout_url: str = Field(repr=False)  # it may hold a password, and settings are printed
    """The URL of the engine. memory:// needs no engine, but reaches only the connections of one process."""
    fanout_secret: SecretStr = SecretStr("")
    """The secret that signs messages between nodes, at least 32 bytes. Of several, separated by commas, the first one
    signs and all verify. If empty, the secret of the authentication is used; without one, nothing is signed."""
    publish_seconds: Seconds = Field(default=5, gt=0)
    """Seconds that `publish()` and `join()` wait for an unavailable engine before they raise `FanoutUnavailableError`.
    Must be positive."""
    presence_seconds: Seconds = Field(default=15, ge=1)
    """Seconds after which the members on a dead node are reported as gone. At least 1."""

    @field_validator("fanout_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        for each in secrets_of(secret):
            check_secret(each)
        return secret

    @field_validator("fanout_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            for host in parts.netloc.rpartition("@")[2].split(","):  # libpq takes several
                _ = urlsplit(f"//{host}").port
        except ValueError:  # its text may hold the password
            raise ValueError("the port is wrong; in a password, write / # ? and @ as %2F %23 %3F and %40") from None
        if parts.scheme != "memory" and parts.scheme not in cls.schemes:
            raise ValueError(f"write {cls.example_url}, or memory:// for one process")
        return url


def secrets_of(secret: SecretStr) -> list[str]:
    """Return the secrets that are separated by commas."""
    return [each.strip() for each in secret.get_secret_value().split(",") if each.strip()]
