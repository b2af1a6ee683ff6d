"""The proof of state independence complains of none of these listeners, and compares what they send.

`tests/test_proof.py` of the repository tries all fifty; these are those that were hardest to tell from a mistake.
"""

from asyncio import sleep
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from litestar.di import NamedDependency
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import websocket
from litestar.params import FromPath

from my_service.realtime import ConnectionInfo, Listener, Socket, connection_lifespan, listener

from . import listeners
from .listeners import Answer, Ask, Connection, Heard, Rooms, Say
from .proving import prove

pytestmark = pytest.mark.timeout(240)  # each wait of the proof is bounded


@pytest.mark.parametrize(
    "handler",
    [
        listeners.at_random,
        listeners.Chat,
        listeners.everything,
        listeners.Present,
        listeners.Private,
        listeners.points,
        listeners.raw,
        listeners.ticks,
    ],
)
def test_a_correct_listener_passes(handler: Any) -> None:
    (proof,) = prove(handler, connection=Connection)
    assert proof.messages
    assert proof.compared
    assert not proof.skipped


def test_messages_of_its_own_reach_a_handler_that_reads_the_socket() -> None:
    @websocket("/json", opt={"allow": ["connection"]})
    async def json(socket: Socket) -> None:
        async with connection_lifespan(socket):
            async for said in socket.iter_json():
                await socket.send_json(said["number"])

    (proof,) = prove(json, dialogues=[[Ask(1), Ask(2)]])
    assert proof.compared


def test_a_room_of_a_handler_that_reads_the_socket_is_no_leak() -> None:
    @websocket("/room", opt={"allow": ["connection"]})
    async def room(socket: Socket, fanout: Rooms) -> None:
        async with connection_lifespan(socket):
            await fanout.join(socket, "room")
            async for said in socket.iter_json():
                await fanout.publish(Heard(said["number"]), "room")
                await socket.send_json(said["number"])

    (proof,) = prove(room, dialogues=[[Ask(1), Ask(2)]])
    assert proof.compared


def test_a_number_of_the_path_that_a_listener_takes_as_another_type_is_drawn_as_the_path_takes_it() -> None:
    @listener("/number/{number:int}")
    async def numbered(data: Say, number: FromPath[float]) -> Answer:
        return Answer([data.text, number])

    (proof,) = prove(numbered)
    assert proof.compared


def test_who_is_present_may_be_told_beside_a_stream() -> None:
    class Roster(Listener):
        path = "/roster"

        async def on_accept(self, socket: Socket, fanout: Rooms) -> None:
            await fanout.join(socket, "roster")
            await fanout.track(socket, "roster")

        async def on_receive(
            self, data: Say, connection: NamedDependency[ConnectionInfo], fanout: Rooms
        ) -> AsyncGenerator[Answer | Heard, None]:
            async def roster() -> None:
                await connection.send(Heard(sorted(await fanout.present("roster"))))

            connection.start(roster())
            for _ in range(3):
                await sleep(0.01)
                yield Answer(data.text)

    (proof,) = prove(Roster)
    assert proof.compared


def visitors(opt: dict[str, Any]) -> Any:
    counts = {"count": 0}

    @listener("/visitors", opt=opt)
    async def visitors(data: Say | Ask) -> Answer | Heard:
        counts["count"] += 1
        return Answer(counts["count"]) if isinstance(data, Say) else Heard(data.number)

    return visitors


@pytest.mark.parametrize("kind", [Say, Answer])
def test_what_is_shared_on_purpose_is_said_at_the_listener(kind: Any) -> None:
    (proof,) = prove(visitors({"shared": {kind: "a counter of all visitors"}}))
    assert proof.compared


def test_all_that_is_shared_is_skipped_with_its_reason() -> None:
    (proof,) = prove(visitors({"shared": "a counter of all visitors"}))
    assert proof.skipped == "a counter of all visitors"


def test_a_listener_of_which_nothing_can_be_compared_is_skipped() -> None:
    @listener("/ids")
    async def ids(data: Say) -> Answer:
        return Answer(uuid4().hex)

    (proof,) = prove(ids)
    assert "differs each time" in proof.skipped


def refuse(*_: Any) -> None:
    raise PermissionDeniedException


def test_a_listener_whose_guard_refuses_the_client_is_skipped() -> None:
    @listener("/guarded", guards=[refuse])
    async def guarded(data: Say) -> Answer:
        return Answer(data.text)

    (proof,) = prove(guarded)
    assert "is refused with HTTP 403" in proof.skipped
