"""Presence with a state: one of each user, whose latest counts, told at most so often, and listed first."""

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket
from my_service.realtime.fanout.broker import Presence
from my_service.realtime.fanout.memory import MemoryBroker
from my_service.realtime.fanout.messages import Members
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks, SkippingLoop

TIMEOUT = 20


class Member(Struct, tag="member"):
    name: str
    status: str


class Left(Struct, tag="left"):
    name: str


class Do(Struct, tag="do"):
    what: Literal["track", "untrack", "leave"]
    status: str = ""


class Done(Struct, tag="done"):
    members: list[Member]


class Room(Listener):
    """Joins with the list first, and does what it is told."""

    path = "/{room:str}"

    async def on_accept(
        self,
        socket: Socket,
        connection: NamedDependency[ConnectionInfo],
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
        user: FromQuery[str],
        after: FromQuery[int | None] = None,
    ) -> None:
        connection.user = user
        await fanout.join(socket, room, states=True, after=after)

    async def on_receive(
        self,
        data: Do,
        socket: Socket,
        connection: NamedDependency[ConnectionInfo],
        room: FromPath[str],
        fanout: NamedDependency[Fanout],
    ) -> Done:
        name = connection.user
        match data.what:
            case "track":
                await fanout.track(socket, room, left=Left(name), state=Member(name, data.status))
            case "untrack":
                fanout.untrack(socket, room)
            case "leave":
                await fanout.leave(socket, room)
        return Done(await fanout.present(room, Member))


class ListedBroker(MemoryBroker):
    """Publishes while the list is read: before it, so that it is in there, and behind it."""

    listing = False

    async def members(self, channel: str) -> Members:
        if not self.listing:
            return await super().members(channel)
        self.set_presence_state(channel, "ada", b'{"type":"member","name":"ada","status":"early"}')
        await asyncio.sleep(0)  # it arrives before the list does, and the next one after it
        self.set_presence_state(channel, "ada", b'{"type":"member","name":"ada","status":"in the list"}')
        members = await super().members(channel)
        self.set_presence_state(channel, "ada", b'{"type":"member","name":"ada","status":"after the list"}')
        return members


@pytest.fixture
def broker() -> ListedBroker:
    return ListedBroker(Settings(presence_state_seconds=0))


@pytest.fixture
def rooms(broker: ListedBroker) -> Iterator[TestClient[Litestar]]:
    settings = Settings(max_messages_per_second=0, presence_state_seconds=0)
    plugins = [Fanout(settings, broker), Sessions(settings, ConnectionInfo, Hooks())]
    with TestClient(Litestar([Room], plugins=plugins, logging_config=None, openapi_config=None)) as client:
        yield client


def receive(client: Any) -> tuple[str, str]:
    """Return what kind of message came, and what it says."""
    message = client.receive_json(timeout=TIMEOUT)
    if message["type"] == "done":
        return "done", " ".join(f"{each['name']}:{each['status']}" for each in message["members"])
    return message["type"], message.get("status") or message.get("name") or message["detail"]


@pytest.mark.parametrize("end", ["untrack", "leave", "close"])
def test_many_tabs_are_one_member_with_the_latest_state_until_the_last_ends(
    rooms: TestClient[Litestar], end: str
) -> None:
    with rooms.websocket_connect("/hall?user=eve") as eve:
        with rooms.websocket_connect("/hall?user=ada") as one, rooms.websocket_connect("/hall?user=ada") as two:
            for tab, status in ((one, "here"), (two, "typing"), (two, "typing"), (one, "away")):
                tab.send_json({"type": "do", "what": "track", "status": status})
                while (received := receive(tab))[0] != "done":
                    pass
                assert received == ("done", f"ada:{status}")
            for tab in (one, two):
                if end != "close":
                    tab.send_json({"type": "do", "what": end})
        assert [receive(eve) for _ in range(4)] == [
            ("member", "here"),
            ("member", "typing"),
            ("member", "away"),
            ("left", "ada"),
        ]
        eve.send_json({"type": "do", "what": "untrack"})
        assert receive(eve) == ("done", "")


@pytest.mark.parametrize("query", ["", "&after=1"])
def test_who_joins_receives_the_list_first_without_a_gap_and_without_a_double(
    rooms: TestClient[Litestar], broker: ListedBroker, query: str
) -> None:
    with rooms.websocket_connect("/hall?user=ada") as ada:
        ada.send_json({"type": "do", "what": "track", "status": "before"})
        assert {receive(ada), receive(ada)} == {("member", "before"), ("done", "ada:before")}
        broker.listing = True
        with rooms.websocket_connect(f"/hall?user=eve{query}") as eve:
            assert receive(eve) == ("member", "in the list")
            if query:
                assert eve.receive_json(timeout=TIMEOUT)["type"] == "gap"
                assert [receive(eve)[1] for _ in range(3)] == ["before", "early", "in the list"]
            assert receive(eve) == ("member", "after the list")


def test_a_state_that_is_too_large_is_refused_and_changes_nothing(rooms: TestClient[Litestar]) -> None:
    with rooms.websocket_connect("/hall?user=ada") as ada:
        ada.send_json({"type": "do", "what": "track", "status": "x" * 4096})
        assert receive(ada) == ("error", "the state of a user has at most 4096 bytes")
        ada.send_json({"type": "do", "what": "untrack"})
        assert receive(ada) == ("done", "")


def test_of_many_changes_the_first_is_told_and_the_latest_when_the_time_has_come() -> None:
    async def change() -> None:
        told: asyncio.Queue[bytes] = asyncio.Queue()
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        broker = MemoryBroker(Settings(presence_state_seconds=3600))
        await broker.start(lambda _, message: told.put_nowait(message.data))
        presence = Presence(broker)
        await presence.join("hall", "ada", b"", b"left")
        for state in (b"0", b"1", b"2", b"0"):
            await presence.set_state("hall", "ada", state)
            assert (await broker.members("hall")).states == {"ada": state}
        assert told.qsize() == 1
        assert [await told.get(), await told.get()] == [b"0", b"0"], "who came meanwhile has been told of another"
        await asyncio.sleep(4000)
        await presence.set_state("hall", "ada", b"0")
        assert told.empty(), "the same once more is no change"
        await presence.set_state("hall", "ada", b"4")
        assert await told.get() == b"4"
        await presence.set_state("hall", "ada", b"5")
        presence.leave("hall", "ada")
        assert await told.get() == b"left"
        await presence.join("hall", "eve", b"", b"")
        for state in (b"6", b"7"):
            await presence.set_state("hall", "eve", state)
        assert [await told.get(), await told.get()] == [b"6", b"7"], "what waited is gone with the member"
        assert not problems

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(change())
