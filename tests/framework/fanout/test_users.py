"""The channels of users, and that no name of a room, a user or the nodes is that of another."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException, WebSocketDisconnect
from litestar.params import FromQuery
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket
from my_service.realtime.fanout.messages import display_name, node_channel, room_channel, user_channel
from my_service.realtime.fanout.plugin import REMOVALS
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks

TIMEOUT = 20
NOBODY = "\ud800"


def channel(kind: Callable[[str], str], name: str) -> str:
    """Return the channel of this kind with this name."""
    return kind(name)


KINDS: st.SearchStrategy[Callable[[str], str]] = st.sampled_from([room_channel, user_channel, node_channel])
CLOSE = st.recursive(st.sampled_from(["", "ada", "\0", "user:ada"]), lambda names: st.builds(channel, KINDS, names))
"""Names that are channels themselves."""
NAMES = CLOSE | st.text(st.characters(codec="utf-8"), max_size=40)


class Note(Struct, tag="note"):
    text: str


class Inbox(Listener):
    """Joins the channel of its user, and of a room that is called like it."""

    path = "/inbox"

    async def on_accept(
        self,
        socket: Socket,
        connection: NamedDependency[ConnectionInfo],
        fanout: NamedDependency[Fanout],
        user: FromQuery[str] = "",
        after: FromQuery[int | None] = None,
    ) -> None:
        connection.user = user
        await fanout.join_user(socket, after=after)

    async def on_receive(self, data: str, socket: Socket, fanout: NamedDependency[Fanout]) -> None:
        await fanout.publish_to_user(Note("other tabs"), data, exclude=socket)


class Room(Listener):
    """Joins a room of any name."""

    path = "/room"

    async def on_accept(
        self,
        socket: Socket,
        connection: NamedDependency[ConnectionInfo],
        name: FromQuery[str],
        fanout: NamedDependency[Fanout],
        user: FromQuery[str] = "",
    ) -> None:
        connection.user = user
        await fanout.join(socket, name)
        await fanout.track(socket, name, joined=Note(f"{user} came"), left=Note(f"{user} went"))

    async def on_receive(self, data: str) -> None: ...


@post("/note")
async def note(user: FromQuery[str], text: FromQuery[str], fanout: NamedDependency[Fanout]) -> dict[str, int]:
    return {"sequence": await fanout.publish_to_user(Note(text), user)}


@post("/say")
async def say(room: FromQuery[str], text: FromQuery[str], fanout: NamedDependency[Fanout]) -> None:
    await fanout.publish(Note(text), room)


@post("/remove")
async def remove(user: FromQuery[str], room: FromQuery[str], fanout: NamedDependency[Fanout]) -> list[str]:
    await fanout.remove(user, room, "spam")
    return await fanout.present(room)


@post("/garbage")
async def garbage(user: FromQuery[str], fanout: NamedDependency[Fanout]) -> None:
    """Somebody else writes to the channel of the nodes, in the same turn of the event loop as a node does."""
    fanout.broker.publish(REMOVALS, b"{")
    await fanout.disconnect(user, "bye")


@post("/disconnect")
async def disconnect(user: FromQuery[str], fanout: NamedDependency[Fanout]) -> None:
    await fanout.disconnect(user, "bye")


@pytest.fixture
def service() -> Iterator[TestClient[Litestar]]:
    settings = Settings(max_messages_per_second=0, history=2)
    plugins = [Fanout(settings), Sessions(settings, ConnectionInfo, Hooks())]
    app = Litestar(
        [Inbox, Room, note, say, remove, garbage, disconnect], plugins=plugins, logging_config=None, openapi_config=None
    )
    with TestClient(app) as client:
        yield client


def test_a_message_to_a_user_reaches_all_their_connections_and_nobody_else(service: TestClient[Litestar]) -> None:
    with (
        service.websocket_connect("/inbox?user=ada") as one,
        service.websocket_connect("/inbox?user=ada") as other,
        service.websocket_connect("/inbox?user=eve") as eve,
    ):
        service.post("/note?user=ada&text=1")
        one.send_text("ada")
        service.post("/note?user=eve&text=2")
        assert one.receive_json(timeout=TIMEOUT)["text"] == "1"
        assert [other.receive_json(timeout=TIMEOUT)["text"] for _ in range(2)] == ["1", "other tabs"]
        assert eve.receive_json(timeout=TIMEOUT)["text"] == "2"


@pytest.mark.parametrize("name", ["ada", "user:ada", "%00user:ada", "%00%00user:ada", ":user:ada"])
def test_no_room_is_the_channel_of_a_user(service: TestClient[Litestar], name: str) -> None:
    with (
        service.websocket_connect(f"/room?name={name}") as room,
        service.websocket_connect("/inbox?user=ada") as inbox,
    ):
        service.post("/note?user=ada&text=secret")
        service.post(f"/say?room={name}&text=public")
        service.post("/note?user=ada&text=end")
        assert [room.receive_json(timeout=TIMEOUT)["text"] for _ in range(2)] == [" came", "public"]
        assert [inbox.receive_json(timeout=TIMEOUT)["text"] for _ in range(2)] == ["secret", "end"]


def test_a_user_resumes_as_in_a_room(service: TestClient[Litestar]) -> None:
    first = service.post("/note?user=ada&text=1").json()["sequence"]
    for text in "234":
        service.post(f"/note?user=ada&text={text}")
    with service.websocket_connect(f"/inbox?user=ada&after={first}") as inbox:
        assert inbox.receive_json(timeout=TIMEOUT) == {"type": "gap", "channel": "user:ada", "missed": 1}
        messages = [inbox.receive_json(timeout=TIMEOUT) for _ in range(2)]
        assert [(each["text"], each["sequence"] - first) for each in messages] == [("3", 2), ("4", 3)]


def test_a_user_is_removed_from_a_room_and_told_why(service: TestClient[Litestar]) -> None:
    with service.websocket_connect("/room?name=hall&user=eve") as eve:
        with service.websocket_connect("/room?name=hall&user=ada") as ada:
            assert ada.receive_json(timeout=TIMEOUT)["text"] == "ada came"
            left = [
                service.post(f"/remove?user={user}&room={room}").json()
                for user, room in (("", "hall"), ("ada", "yard"), ("ada", "hall"), ("ada", "hall"))
            ]
            assert left == [["ada", "eve"], [], ["eve"], ["eve"]]
            service.post("/say?room=hall&text=without+ada")
            messages = [eve.receive_json(timeout=TIMEOUT)["text"] for _ in range(4)]
            assert messages == ["eve came", "ada came", "ada went", "without ada"]
            service.post("/disconnect?user=ada")
            told = {"type": "error", "code": "removed", "detail": "spam", "extra": {"channel": "hall"}}
            assert ada.receive_json(timeout=TIMEOUT) == told
            with pytest.raises(WebSocketDisconnect) as ended:
                ada.receive_json(timeout=TIMEOUT)
            assert (ended.value.code, ended.value.detail) == (1008, "bye")
        service.post("/say?room=hall&text=still+here")
        assert eve.receive_json(timeout=TIMEOUT)["text"] == "still here"


def test_what_no_node_has_sent_takes_nothing_else_with_it(service: TestClient[Litestar]) -> None:
    with service.websocket_connect("/room?name=hall&user=ada") as ada:
        assert ada.receive_json(timeout=TIMEOUT)["text"] == "ada came"
        service.post("/garbage?user=ada")
        with pytest.raises(WebSocketDisconnect) as ended:
            ada.receive_json(timeout=TIMEOUT)
        assert (ended.value.code, ended.value.detail) == (1008, "bye")


def test_a_connection_that_is_nobodys_cannot_join(
    service: TestClient[Litestar], capsys: pytest.CaptureFixture[str]
) -> None:
    with service.websocket_connect("/inbox") as inbox, pytest.raises(WebSocketDisconnect) as ended:
        inbox.receive_text(timeout=TIMEOUT)
    assert ended.value.code == 1011
    assert "/inbox called join_user() on a connection that has no user" in capsys.readouterr().out


def test_a_name_that_no_user_has_is_refused() -> None:
    fanout = Fanout(Settings.load())
    for call in (fanout.remove(NOBODY, "hall"), fanout.disconnect(NOBODY)):
        with pytest.raises(ClientException, match="the name of a user is not UTF-8"):
            asyncio.run(call)


@given(KINDS, NAMES, KINDS, NAMES)
@example(room_channel, "\0user:ada", user_channel, "ada")
def test_channels_are_the_same_only_for_the_same_name_of_the_same_kind(
    kind: Callable[[str], str], name: str, other_kind: Callable[[str], str], other: str
) -> None:
    assert (kind(name) == other_kind(other)) == ((kind, name) == (other_kind, other))


@given(NAMES)
def test_a_gap_names_the_room(name: str) -> None:
    assert display_name(room_channel(name)) == name
