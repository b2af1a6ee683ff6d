"""What a connection receives of the channels that it joins, within one process."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from litestar import Litestar, post, websocket, websocket_listener
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect, WebSocketException
from litestar.params import FromPath, FromQuery
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket, connection_lifespan
from my_service.realtime.fanout.dispatch import Dispatcher
from my_service.realtime.fanout.memory import MAX_BURST, MemoryBroker
from my_service.realtime.fanout.plugin import MAX_BATCH
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.sessions.session import Session
from my_service.realtime.testing import Start
from my_service.settings import Settings

from ..recording import Hooks
from ..recording import receive as receive_from

HISTORY = 5


class Said(Struct, tag="said"):
    text: str


class Came(Struct, tag="came"):
    user: str


class Went(Struct, tag="went"):
    user: str


class Room(Listener):
    """Joins the room of its path, and does what it is told."""

    path = "/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        user: FromQuery[str | None] = None,
        after: FromQuery[int | None] = None,
    ) -> None:
        await fanout.join(socket, room, after=after)
        if user:
            Session.of(socket).ensure_connection().user = user
            await fanout.track(socket, room, joined=Came(user), left=Went(user))

    async def on_receive(
        self, data: str, socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> str | None:
        match data.split():
            case ["join", other]:
                await fanout.join(socket, other)
            case ["leave", other]:
                await fanout.leave(socket, other)
            case ["except", text]:
                await fanout.publish(Said(text), room, exclude=socket)
            case ["many", number]:
                for each in range(int(number)):
                    fanout.publish(Said(str(each)), room)
            case ["who"]:
                return " ".join(await fanout.present(room))
            case ["fail", text]:
                await fanout.publish(Said(text), room)
                raise WebSocketException(detail="", code=4000)
            case ["close", text]:
                await fanout.publish(Said(text), room)
                await socket.close(code=4000)
            case ["exceed", text]:
                await fanout.publish(Said(text), room)
                while True:
                    await Session.of(socket).count_ping()
            case ["part", text]:
                await fanout.publish(Said(text), room)
                await fanout.leave(socket, room)
            case _:
                await fanout.publish(Said(data), room)
        return "done"


@websocket_listener("/litestar/{room:str}", connection_lifespan=connection_lifespan)
async def plain(data: str, room: FromPath[str], fanout: NamedDependency[Fanout]) -> str:
    await fanout.publish(Said(data), room)
    return "done"


@websocket("/raw/{room:str}")
async def raw(socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
    async with connection_lifespan(socket):
        while True:
            await fanout.publish(Said(await socket.receive_text()), room)
            await socket.send_text("done")


class JoiningHooks(Hooks):
    async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None:
        await super().on_accept(socket, connection)
        await socket.app.plugins.get(Fanout).join(socket, "lobby")


@post("/tell/{room:str}")
async def tell(room: FromPath[str], fanout: NamedDependency[Fanout]) -> dict[str, int]:
    return {"sequence": await fanout.publish(Said("from outside"), room)}


@pytest.fixture
def limitless() -> Settings:
    return Settings(max_messages_per_second=0, history=HISTORY)


@pytest.fixture
def fanout(limitless: Settings) -> Fanout:
    return Fanout(limitless)


@pytest.fixture
def rooms(limitless: Settings, fanout: Fanout, hooks: Hooks) -> Iterator[TestClient[Litestar]]:
    sessions = Sessions(limitless, ConnectionInfo, hooks)
    app = Litestar([Room, tell], plugins=[fanout, sessions], logging_config=None, openapi_config=None)
    with TestClient(app) as client:
        yield client


def enter(rooms: TestClient[Litestar], path: str) -> AbstractContextManager[WebSocketTestSession]:
    return rooms.websocket_connect(path)


def say(socket: WebSocketTestSession, text: str) -> str:
    """Tell it something; return its answer, whatever it receives before."""
    socket.send_text(text)
    while (answer := socket.receive_text(timeout=20)).startswith("{"):
        pass
    return answer


def who(socket: WebSocketTestSession) -> str:
    """Ask who is in the room, after the answers to all that was said before."""
    socket.send_text("who")
    while (answer := socket.receive_text(timeout=20)).startswith("{") or answer == "done":
        pass
    return answer


def receive(socket: WebSocketTestSession) -> dict[str, Any]:
    while (text := socket.receive_text(timeout=20)) == "done":
        pass
    message: dict[str, Any] = json.loads(text)
    return message


def texts(socket: WebSocketTestSession, number: int) -> list[str]:
    return [receive(socket)["text"] for _ in range(number)]


def test_a_channel_is_received_from_the_moment_it_is_joined_until_it_is_left(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one, enter(rooms, "/yard") as other:
        assert say(one, "join yard") == "done"
        other.send_text("first")
        assert receive(one)["text"] == receive(other)["text"] == "first"
        assert say(one, "leave yard") == "done"
        other.send_text("second")
        assert receive(other)["text"] == "second"
        assert say(one, "join yard") == "done"
        other.send_text("third")
        assert receive(one)["text"] == "third"


def test_joining_twice_is_joining_once(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one, enter(rooms, "/hall") as other:
        say(one, "join hall")
        other.send_text("once")
        other.send_text("only")
        assert texts(one, 2) == ["once", "only"]


def test_everyone_except_the_sender(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one, enter(rooms, "/hall") as other:
        one.send_text("except others")
        one.send_text("all")
        assert texts(other, 2) == ["others", "all"]
        assert texts(one, 1) == ["all"]


def test_the_order_is_that_of_publishing_also_where_nobody_awaits_it(rooms: TestClient[Litestar]) -> None:
    number = 3 * MAX_BATCH
    with enter(rooms, "/hall") as one, enter(rooms, "/hall") as other:
        one.send_text(f"many {number}")
        expected = [str(each) for each in range(number)]
        assert (texts(one, number), texts(other, number)) == (expected, expected)


def test_a_request_can_publish_too(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one:
        sequence = rooms.post("/tell/hall").json()["sequence"]
        assert receive(one) == {"type": "said", "text": "from outside"}
        assert rooms.post("/tell/hall").json()["sequence"] == sequence + 1


def test_a_client_that_resumes_receives_what_it_missed_in_order_and_once(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as speaker:
        say(speaker, "1")
        with enter(rooms, "/hall?after=0") as client:
            last = receive(client)
            assert last == {"type": "said", "text": "1", "sequence": last["sequence"]}
        for text in "234":
            say(speaker, text)
        with enter(rooms, f"/hall?after={last['sequence']}") as client:
            say(speaker, "5")
            messages = [receive(client) for _ in range(4)]
        assert [message["text"] for message in messages] == ["2", "3", "4", "5"]
        assert [message["sequence"] - last["sequence"] for message in messages] == [1, 2, 3, 4]
        with enter(rooms, f"/hall?after={messages[-1]['sequence']}") as client:
            say(speaker, "6")
            assert receive(client)["text"] == "6"


def test_a_client_that_resumes_too_late_is_told_how_much_is_missing(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as speaker:
        say(speaker, "first")
        with enter(rooms, "/hall?after=0") as client:
            last = receive(client)["sequence"]
        for each in range(HISTORY + 2):
            say(speaker, str(each))
        with enter(rooms, f"/hall?after={last}") as client:
            assert receive(client) == {"type": "gap", "channel": "hall", "missed": 2}
            assert texts(client, HISTORY) == [str(each) for each in range(2, HISTORY + 2)]
        with enter(rooms, f"/never-seen?after={last}") as client:
            assert receive(client) == {"type": "gap", "channel": "never-seen", "missed": None}


@pytest.mark.parametrize("path", ["/hall?after=-1", f"/{'x' * 256}"])
def test_a_wrong_path_or_query_closes_with_1008(rooms: TestClient[Litestar], path: str) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, enter(rooms, path) as client:
        client.receive_text(timeout=20)
    assert closed.value.code == 1008


def test_a_user_comes_once_and_goes_once(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall?user=eve") as eve:
        assert receive(eve) == {"type": "came", "user": "eve"}
        with enter(rooms, "/hall?user=ada"):
            assert receive(eve) == {"type": "came", "user": "ada"}
            with enter(rooms, "/hall?user=ada") as other_tab:
                other_tab.send_text("two tabs")
                assert texts(eve, 1) == ["two tabs"], "she came twice"
            eve.send_text("one tab")
            assert texts(eve, 1) == ["one tab"], "she went too early"
            assert who(eve) == "ada eve"
        assert receive(eve) == {"type": "went", "user": "ada"}
        assert who(eve) == "eve"


def test_nothing_is_left_of_a_room_that_nobody_is_in(rooms: TestClient[Litestar], fanout: Fanout, hooks: Hooks) -> None:
    with enter(rooms, "/hall") as one:
        for number in range(10):
            say(one, f"join {number}")
        assert len(fanout.channels) == 11  # "hall" is one of them
        for number in range(10):
            say(one, f"leave {number}")
        assert fanout.channels == {"hall"}
    hooks.ended.get(timeout=20)
    assert not fanout.channels


def test_what_a_handler_has_published_is_received_before_its_answer(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one:
        for number in range(3):
            one.send_text(f"{number}")
        received = [one.receive_text(timeout=20) for _ in range(6)]
        assert received == [each for number in range(3) for each in (f'{{"type":"said","text":"{number}"}}', "done")]


@pytest.mark.parametrize("path", ["/litestar/lobby", "/raw/lobby"])
def test_it_is_received_before_what_goes_through_the_socket_itself(limitless: Settings, path: str) -> None:
    plugins = [Fanout(limitless), Sessions(limitless, ConnectionInfo, JoiningHooks())]
    app = Litestar([plain, raw], plugins=plugins, logging_config=None, openapi_config=None)
    with TestClient(app) as client, enter(client, path) as one:
        one.send_text("hi")
        assert [one.receive_text(timeout=20) for _ in range(2)] == ['{"type":"said","text":"hi"}', "done"]


def test_what_a_handler_has_published_is_received_before_it_leaves(rooms: TestClient[Litestar]) -> None:
    with enter(rooms, "/hall") as one:
        one.send_text("part bye")
        assert [one.receive_text(timeout=20) for _ in range(2)] == ['{"type":"said","text":"bye"}', "done"]


@pytest.mark.parametrize(("ends", "code"), [("fail", 4000), ("close", 4000), ("exceed", 1008)])
def test_what_a_handler_has_published_is_received_before_its_connection_ends(
    rooms: TestClient[Litestar], ends: str, code: int
) -> None:
    with enter(rooms, "/hall") as one:
        one.send_text(f"{ends} bye")
        assert one.receive_json(timeout=20)["text"] == "bye"
        with pytest.raises(WebSocketDisconnect) as ended:
            one.receive_text(timeout=20)
        assert ended.value.code == code


def test_it_is_received_before_the_answer_to_the_message_behind_it(start: Start) -> None:
    with start().connect("/ws/rooms/hall") as client:
        assert receive_from(client)["type"] == "joined"
        for number in range(20):
            client.send(f'{{"type":"say","text":"{number}"}}')
            client.send('{"type":"ping"}')
        received = [receive_from(client) for _ in range(40)]
        assert [each.get("text", each["type"]) for each in received] == [
            each for number in range(20) for each in (str(number), "pong")
        ]


@pytest.mark.parametrize(
    ("tasks", "max_backlog", "most"), [(1, 1000, MAX_BURST), (20, 1000, MAX_BURST + 19), (4, 10, 5 + 3)]
)
def test_messages_that_tasks_publish_one_after_the_other_are_delivered_in_bursts(
    tasks: int, max_backlog: int, most: int
) -> None:
    async def publish() -> None:
        broker, dispatcher = MemoryBroker(Settings(max_backlog=max_backlog)), Dispatcher(MAX_BATCH)
        await broker.start(dispatcher.dispatch)
        bursts: list[int] = []
        dispatcher.add("hall", lambda batch: bursts.append(len(batch.messages)))

        async def speak() -> None:
            for _ in range(10 * MAX_BURST):
                await broker.publish("hall", b"x")

        await asyncio.gather(*(speak() for _ in range(tasks)))
        assert max(bursts) <= most
        assert len(bursts) < 15 * MAX_BURST * tasks / most

    asyncio.run(publish())


@pytest.mark.parametrize("rooms", [1, MAX_BURST])
def test_who_publishes_where_nobody_listens_or_in_many_rooms_gives_way_as_well(rooms: int) -> None:
    async def publish() -> None:
        broker, dispatcher = MemoryBroker(Settings()), Dispatcher(MAX_BATCH)
        await broker.start(dispatcher.dispatch)
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        for number in range(MAX_BURST):
            await broker.publish(f"hall {number % rooms}", b"x")
        assert turn.is_set()

    asyncio.run(publish())
