"""`POST /logout`, with the token that is to end, in its header or its cookie."""

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from ..connections import Connections
from .plugin import Auth


@post("/logout", status_code=204)
async def logout(
    request: Request[Any, Any, Any], auth: NamedDependency[Auth], connections: NamedDependency[Connections]
) -> None:
    """End this token, and close all connections of its user with 1008.

    Other tokens of the user are good until they expire. What is ended is known to this process, until it stops.
    """
    auth.log_out(auth.authenticate(request), connections.registry)
