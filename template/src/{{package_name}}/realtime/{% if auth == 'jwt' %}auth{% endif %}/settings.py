"""The settings of the authentication, `<PACKAGE>_AUTH_SECRET` and so on. `.env.example` lists them all."""

from typing import ClassVar, Final

from pydantic import Field, SecretStr, field_validator

from ..settings import SettingsGroup

MIN_SECRET_BYTES: Final = 32
"""Bytes of a key for HMAC with SHA-256 (RFC 7518, section 3.2)."""

GENERATE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class AuthSettings(SettingsGroup):
    """What a token must be signed with, and what it must say."""

    for_tests: ClassVar = {"auth_secret": "only for the tests " * 4}

    auth_secret: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """The key that signs the tokens, at least 32 bytes. Whoever has it can impersonate every user."""
    auth_issuer: str = ""
    """The `iss` that a token must have. Empty accepts any."""
    auth_audience: str = ""
    """The `aud` that a token must have. Empty accepts any."""
    auth_cookie: str = "token"
    """The name of the cookie in which a browser may send its token."""
    auth_max_connections_per_user: int = Field(default=20, ge=0)
    """Connections of one user to this node. Further handshakes are rejected with 429. 0 lifts the limit."""

    @field_validator("auth_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        length = len(secret.get_secret_value().encode())
        if length < MIN_SECRET_BYTES:
            problem = f"has {length} bytes, and {MIN_SECRET_BYTES} are needed" if length else "is missing"
            raise ValueError(f"the secret {problem}; generate one with: {GENERATE}")
        return secret
