"""`POST /logout`: revoke the token that the request brings in its header or its cookie."""

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from .plugin import Auth


@post("/logout", status_code=204)
async def logout(request: Request[Any, Any, Any], auth: NamedDependency[Auth]) -> None:
    """Revoke this token, and close all connections of its user with 1008, on every node.

    Other tokens of the user stay valid until they expire. A node that starts later does not know what was revoked
    before.
    """
    await auth.log_out(auth.authenticate(request), request.app)
