"""Tokens for the tests, good and bad."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import msgspec

from my_service.realtime.auth.settings import AuthSettings

SECRET = AuthSettings.for_tests["auth_secret"]


def claims(user: str = "ada", seconds: float = 3600, **others: Any) -> dict[str, Any]:
    """What a good token says; a claim that is given as None is left out."""
    now = datetime.now(UTC)
    said = {"sub": user, "iat": now, "exp": now + timedelta(seconds=seconds), "jti": uuid4().hex} | others
    return {name: value for name, value in said.items() if value is not None}


def token(
    user: str = "ada", seconds: float = 3600, *, secret: str = SECRET, algorithm: str = "HS256", **others: Any
) -> str:
    return jwt.encode(claims(user, seconds, **others), secret, algorithm)


def by_hand(header: bytes, signature: bytes = b"") -> str:
    """Write a token that no library would."""
    parts = (header, msgspec.json.encode(claims()), signature)
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def bearer(encoded: str | None = None) -> dict[str, str]:
    """The header with which a service shows a token."""
    return {"authorization": f"Bearer {token() if encoded is None else encoded}"}
