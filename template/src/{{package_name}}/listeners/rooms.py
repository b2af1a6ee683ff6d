"""Yours: /ws/rooms/{room}, a listener as a class."""

from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from ..connections import Listener, Socket
from ..fanout import Fanout
from ..messages import Joined, Left, SaidInRoom, Say
from ..state import Connection


class Rooms(Listener):
    """What one says in a room, all in it hear, on every node."""

    path = "/ws/rooms/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        connection: Connection,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        after: FromQuery[int | None] = None,
    ) -> None:
        """Join the room; it is left again when the connection ends, whatever ends it.

        A client that comes back with `?after=` and its last sequence first hears what it missed.
        """
        await fanout.join(socket, room, after=after)
        me = {"room": room, "connection": connection.id}
        await fanout.track(socket, room, joined=Joined(**me), left=Left(**me))

    async def on_receive(
        self, data: Say, connection: NamedDependency[Connection], room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        """Tell everybody in the room."""
        await fanout.publish(SaidInRoom(room=room, text=data.text, connection=connection.id), room)
