"""Yours: /ws/rooms/{room}, a listener as a class."""

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from ..messages import Joined, Left, SaidInRoom, Say
from ..realtime import Fanout, Gap, Listener, Socket
from ..state import Connection

AFTER = """For a client that comes back: the last `sequence` that it has of the room. First it hears what it missed, or
with 0 all that is kept; each message then has its `sequence` as a last field."""


class Rooms(Listener):
    """What one says in a room, all in it hear, on every node."""

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
        """Join the room; it is left again when the connection ends, whatever ends it."""
        await fanout.join(socket, room, after=after)
        me = {"room": room, "connection": connection.id}
        await fanout.track(socket, room, joined=Joined(**me), left=Left(**me))

    async def on_receive(
        self, data: Say, connection: NamedDependency[Connection], room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        """Tell everybody in the room."""
        await fanout.publish(SaidInRoom(room=room, text=data.text, connection=connection.id), room)
