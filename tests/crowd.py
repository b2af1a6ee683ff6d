"""A listener for the tests of the fan-out, as a user might add one: it does as its messages say."""

CROWD = '''
import asyncio

from litestar import Router
from litestar.di import NamedDependency
from litestar.middleware import ASGIMiddleware
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct

from ..realtime import Fanout, FanoutUnavailableError, Listener, Socket
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


class Be(Struct, tag="be"):
    """Be present with a state."""

    status: str


class Member(Struct, tag="member"):
    status: str


class Gone(Struct, tag="gone"):
    pass


class Wander(Struct, tag="wander"):
    """Go through so many rooms, say something in each, and leave it."""

    rooms: int


class Said(Struct, tag="said"):
    text: str


class Answer(Struct, tag="answer"):
    text: str


class Crowd(Listener):
    path = "/ws/crowd/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        connection: Connection,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        after: FromQuery[int | None] = None,
        states: FromQuery[bool] = False,
        user: FromQuery[str] = "",
    ) -> None:
        connection.user = user
        await fanout.join(socket, room, after=after, states=states)
        await socket.send_json({"type": "answer", "text": "here"})

    async def on_receive(
        self,
        data: Say | Pour | Leave | Join | Be | Who | Wander,
        socket: Socket,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
    ) -> Answer:
        match data:
            case Say():
                try:
                    await fanout.publish(Said(data.text), room, exclude=socket if data.alone else None)
                except FanoutUnavailableError as error:
                    return Answer(error.detail)
            case Pour():
                for start in range(0, data.messages, 100):
                    numbers = range(start, min(start + 100, data.messages))
                    texts = [f"{number} " + "x" * data.size for number in numbers]
                    await asyncio.gather(*[fanout.publish(Said(text), room) for text in texts], return_exceptions=True)
            case Leave():
                await fanout.leave(socket, room)
            case Join():
                await fanout.join(socket, room)
            case Be():
                await fanout.track(socket, room, left=Gone(), state=Member(data.status))
            case Wander():
                for number in range(data.rooms):
                    name = f"{room} {number}"
                    await fanout.join(socket, name)
                    await fanout.publish(Said("nobody is here"), name, exclude=socket)
                    await fanout.leave(socket, name)
            case Who():
                return Answer(" ".join(await fanout.present(room)))
        return Answer("done")


class Loud(ASGIMiddleware):
    """Has to see each message that goes out."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        async def shout(message: Message) -> None:
            if message["type"] == "websocket.send" and message["text"]:
                message["text"] = message["text"].upper()
            await send(message)

        await next_app(scope, receive, shout)


class LoudCrowd(Crowd):
    path = "/ws/loud/{room:str}"
    middleware = [Loud()]


crowd = Router("/", route_handlers=[Crowd, LoudCrowd])
'''
