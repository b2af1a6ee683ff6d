"""A listener for the tests of the fan-out, in place of one that a user has added: it does what it is told."""

CROWD = '''
import asyncio

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from ..connections import Listener, Socket
from ..fanout import Fanout, FanoutUnavailableError
from ..state import Connection


class Say(Struct, tag="say"):
    text: str
    alone: bool = False


class Pour(Struct, tag="pour"):
    """Publish so many messages, a hundred at a time, and await each."""

    messages: int
    size: int = 0


class Leave(Struct, tag="leave"):
    pass


class Join(Struct, tag="join"):
    pass


class Who(Struct, tag="who"):
    pass


class Said(Struct, tag="said"):
    text: str


class Answer(Struct, tag="answer"):
    text: str


class crowd(Listener):
    path = "/ws/crowd/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        connection: Connection,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        after: FromQuery[int | None] = None,
    ) -> None:
        await fanout.join(socket, room, after=after)
        await socket.send_json({"type": "answer", "text": "here"})

    async def on_receive(
        self,
        data: Say | Pour | Leave | Join | Who,
        socket: Socket,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
    ) -> Answer:
        match data:
            case Say():
                try:
                    await fanout.publish(Said(data.text), room, but=socket if data.alone else None)
                except FanoutUnavailableError as error:
                    return Answer(error.detail)
            case Pour():
                for start in range(0, data.messages, 100):
                    numbers = range(start, min(start + 100, data.messages))
                    texts = [f"{number} " + "x" * data.size for number in numbers]
                    await asyncio.gather(*[fanout.publish(Said(text), room) for text in texts])
            case Leave():
                await fanout.leave(socket, room)
            case Join():
                await fanout.join(socket, room)
            case Who():
                return Answer(" ".join(await fanout.present(room)))
        return Answer("done")
'''
