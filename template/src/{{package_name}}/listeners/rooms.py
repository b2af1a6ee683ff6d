"""Yours: /ws/rooms/{room}, a listener as a class."""

from litestar.di import NamedDependency
from litestar.params import FromPath

from ..connections import Listener, Socket
from ..fanout import Fanout
from ..messages import Joined, Left, SaidInRoom, Say
from ..state import Connection


class Rooms(Listener):
    """What one says in a room, all in it hear."""

    path = "/ws/rooms/{room:str}"
    hears = Joined | Left | SaidInRoom

    async def on_accept(
        self, socket: Socket, connection: Connection, room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        """Join the room; it is left again when the connection ends, whatever ends it."""
        await fanout.join(socket, room)
        fanout.publish(Joined(room=room, connection=connection.id), room)

    async def on_receive(
        self, data: Say, connection: NamedDependency[Connection], room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        """Tell everybody in the room."""
        fanout.publish(SaidInRoom(room=room, text=data.text, connection=connection.id), room)

    async def on_disconnect(self, connection: Connection, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
        """Tell those who stay."""
        fanout.publish(Left(room=room, connection=connection.id), room)
