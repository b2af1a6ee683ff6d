"""Yours: what happens when any connection begins and ends. `copier update` never touches this file."""

from .realtime import Cause, Socket
from .state import Connection


async def on_accept(socket: Socket, connection: Connection) -> None:
    """Called for every connection once it is accepted, before its first message.

    Acquire what it needs here and keep it in `connection`. If this raises, the connection is closed with 1011, and
    `on_disconnect` is called all the same, so it must cope with a half-made connection.
    """


async def on_disconnect(socket: Socket, connection: Connection, cause: Cause) -> None:
    """Called exactly once for every connection that was accepted, whatever ended it: see `cause`.

    Release here what `on_accept` acquired. It may take HOOK_SECONDS; the client is gone already.
    """
