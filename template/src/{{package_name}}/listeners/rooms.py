"""Yours: /ws/rooms/{room}, a listener as a class."""

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from ..messages import Joined, Left, SaidInRoom, Say
from ..realtime import Fanout, Gap, Listener, Socket
from ..state import Connection

AFTER = """To resume after a reconnect: the last `sequence` that the client received from the room. It first receives
what it missed, or with 0 the whole history. Each message then has its `sequence` as its last field."""


class Rooms(Listener):
    """Send what one says in a room to everybody in it, on every node."""

    path = "/ws/rooms/{room:str}"
    sends = Joined | Left | SaidInRoom | Gap

    async def on_accept(
        self,
        socket: Socket,
        connection: NamedDependency[Connection],
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        after: Annotated[int | None, QueryParameter(description=AFTER)] = None,
    ) -> None:
        """Join the room. The connection leaves it when it ends, whatever ends it."""
        await fanout.join(socket, room, after=after)
        me = {"room": room, "connection": connection.id}
        await fanout.track(socket, room, joined=Joined(**me), left=Left(**me))

    async def on_receive(
        self, data: Say, connection: NamedDependency[Connection], room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        """Send the message to everybody in the room."""
        await fanout.publish(SaidInRoom(room=room, text=data.text, connection=connection.id), room)
