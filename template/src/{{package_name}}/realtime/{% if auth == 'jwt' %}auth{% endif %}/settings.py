"""The settings of the authentication: `<PACKAGE>_AUTH_SECRET` and so on. `.env.example` lists them all."""

from pydantic import Field, SecretStr, field_validator

from ..settings import SettingsGroup

MIN_SECRET_BYTES = 32
"""Bytes of a key for HMAC with SHA-256 (RFC 7518, section 3.2)."""

MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class AuthSettings(SettingsGroup):
    """What a token must be signed with, and what it must say."""

    auth_secret: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """The key that signs the tokens, at least 32 bytes. Whoever knows it can be anybody."""
    auth_issuer: str = ""
    """Where it is set, the `iss` that a token must have."""
    auth_audience: str = ""
    """Where it is set, the `aud` that a token must have."""
    auth_cookie: str = "token"
    """The cookie in which a browser may bring its token."""

    auth_max_connections_per_user: int = Field(default=20, ge=0)
    """Sockets open at the same time of one user, on this node; further ones are refused with 429. 0 lifts it."""

    @field_validator("auth_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        length = len(secret.get_secret_value().encode())
        if length < MIN_SECRET_BYTES:
            problem = f"has {length} bytes, and {MIN_SECRET_BYTES} are needed" if length else "is missing"
            raise ValueError(f"the secret {problem}; make one with: {MAKE_ONE}")
        return secret
