"""The settings of the authentication: `<PACKAGE>_AUTH_SECRET` and so on. `.env.example` lists them all."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from ..settings import PREFIX, Section

SHORTEST_SECRET = 32
"""Bytes of a key for HMAC with SHA-256 (RFC 7518, section 3.2)."""

MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class AuthSettings(Section):
    """What a token must be signed with, and what it must say."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}AUTH_")

    secret: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """The key that signs the tokens, at least 32 bytes. Whoever knows it can be anybody."""
    issuer: str = ""
    """Where it is set, the `iss` that a token must have."""
    audience: str = ""
    """Where it is set, the `aud` that a token must have."""
    cookie: str = "token"
    """The cookie in which a browser may bring its token."""

    max_connections_per_user: int = Field(default=20, ge=0)
    """Sockets open at the same time of one user, on this node; further ones are refused with 429. 0 lifts it."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        length = len(secret.get_secret_value().encode())
        if length < SHORTEST_SECRET:
            problem = f"has {length} bytes, and {SHORTEST_SECRET} are needed" if length else "is missing"
            raise ValueError(f"the secret {problem}; make one with: {MAKE_ONE}")
        return secret
