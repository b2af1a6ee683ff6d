"""`Authenticator`: verifies JSON Web Tokens (RFC 7519), and reads roles from them."""

from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import jwt
import msgspec
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.security.jwt import Token

from ..sessions.plugin import Sessions
from .credentials import find_credentials
from .provider import ALGORITHMS, ProviderKeys
from .settings import AuthSettings

ALGORITHM: Final = "HS256"
"""The one that AUTH_SECRET signs with."""

CLAIMS: Final = ("sub", "exp", "iat", "jti")
"""The claims that a token must have: its user, when it expires, when it was issued, and an id to revoke it by. Not all
providers give an id."""

LEEWAY_SECONDS: Final = 30
"""Seconds by which the clock of the issuer may be ahead, so that `iat` and `nbf` lie in the future. There is none for
`exp`, with which connections end."""

CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Authenticator:
    """Verify the token of a handshake or a request.

    Args:
        settings: The secret or the provider, and the issuer and the audience that a token must name.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self._secret = settings.auth_secret.get_secret_value()
        self.provider = ProviderKeys(settings) if settings.has_provider else None
        """The keys of the identity provider; None if AUTH_SECRET signs all tokens."""
        self.revoked: dict[str, datetime] = {}
        """The `jti` of each token that was revoked since this process started, on any node, with its `exp`."""

    async def authenticate(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
        """Return the valid token of a handshake or a request.

        Raises:
            NotAuthorizedException: There is no token, or it is not valid (401).
            PermissionDeniedException: The token is in a cookie, and the Origin is not one that may connect (403).
            ServiceUnavailableException: The keys of the provider could not be fetched yet (503).
        """
        credentials = find_credentials(connection, self._settings.auth_cookie)
        if credentials is None:
            raise NotAuthorizedException("a token is needed", headers=CHALLENGE)
        if credentials.by_cookie:
            policy = connection.app.plugins.get(Sessions).policy
            if policy.problem(dict(connection.scope), required=True):
                raise PermissionDeniedException("a cookie counts only with the Origin of a page that may connect")
        return await self.verify(credentials.encoded)

    async def verify(self, encoded: str) -> Token:
        """Return a token that is valid now.

        Raises:
            NotAuthorizedException: It is not valid (401).
            ServiceUnavailableException: The keys of the provider could not be fetched yet (503).
        """
        try:
            token = await self._decode(encoded)
        except (jwt.PyJWTError, KeyError, OSError, OverflowError, TypeError, ValueError) as error:
            # It stays the cause, for the log.
            raise NotAuthorizedException("the token is not valid", headers=CHALLENGE) from error
        if not is_utf8(f"{token.sub}{token.jti}"):
            raise NotAuthorizedException("the token is not valid: its user or id is not UTF-8", headers=CHALLENGE)
        self.check(token)
        return token

    async def _decode(self, encoded: str) -> Token:
        header = jwt.get_unverified_header(encoded)
        algorithm: Any = header.get("alg")
        key: Any
        required = [*CLAIMS]
        if algorithm == ALGORITHM and self._secret:
            key = self._secret
        elif algorithm in ALGORITHMS and self.provider:
            key = await self.provider.find(header.get("kid", ""), algorithm)
            required.remove("jti")
        else:
            raise jwt.InvalidAlgorithmError(f"no token is signed with {algorithm!r} here")
        claims = jwt.decode(
            encoded,
            key,
            [algorithm],
            issuer=self._settings.auth_issuer or None,
            audience=self._settings.auth_audience or None,
            leeway=LEEWAY_SECONDS,
            options={
                "require": required,
                "verify_aud": bool(self._settings.auth_audience),
                "enforce_minimum_key_length": True,
            },
        )
        return Token(
            sub=claims.pop("sub"),
            exp=datetime.fromtimestamp(claims.pop("exp"), UTC),
            iat=min(datetime.fromtimestamp(claims.pop("iat"), UTC), datetime.now(UTC)),
            iss=claims.pop("iss", None),
            aud=claims.pop("aud", None),
            # Of the part that is signed: the signature could be written in another way.
            jti=claims.pop("jti", None) or sha256(encoded.rpartition(".")[0].encode()).hexdigest(),
            extras=claims,
        )

    def has_explicit_token(self, connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
        """Return whether the client itself sent a token; browsers add cookies on their own."""
        credentials = find_credentials(connection, self._settings.auth_cookie)
        return credentials is not None and not credentials.by_cookie

    def check(self, token: Token) -> None:
        """Check the conditions that can change while a token is in use.

        Raises:
            NotAuthorizedException: The token has expired or was revoked (401).
        """
        if seconds_left(token) <= 0:
            raise NotAuthorizedException("the token has expired", headers=CHALLENGE)
        if str(token.jti) in self.revoked:
            raise NotAuthorizedException("the token was revoked", headers=CHALLENGE)

    def revoke(self, jti: str, exp: datetime) -> None:
        """Stop accepting a token. Tokens that have expired since are forgotten.

        Args:
            jti: The id of the token.
            exp: When the token expires.
        """
        now = datetime.now(UTC)
        self.revoked = {known: until for known, until in self.revoked.items() if until > now} | {jti: exp}

    def roles_of(self, token: Token) -> frozenset[str]:
        """Return the roles in a token, which are lists of names, or names separated by spaces."""
        roles: set[str] = set()
        for name in self._settings.auth_roles_claims.replace(" ", "").split(","):
            claim: Any = token.extras
            with suppress(KeyError, TypeError, msgspec.ValidationError):
                for part in [name] if name in token.extras else name.split("."):
                    claim = claim[part]
                roles.update(msgspec.convert(claim.split() if isinstance(claim, str) else claim, list[str]))
        return frozenset(roles)


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8: JSON may hold a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def seconds_left(token: Token) -> float:
    """Return the seconds until a token expires; zero or less if it has expired."""
    return (token.exp - datetime.now(UTC)).total_seconds()
