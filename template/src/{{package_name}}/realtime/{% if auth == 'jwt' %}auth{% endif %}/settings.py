"""The settings of the authentication, `<PACKAGE>_AUTH_SECRET` and so on. `.env.example` lists them all."""

from ipaddress import ip_address
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from ..secrets import GENERATE, check_secret
from ..settings import SettingsGroup


class AuthSettings(SettingsGroup):
    """The keys that verify tokens, and the claims that a token must have."""

    for_tests: ClassVar = {"auth_secret": "only for the tests " * 4}

    auth_jwks_url: str = ""
    """The URL of your identity provider's JSON Web Key Set. If set, tokens of this provider are accepted."""
    auth_issuer: str = ""
    """The `iss` that a token must have. Empty accepts any. Without AUTH_JWKS_URL and AUTH_SECRET, it is the https URL
    of an identity provider, and OpenID Connect discovery finds the keys."""
    auth_audience: str = ""
    """The `aud` that a token must have. Empty accepts any, also tokens that a provider issues for other services."""
    auth_secret: SecretStr = Field(default=SecretStr(""), validate_default=True)
    """The key that signs your own tokens, at least 32 bytes. Anyone who has it can impersonate every user. Not needed
    if an identity provider issues the tokens."""
    auth_roles_claims: str = "roles,role"
    """The claims in which a token names the roles of its user, separated by commas; a dot selects a nested claim, as in
    `realm_access.roles`."""
    auth_cookie: str = "token"
    """The name of the cookie in which a browser may send its token."""
    auth_max_connections_per_user: int = Field(default=20, ge=0)
    """Connections of one user to this node. Further handshakes are rejected with 429. 0 lifts the limit."""

    @property
    def has_provider(self) -> bool:
        """Whether an identity provider issues tokens."""
        return bool(self.auth_jwks_url or not self.auth_secret.get_secret_value())

    @field_validator("auth_jwks_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        return check_provider_url(url) if url else url

    @field_validator("auth_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if key := secret.get_secret_value():
            check_secret(key)
        elif not info.data.get("auth_jwks_url", "invalid"):
            if not (issuer := info.data["auth_issuer"]):
                raise ValueError(
                    f"the secret is missing; generate one with: {GENERATE}, or set AUTH_JWKS_URL or AUTH_ISSUER to "
                    "accept the tokens of your identity provider"
                )
            try:
                check_provider_url(issuer)
            except ValueError as error:
                raise ValueError(
                    f"the secret is missing, and AUTH_ISSUER cannot be used to find keys: {error}; or set AUTH_JWKS_URL"
                ) from None
        return secret


def check_provider_url(url: str) -> str:
    """Return a URL from which keys may be fetched: by https, or by http from this machine.

    Raises:
        ValueError: The URL is not valid, or an attacker on the network could replace the keys.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise ValueError(f"{url!r} is not an https URL; write https://…, or http:// only for localhost or 127.0.0.1")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
