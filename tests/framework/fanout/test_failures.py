"""What fails is not half done: joining and tracking can be tried again, and what is closed says so at once."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from threading import Event, get_ident
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import Cause, ConnectionInfo, Fanout, FanoutUnavailableError, Listener, Socket
from my_service.realtime.fanout.broker import Dispatch
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

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threads: set[int] = set()

    async def start(self, dispatch: Dispatch) -> None:
        self.home = get_ident()
        await super().start(dispatch)

    def publish(self, channel: str, data: bytes, exclude: str = "") -> asyncio.Future[int]:
        self.threads.add(get_ident())
        return super().publish(channel, data, exclude)

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


async def never() -> AsyncGenerator[Said, None]:
    await asyncio.Event().wait()
    yield Said("never")


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
                case "track twice at once":
                    await asyncio.gather(fanout.track(socket, room), fanout.track(socket, room))
                case "untrack":
                    fanout.untrack(socket, room)
                case "cancel one of two joins" | "cancel a join after joining anew":
                    one = asyncio.create_task(fanout.join(socket, room, first=never()))
                    await asyncio.sleep(0)
                    if "anew" in data:
                        await fanout.leave(socket, room)
                    other = asyncio.create_task(fanout.join(socket, room))
                    await asyncio.sleep(0)
                    one.cancel()
                    await asyncio.gather(one, return_exceptions=True)
                    await other
                case "untrack while tracking" | "leave while tracking":
                    tracking = asyncio.create_task(fanout.track(socket, room))
                    await asyncio.sleep(0)
                    await fanout.leave(socket, room) if "leave" in data else fanout.untrack(socket, room)
                    await tracking
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
        [Room, Late, thread, loop],
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


@pytest.mark.parametrize("two", ["cancel one of two joins", "cancel a join after joining anew"])
def test_of_two_joins_one_may_fail_and_the_other_is_not_deaf(rooms: TestClient[Litestar], two: str) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert say(client, two) == "done"
        client.send_text("hi")
        assert '"hi"' in client.receive_text(timeout=TIMEOUT)


@pytest.mark.parametrize("end", ["untrack while tracking", "leave while tracking"])
def test_who_is_untracked_while_tracking_is_not_present_and_can_be_tracked_again(
    rooms: TestClient[Litestar], end: str
) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert [say(client, text) for text in (end, "present")] == ["done", "0"]
        assert [say(client, text) for text in ("track", "present")] == ["done", "1"]
        assert [say(client, text) for text in ("untrack", "present")] == ["done", "0"]


def test_who_is_tracked_by_two_tasks_at_once_is_present_once(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert [say(client, text) for text in ("track twice at once", "present")] == ["done", "1"]
        assert [say(client, text) for text in ("untrack", "present")] == ["done", "0"]


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


def test_what_on_disconnect_joins_is_left_and_after_the_end_nothing_can_be_joined() -> None:
    class Late(Hooks):
        async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None:
            await fanout.join(socket, "hall")
            sockets.append(socket)

        async def on_disconnect(self, socket: Socket, connection: ConnectionInfo, cause: Cause) -> None:
            await fanout.join(socket, "hall")

    sockets: list[Socket] = []
    fanout, sessions = Fanout(Settings()), Sessions(Settings(), ConnectionInfo, Late())
    app = Litestar([Room], plugins=[fanout, sessions], logging_config=None, openapi_config=None)
    with TestClient(app) as client, client.portal() as portal:
        with client.websocket_connect("/hall") as connection:
            assert say(connection, "join") == "done"
        assert portal.call(sessions.registry.wait_empty, TIMEOUT)
        assert not fanout.channels
        with pytest.raises(RuntimeError, match="after its end"):
            portal.call(fanout.join, sockets[0], "hall")
        assert not fanout.channels


def test_who_is_tracked_while_the_connection_ends_is_not_present_afterwards() -> None:
    """By a task that does not end with the connection."""

    class Slow(MemoryBroker):
        def join_presence(self, channel: str, member: str, joined: bytes, left: bytes) -> asyncio.Future[int]:
            asked.set()
            told = super().join_presence(channel, member, joined, left)
            return asyncio.ensure_future(self._after_the_end(told))

        async def _after_the_end(self, told: asyncio.Future[int]) -> int:
            await sessions.registry.wait_empty(TIMEOUT)
            return await told

    class Kept(Hooks):
        async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None:
            sockets.append(socket)

    sockets: list[Socket] = []
    asked = Event()
    fanout = Fanout(Settings(), Slow(Settings()))
    sessions = Sessions(Settings(), ConnectionInfo, Kept())
    app = Litestar([Room], plugins=[fanout, sessions], logging_config=None, openapi_config=None)
    with TestClient(app) as client, client.portal() as portal:
        with client.websocket_connect("/hall") as connection:
            assert say(connection, "join") == "done"
            tracking = portal.start_task_soon(fanout.track, sockets[0], "hall")
            assert asked.wait(TIMEOUT)
        tracking.result(TIMEOUT)
        assert portal.call(fanout.present, "hall") == []


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
        assert [say(client, text) for text in ("track", "join")] == ["done"] * 2
        assert '"left"' in say(client, "untrack")
        assert client.receive_text(timeout=TIMEOUT) == "done"
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


@get("/loop", sync_to_thread=True)
def loop(fanout: NamedDependency[Fanout]) -> dict[str, int]:
    async def publish() -> int:
        first = await fanout.publish(Said("first"), "hall")
        return await fanout.publish(Said("second"), "hall") - first

    return {"later": asyncio.run(publish())}


@pytest.mark.parametrize("path", ["/thread", "/loop"])
def test_in_a_thread_publish_returns_when_the_message_is_on_its_way(
    rooms: TestClient[Litestar], broker: FailingBroker, path: str
) -> None:
    with rooms.websocket_connect("/hall") as client:
        assert say(client, "join") == "done"
        assert rooms.get(path).json() == {"later": 1}
        assert broker.threads == {broker.home}, "it is not made for other threads"
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
