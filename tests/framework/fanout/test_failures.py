"""What fails is not half done: joining and tracking can be tried again, and what is closed says so at once."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, FanoutUnavailableError, Listener, Socket
from my_service.realtime.fanout.memory import MemoryBroker
from my_service.realtime.fanout.messages import History
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks
from .test_channels import Said

TIMEOUT = 20
NO_SEQUENCE = "`after` is the sequence of a message, or 0 for all that is kept"


class Point(Struct, tag="point"):
    at: complex


class FailingBroker(MemoryBroker):
    """Cannot do something for so many times."""

    failures = 0

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise FanoutUnavailableError

    async def wait_subscribed(self, channel: str) -> None:
        self._fail()

    async def read_history(self, channel: str, after: int) -> History:
        self._fail()
        return await super().read_history(channel, after)

    def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[int]:
        if not self.failures:
            return super().join_presence(channel, member, joined, left)
        self.failures -= 1
        failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        failed.set_exception(FanoutUnavailableError())
        super().join_presence(channel, member, joined, left)  # it was done, but not in time
        return failed


class Room(Listener):
    """Does what it is told, and answers how that went."""

    path = "/{room:str}"

    async def on_receive(self, data: str, socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]) -> str:
        try:
            match data:
                case "join":
                    await fanout.join(socket, room)
                case "resume":
                    await fanout.join(socket, room, after=0)
                case _ if data.startswith("after "):
                    await fanout.join(socket, room, after=int(data.removeprefix("after ")))
                case "track":
                    await fanout.track(socket, room, joined=Said("joined"), left=Said("left"))
                case "untrack":
                    fanout.untrack(socket, room)
                case "leave":
                    await fanout.leave(socket, room)
                case "present":
                    return str(len(await fanout.present(room)))
                case "point":
                    await fanout.publish(Point(1 + 2j), room)
                case _:
                    await fanout.publish(Said(data), room)
        except FanoutUnavailableError:
            return "failed"
        return "done"


class Late(Listener):
    """Joins as soon as it is accepted, after what is no sequence."""

    path = "/late"

    async def on_accept(self, socket: Socket, fanout: NamedDependency[Fanout]) -> None:
        await fanout.join(socket, "hall", after=-1)

    async def on_receive(self, data: str) -> None: ...


@pytest.fixture
def broker() -> FailingBroker:
    return FailingBroker(Settings())


@pytest.fixture
def rooms(broker: FailingBroker) -> Iterator[TestClient[Litestar]]:
    settings = Settings(max_messages_per_second=0)
    hooks = Hooks()
    app = Litestar(
        [Room, Late, thread],
        plugins=[Fanout(settings, broker), Sessions(settings, ConnectionInfo, hooks)],
        type_encoders={complex: lambda number: [number.real, number.imag]},
        logging_config=None,
        openapi_config=None,
    )
    with TestClient(app) as client:
        yield client


def say(socket: Any, text: str) -> str:
    socket.send_text(text)
    answer: str = socket.receive_text(timeout=TIMEOUT)
    return answer


@pytest.mark.parametrize("join", ["join", "resume"])
def test_after_a_join_that_failed_joining_again_is_not_deaf(
    rooms: TestClient[Litestar], broker: FailingBroker, join: str
) -> None:
    with rooms.websocket_connect("/hall") as client:
        broker.failures = 1
        assert say(client, join) == "failed"
        assert say(client, join) == "done"
        client.send_text("hi")
        assert '"hi"' in client.receive_text(timeout=TIMEOUT)


def test_after_a_track_that_failed_tracking_works(rooms: TestClient[Litestar], broker: FailingBroker) -> None:
    with rooms.websocket_connect("/hall") as witness:
        assert say(witness, "join") == "done"
        with rooms.websocket_connect("/hall") as client:
            broker.failures = 1
            assert say(client, "track") == "failed"
            assert say(client, "track") == "done"
        texts = [witness.receive_json(timeout=TIMEOUT)["text"] for _ in range(4)]
        assert texts == ["joined", "left", "joined", "left"]


@pytest.mark.parametrize("end", ["untrack", "leave"])
def test_presence_ends_before_the_connection_does(rooms: TestClient[Litestar], end: str) -> None:
    with rooms.websocket_connect("/hall") as witness, rooms.websocket_connect("/hall") as client:
        assert say(witness, "join") == "done"
        for _ in range(2):
            assert [say(client, text) for text in ("track", "track", end, end)] == ["done"] * 4
            assert say(client, "present") == "0"
        texts = [witness.receive_json(timeout=TIMEOUT)["text"] for _ in range(4)]
        assert texts == ["joined", "left", "joined", "left"]


@pytest.mark.parametrize("after", [-1, 2**53, 2**63, 2**64, 10**400])
def test_an_after_that_is_no_sequence_is_refused(rooms: TestClient[Litestar], after: int) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert json.loads(say(client, f"after {after}")) == {"type": "error", "code": "client", "detail": NO_SEQUENCE}
        assert say(client, "join") == "done"


def test_an_after_that_is_no_sequence_is_1008_in_on_accept(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/late") as client, pytest.raises(WebSocketDisconnect) as ended:
        client.receive_text(timeout=TIMEOUT)
    assert (ended.value.code, ended.value.detail) == (1008, NO_SEQUENCE)


def test_the_last_sequence_there_can_be_is_answered(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall") as client:
        answers = {say(client, "after 9007199254740991"), client.receive_text(timeout=TIMEOUT)}
        assert answers == {"done", '{"type":"gap","channel":"hall","missed":null}'}


def test_who_untracks_stays_joined(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall") as witness, rooms.websocket_connect("/hall") as client:
        assert [say(client, text) for text in ("track", "join", "untrack")] == ["done"] * 3
        assert client.receive_json(timeout=TIMEOUT)["text"] == "left"
        witness.send_text("hi")
        assert '"hi"' in client.receive_text(timeout=TIMEOUT)


def test_what_a_listener_may_return_can_be_published(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert say(client, "join") == "done"
        client.send_text("point")
        assert client.receive_json(timeout=TIMEOUT) == {"type": "point", "at": [1.0, 2.0]}


@get("/thread", sync_to_thread=True)
def thread(fanout: NamedDependency[Fanout]) -> dict[str, int]:
    first = fanout.publish(Said("first"), "hall").result()
    return {"later": fanout.publish(Said("second"), "hall").result() - first}


def test_in_a_thread_publish_returns_when_the_message_is_on_its_way(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert say(client, "join") == "done"
        assert rooms.get("/thread").json() == {"later": 1}
        assert [client.receive_json(timeout=TIMEOUT)["text"] for _ in range(2)] == ["first", "second"]


def test_in_a_thread_publish_raises_where_the_message_was_not_sent() -> None:
    async def ask() -> None:
        fanout = Fanout(Settings())
        with pytest.raises(RuntimeError, match="before the application has started"):
            await asyncio.to_thread(fanout.publish, Said("hi"), "hall")

    asyncio.run(asyncio.wait_for(ask(), TIMEOUT))


def test_what_is_asked_of_a_closed_fanout_fails_at_once() -> None:
    async def ask() -> None:
        fanout = Fanout(Settings())
        said = Said("hi")
        for asked in (fanout.publish(said, "hall"), fanout.present("hall")):
            with pytest.raises(FanoutUnavailableError):
                await asked

    asyncio.run(asyncio.wait_for(ask(), TIMEOUT))
