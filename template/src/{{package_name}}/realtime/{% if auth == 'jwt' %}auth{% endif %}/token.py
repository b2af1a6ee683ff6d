"""The command that makes a token, for development: `python -m <package>.auth.token ada`.

It signs with the secret of this machine, in the environment or in `.env`. No address of the service hands out tokens:
in production they come from whatever logs your users in, and knows the secret of production.
"""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from litestar.security.jwt import Token

from ..errors import ConfigurationError
from .plugin import ALGORITHM
from .settings import AuthSettings


def make_token(settings: AuthSettings, user: str, seconds: float) -> str:
    """Sign a token for a user, good from now on for so many seconds."""
    token = Token(
        sub=user,
        exp=datetime.now(UTC) + timedelta(seconds=seconds),
        iss=settings.auth_issuer or None,
        aud=settings.auth_audience or None,
        jti=uuid4().hex,
    )
    return token.encode(settings.auth_secret.get_secret_value(), ALGORITHM)


def main(arguments: list[str] | None = None) -> int:
    """Write a token to the standard output.

    Returns:
        The exit status: 0, 1 for a missing or wrong setting, 2 for a wrong option.
    """
    parser = argparse.ArgumentParser(description="Make a token for development.")
    parser.add_argument("user", help="who it is for: its `sub`")
    parser.add_argument("--seconds", type=int, default=3600, help="how long it is good (default: an hour)")
    options = parser.parse_args(arguments)
    if not options.user or options.seconds < 1:
        parser.error("a token needs a user, and at least one second")
    try:
        settings = AuthSettings.load()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{make_token(settings, options.user, options.seconds)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
