"""What is sent first, such as rows of a database, and what is published meanwhile: everything once."""

from collections.abc import AsyncGenerator, Iterator
from uuid import UUID

import pytest
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, FromQuery
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks

TIMEOUT = 20


class Said(Struct, tag="said"):
    id: UUID


class Old(Struct, tag="old"):
    id: UUID


class Other(Struct, tag="other"):
    text: str


class Listed(Struct, tag="listed"):
    id: list[int]


class Points(Struct, tag="points", array_like=True):
    numbers: list[int]


class Room(Listener):
    """Has two rows. While it reads them, more is published."""

    path = "/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        connection: NamedDependency[ConnectionInfo],
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        after: FromQuery[int | None] = None,
        key: FromQuery[str] = "id",
        leaving: FromQuery[bool] = False,
    ) -> None:
        closed = False

        async def rows() -> AsyncGenerator[Old, None]:
            nonlocal closed
            try:
                yield Old(UUID(int=1))
                if leaving:
                    await fanout.leave(socket, room)
                for number in (1, 2):
                    await fanout.publish(Said(UUID(int=number)), room)
                yield Old(UUID(int=3))
            finally:
                closed = True

        try:
            await fanout.join(socket, room, first=rows(), after=after, key=key)
        finally:
            await connection.send(Other(f"closed: {closed}"))

    async def on_receive(self, data: str, room: FromPath[str], fanout: NamedDependency[Fanout]) -> Other:
        for message in (Said(UUID(int=3)), Other("no key"), Points([1]), Listed([1]), Said(UUID(int=4))):
            await fanout.publish(message, room)
        return Other("done")


@pytest.fixture
def rooms() -> Iterator[TestClient[Litestar]]:
    settings = Settings(max_messages_per_second=0)
    plugins = [Fanout(settings), Sessions(settings, ConnectionInfo, Hooks())]
    with TestClient(Litestar([Room], plugins=plugins, logging_config=None, openapi_config=None)) as client:
        yield client


@pytest.mark.parametrize("query", ["", "?after=0"])
def test_what_is_sent_first_is_not_sent_again(rooms: TestClient[Litestar], query: str) -> None:
    with rooms.websocket_connect(f"/hall{query}") as client:
        client.send_text("go on")
        messages = [client.receive_json(timeout=TIMEOUT) for _ in range(9)]
    one, two, three, four = [str(UUID(int=number)) for number in range(1, 5)]
    ids = [(each["type"], each["id"]) for each in messages if "id" in each]
    assert ids == [("old", one), ("old", three), ("said", two), ("listed", [1]), ("said", four)]
    assert ["points", [1]] in messages


def test_who_leaves_while_it_joins_receives_no_more_of_the_channel(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall?after=0&leaving=true") as client:
        client.send_text("go on")
        messages = [client.receive_json(timeout=TIMEOUT) for _ in range(3)]
    assert [each.get("text", each["type"]) for each in messages] == ["old", "closed: True", "done"]


def test_a_key_that_is_not_there_is_named(rooms: TestClient[Litestar], capsys: pytest.CaptureFixture[str]) -> None:
    with rooms.websocket_connect("/hall?key=ids") as client:
        told = client.receive_json(timeout=TIMEOUT)
        assert told == {"type": "other", "text": "closed: True"}, "it may have a connection to a database"
        with pytest.raises(WebSocketDisconnect) as ended:
            client.receive_text(timeout=TIMEOUT)
    assert ended.value.code == 1011
    assert "a message that is sent first has no 'ids'" in capsys.readouterr().out
