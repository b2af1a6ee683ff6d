"""`Authenticator`: which JSON Web Tokens (RFC 7519) are valid."""

from datetime import UTC, datetime
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.security.jwt import Token

from ..sessions.plugin import Sessions
from .credentials import find_credentials
from .settings import AuthSettings

ALGORITHM: Final = "HS256"
"""The only one that is accepted, whatever the header of a token says (RFC 8725, section 3.1)."""

CLAIMS: Final = ("sub", "exp", "iat", "jti")
"""The claims that a token must have: its user, when it expires, when it was issued, and an id to revoke it by."""

CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Authenticator:
    """Verify the token of a handshake or a request.

    Args:
        settings: The secret, and the issuer and the audience that a token must name.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self.revoked: dict[str, datetime] = {}
        """The `jti` of each token that was revoked since this process started, on any node, with its `exp`."""

    def authenticate(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
        """Return the valid token of a handshake or a request.

        Raises:
            NotAuthorizedException: There is no token, or it is not valid (401).
            PermissionDeniedException: The token is in a cookie, and the Origin is not one that may connect (403).
        """
        credentials = find_credentials(connection, self._settings.auth_cookie)
        if credentials is None:
            raise NotAuthorizedException("a token is needed", headers=CHALLENGE)
        if credentials.by_cookie:
            policy = connection.app.plugins.get(Sessions).policy
            if policy.problem(dict(connection.scope), required=True):
                raise PermissionDeniedException("a cookie counts only with the Origin of a page that may connect")
        try:
            token = Token.decode(
                credentials.encoded,
                secret=self._settings.auth_secret.get_secret_value(),
                algorithm=ALGORITHM,
                issuer=self._settings.auth_issuer or None,
                audience=self._settings.auth_audience or None,
                require_claims=CLAIMS,
            )
        except NotAuthorizedException as error:
            # The error of the decoder stays the cause, for the log.
            raise NotAuthorizedException("the token is not valid", headers=CHALLENGE) from error.__cause__ or error
        if not is_utf8(token.sub):
            raise NotAuthorizedException("the token is not valid: its user is not UTF-8", headers=CHALLENGE)
        self.check(token)
        return token

    def has_explicit_token(self, connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
        """Say whether the client itself sent a token; browsers add cookies without being asked."""
        credentials = find_credentials(connection, self._settings.auth_cookie)
        return credentials is not None and not credentials.by_cookie

    def check(self, token: Token) -> None:
        """Check what can change while a token is in use.

        Raises:
            NotAuthorizedException: The token has expired or was revoked (401).
        """
        if seconds_left(token) <= 0:
            raise NotAuthorizedException("the token has expired", headers=CHALLENGE)
        if str(token.jti) in self.revoked:
            raise NotAuthorizedException("the token was revoked", headers=CHALLENGE)

    def revoke(self, jti: str, exp: datetime) -> None:
        """Accept a token no longer. Tokens that have expired meanwhile are forgotten.

        Args:
            jti: The id of the token.
            exp: When the token expires.
        """
        now = datetime.now(UTC)
        self.revoked = {known: until for known, until in self.revoked.items() if until > now} | {jti: exp}


def is_utf8(text: str) -> bool:
    """Say whether a text can be sent anywhere: JSON may hold half a character, a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def seconds_left(token: Token) -> float:
    """Return the seconds until a token expires; zero or less where it has."""
    return (token.exp - datetime.now(UTC)).total_seconds()
