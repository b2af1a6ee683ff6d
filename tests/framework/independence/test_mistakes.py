"""The proof of state independence finds each of these mistakes in a listener of a user, and says where it is."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import pytest
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from msgspec import Struct

from my_service.realtime import ConnectionInfo, Fanout, Listener, Socket, listener
from my_service.realtime.testing.independence import InterferenceError

from .proving import prove


class Say(Struct, tag="say"):
    text: str


class Ask(Struct, tag="ask"):
    pass


class Order(Struct, tag="order"):
    item: str
    place: str
    amount: int


class Answer(Struct, tag="answer"):
    value: Any


class Pushed(Struct, tag="pushed"):
    value: Any


@dataclass(slots=True, kw_only=True, eq=False)
class Connection(ConnectionInfo):
    buffer: list[str] = field(default_factory=list[str])
    said: int = 0


pytestmark = pytest.mark.timeout(240)  # each wait of the proof is bounded

BUFFER: list[str] = []


def counter_in_a_module() -> Any:
    counts = {"count": 0}

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        counts["count"] += 1
        return Answer(counts["count"])

    return mistake


def mutable_default() -> Any:
    def remember(text: str, texts: list[str] = []) -> list[str]:  # noqa: B006
        texts.append(text)
        return texts

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        return Answer(remember(data.text))

    return mistake


def class_attribute() -> Any:
    class Mistake(Listener):
        path = "/mistake"
        latest = ""

        async def on_receive(self, data: Say) -> Answer:
            before = type(self).latest
            type(self).latest = data.text
            return Answer(before)

    return Mistake


def application_state() -> Any:
    @listener("/mistake")
    async def mistake(data: Say, socket: Socket) -> Answer:
        socket.app.state.count = socket.app.state.get("count", 0) + 1
        return Answer(socket.app.state.count)

    return mistake


def cached_dependency() -> Any:
    class Counter:
        count = 0

    async def provide_counter() -> Counter:
        return Counter()

    provided = {"counter": Provide(provide_counter, use_cache=True)}

    @listener("/mistake", dependencies=provided, opt={"allow": ["counter"]})
    async def mistake(data: Say, counter: NamedDependency[Any]) -> Answer:
        counter.count += 1
        return Answer(counter.count)

    return mistake


def cached_helper() -> Any:
    @cache
    def history() -> list[str]:
        return []

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        history().append(data.text)
        return Answer(len(history()))

    return mistake


def cached_helper_of_a_text() -> Any:
    @cache
    def times_said(text: str) -> list[str]:
        return []

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        times_said(data.text).append(data.text)
        return Answer(len(times_said(data.text)))

    return mistake


def client_that_remembers_its_caller() -> Any:
    class Api:
        caller = ""

        async def greet(self, name: str) -> str:
            self.caller = name
            await asyncio.sleep(0.01)
            return f"hello {self.caller}"

    api = Api()

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        return Answer(await api.greet(data.text))

    return mistake


def context_variable_outside() -> Any:
    texts: ContextVar[list[str]] = ContextVar("texts")
    texts.set([])

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        texts.get().append(data.text)
        return Answer(len(texts.get()))

    return mistake


def keyed_by_address() -> Any:
    counts: dict[str, int] = {}

    @listener("/mistake")
    async def mistake(data: Say, connection: NamedDependency[Connection]) -> Answer:
        counts[connection.client] = counts.get(connection.client, 0) + 1
        return Answer(counts[connection.client])

    return mistake


def pool_of_buffers() -> Any:
    pool: list[list[str]] = []

    class Mistake(Listener):
        path = "/mistake"

        async def on_accept(self, connection: Connection) -> None:
            connection.buffer = pool.pop() if pool else []

        async def on_receive(self, data: Say, connection: NamedDependency[Connection]) -> Answer:
            connection.buffer.append(data.text)
            return Answer(len(connection.buffer))

        async def on_disconnect(self, connection: Connection) -> None:
            pool.append(connection.buffer)

    return Mistake


def task_that_writes_into_the_current_connection() -> Any:
    current: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    class Mistake(Listener):
        path = "/mistake"
        sends = Pushed

        async def on_accept(self, connection: Connection) -> None:
            current[:] = [connection]

        async def on_receive(self, data: Say) -> None:
            async def work() -> None:
                await asyncio.sleep(0)
                await current[0].send(Pushed("done"))

            tasks.add(asyncio.create_task(work()))

    return Mistake


def from_the_third_message_on() -> Any:
    latest = {"text": ""}

    @listener("/mistake")
    async def mistake(data: Say, connection: NamedDependency[Connection]) -> Answer:
        connection.said += 1
        before, latest["text"] = latest["text"], data.text
        return Answer(before if connection.said > 2 else "")

    return mistake


def after_another_has_left() -> Any:
    gone: list[str] = []

    class Mistake(Listener):
        path = "/mistake"

        async def on_receive(self, data: Say, connection: NamedDependency[Connection]) -> Answer:
            return Answer(bool(gone))

        async def on_disconnect(self, connection: Connection) -> None:
            gone.append(connection.id)

    return Mistake


def stream_with_a_common_position() -> Any:
    position = {"at": 0}

    @listener("/mistake")
    async def mistake(data: Say) -> AsyncGenerator[Answer, None]:
        position["at"] = 0
        for _ in range(3):
            position["at"] += 1
            yield Answer(position["at"])
            await asyncio.sleep(1)

    return mistake


def lifespan_with_one_session() -> Any:
    sessions: list[dict[str, str]] = [{}]

    @asynccontextmanager
    async def lifespan(connection: Connection) -> AsyncGenerator[None, None]:
        connection.buffer.append(sessions[0].setdefault("first", connection.id))
        yield

    @listener("/mistake", connection_lifespan=lifespan)
    async def mistake(data: Say, connection: NamedDependency[Connection]) -> Answer:
        return Answer(connection.buffer == [connection.id])

    return mistake


def task_that_writes_later() -> Any:
    current: list[Connection] = []

    class Mistake(Listener):
        path = "/mistake"
        sends = Pushed

        async def on_accept(self, connection: Connection) -> None:
            current[:] = [connection]

        async def on_receive(self, data: Say, connection: NamedDependency[Connection]) -> Answer:
            async def work() -> None:
                await asyncio.sleep(1)
                await current[0].send(Pushed("done"))

            connection.start(work())
            return Answer("soon")

    return Mistake


def one_generator() -> Any:
    numbers = count(1)

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        return Answer(next(numbers))

    return mistake


def lock_that_is_held() -> Any:
    locks: list[asyncio.Lock] = []

    class Mistake(Listener):
        path = "/mistake"

        async def on_accept(self) -> None:
            locks[:] = locks or [asyncio.Lock()]
            await locks[0].acquire()

        async def on_receive(self, data: Say) -> Answer:
            return Answer(data.text)

        async def on_disconnect(self) -> None:
            locks[0].release()

    return Mistake


def set_of_subscribers() -> Any:
    everybody: set[Connection] = set()

    class Mistake(Listener):
        path = "/mistake"
        sends = Pushed

        async def on_accept(self, connection: Connection) -> None:
            everybody.add(connection)

        async def on_receive(self, data: Say) -> None:
            for each in everybody:
                await each.send(Pushed("news"))

        async def on_disconnect(self, connection: Connection) -> None:
            everybody.discard(connection)

    return Mistake


def room_of_the_latest() -> Any:
    rooms = [""]

    class Mistake(Listener):
        path = "/mistake/{room:str}"
        sends = Pushed

        async def on_accept(self, socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
            rooms[0] = room
            await fanout.join(socket, room)

        async def on_receive(self, data: Say, fanout: NamedDependency[Fanout]) -> None:
            fanout.publish(Pushed("news"), rooms[0])

    return Mistake


def history_of_all() -> Any:
    said: list[Pushed] = []

    async def history() -> AsyncGenerator[Pushed, None]:
        for each in said:
            yield each

    class Mistake(Listener):
        path = "/mistake/{room:str}"
        sends = Pushed

        async def on_accept(self, socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
            await fanout.join(socket, room, first=history())

        async def on_receive(self, data: Say, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
            said.append(Pushed(data.text[-1:]))
            fanout.publish(said[-1], room)

    return Mistake


def count_beside_a_list_of_those_present() -> Any:
    counts = {"said": 0}

    class Mistake(Listener):
        path = "/mistake"

        async def on_accept(self, socket: Socket, fanout: NamedDependency[Fanout]) -> None:
            await fanout.join(socket, "hall")
            await fanout.track(socket, "hall")

        async def on_receive(self, data: Say | Ask, fanout: NamedDependency[Fanout]) -> Answer:
            if isinstance(data, Ask):
                return Answer(len(await fanout.present("hall")))
            counts["said"] += 1
            return Answer(counts["said"])

    return Mistake


def keyed_by_user() -> Any:
    counts: dict[str | None, int] = {}

    @listener("/mistake")
    async def mistake(data: Say, connection: NamedDependency[Connection]) -> Answer:
        counts[connection.user] = counts.get(connection.user, 0) + 1
        return Answer(counts[connection.user])

    return mistake


def keyed_by_one_field() -> Any:
    owners: dict[str, str] = {}

    @listener("/mistake")
    async def mistake(data: Order, connection: NamedDependency[Connection]) -> Answer:
        return Answer(owners.setdefault(data.item, connection.id) == connection.id)

    return mistake


def one_object_from_a_factory() -> Any:
    @dataclass(slots=True, kw_only=True, eq=False)
    class Shared(ConnectionInfo):
        buffer: list[str] = field(default_factory=lambda: BUFFER)

    @listener("/mistake")
    async def mistake(data: Say) -> Answer:
        return Answer(data.text)

    mistake.opt["connection"] = Shared
    return mistake


def now_and_then() -> Any:
    everybody: list[Connection] = []

    class Mistake(Listener):
        path = "/mistake"
        sends = Pushed

        async def on_accept(self, connection: Connection) -> None:
            everybody.append(connection)

        async def on_receive(self, data: Say) -> None:
            await random.choice(everybody).send(Pushed("yours"))  # noqa: S311

    return Mistake


MISTAKES: list[Any] = [
    counter_in_a_module,
    mutable_default,
    class_attribute,
    application_state,
    cached_dependency,
    cached_helper,
    cached_helper_of_a_text,
    client_that_remembers_its_caller,
    context_variable_outside,
    keyed_by_address,
    pool_of_buffers,
    task_that_writes_into_the_current_connection,
    from_the_third_message_on,
    after_another_has_left,
    stream_with_a_common_position,
    lifespan_with_one_session,
    task_that_writes_later,
    one_generator,
    lock_that_is_held,
    set_of_subscribers,
    room_of_the_latest,
    history_of_all,
    count_beside_a_list_of_those_present,
    keyed_by_user,
    keyed_by_one_field,
    one_object_from_a_factory,
    now_and_then,
]


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_mistake_is_found(plant: Callable[[], Any]) -> None:
    handler = plant()
    opt: dict[str, Any] = getattr(handler, "opt", None) or {}
    with pytest.raises(InterferenceError) as found:
        prove(handler, connection=opt.get("connection", Connection))
    report = str(found.value)
    assert report.startswith("/mistake")
    assert " lets a connection see the state of another: " in report
    assert "test_mistakes.py, line " in report
    assert "alpha   connects to /mistake" in report
    assert len(report.splitlines()) < 24
