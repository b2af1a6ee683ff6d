"""The channels of users, and that no name of a room, a user or the nodes is that of another."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket
from my_service.realtime.fanout.channels import display_name, node_channel, room_channel, user_channel
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks

TIMEOUT = 20
NAMES = st.text(st.sampled_from("\0:ua") | st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["user:ada", "\0user:ada", "\0\0user:ada", "\0node:LoggedOut", "node:LoggedOut", "\0", ""]
)
KINDS = st.sampled_from([room_channel, user_channel, node_channel])


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

    async def on_accept(self, socket: Socket, name: FromQuery[str], fanout: NamedDependency[Fanout]) -> None:
        await fanout.join(socket, name)

    async def on_receive(self, data: str) -> None: ...


@post("/note")
async def note(user: FromQuery[str], text: FromQuery[str], fanout: NamedDependency[Fanout]) -> dict[str, int]:
    return {"sequence": await fanout.publish_to_user(Note(text), user)}


@post("/say")
async def say(room: FromQuery[str], text: FromQuery[str], fanout: NamedDependency[Fanout]) -> None:
    await fanout.publish(Note(text), room)


@pytest.fixture
def service() -> Iterator[TestClient[Litestar]]:
    settings = Settings(max_messages_per_second=0, history=2)
    plugins = [Fanout(settings), Sessions(settings, ConnectionInfo, Hooks())]
    handlers = [Inbox, Room, note, say]
    with TestClient(Litestar(handlers, plugins=plugins, logging_config=None, openapi_config=None)) as client:
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
        assert room.receive_json(timeout=TIMEOUT)["text"] == "public"
        assert [inbox.receive_json(timeout=TIMEOUT)["text"] for _ in range(2)] == ["secret", "end"]


def test_a_user_resumes_as_in_a_room(service: TestClient[Litestar]) -> None:
    first = service.post("/note?user=ada&text=1").json()["sequence"]
    for text in "234":
        service.post(f"/note?user=ada&text={text}")
    with service.websocket_connect(f"/inbox?user=ada&after={first}") as inbox:
        assert inbox.receive_json(timeout=TIMEOUT) == {"type": "gap", "channel": "user:ada", "missed": 1}
        heard = [inbox.receive_json(timeout=TIMEOUT) for _ in range(2)]
        assert [(each["text"], each["sequence"] - first) for each in heard] == [("3", 2), ("4", 3)]


def test_a_connection_that_is_nobodys_cannot_join(
    service: TestClient[Litestar], capsys: pytest.CaptureFixture[str]
) -> None:
    with service.websocket_connect("/inbox") as inbox, pytest.raises(WebSocketDisconnect) as ended:
        inbox.receive_text(timeout=TIMEOUT)
    assert ended.value.code == 1011
    assert "/inbox joined the channel of its user, and has none" in capsys.readouterr().out


@given(KINDS, NAMES, KINDS, NAMES)
def test_channels_are_the_same_only_for_the_same_name_of_the_same_kind(
    kind: object, name: str, other_kind: object, other: str
) -> None:
    assert callable(kind)
    assert callable(other_kind)
    assert (kind(name) == other_kind(other)) == ((kind, name) == (other_kind, other))


@given(NAMES)
def test_a_gap_names_the_room(name: str) -> None:
    assert display_name(room_channel(name)) == name
