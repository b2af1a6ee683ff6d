"""`POST /logout`, with the token that is to end, in its header or its cookie."""

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency

from ..fanout.plugin import Fanout
from ..sessions.plugin import Sessions
from .plugin import Auth


@post("/logout", status_code=204)
async def logout(
    request: Request[Any, Any, Any],
    auth: NamedDependency[Auth],
    sessions: NamedDependency[Sessions],
    fanout: NamedDependency[Fanout],
) -> None:
    """End this token, and close all connections of its user with 1008, on every node.

    Other tokens of the user are good until they expire. A node that starts later does not know what was ended before.
    """
    await auth.log_out(auth.authenticate(request), sessions.registry, fanout)
