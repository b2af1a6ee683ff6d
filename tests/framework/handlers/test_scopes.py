"""`per_message`: scopes are entered for each message and left before its answer goes out, whatever becomes of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import Any

import pytest
from litestar import Litestar
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import (
    ConfigurationError,
    ConnectionInfo,
    Fanout,
    Listener,
    MessageError,
    Socket,
    listener,
)
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks, Serve


class Save(Struct, tag="save"):
    then: str = ""


class Saved(Struct, tag="saved"):
    events: list[str]


class Published(Struct, tag="published"):
    number: int


events: list[str] = []
released = asyncio.Event()


async def transaction(data: Save, connection: NamedDependency[ConnectionInfo]) -> AsyncGenerator[str, None]:
    assert connection.id
    events.append("begin")
    try:
        yield "transaction"
    except BaseException:
        events.append("rollback")
        raise
    events.append("commit")
    if data.then == "commit slowly":
        await released.wait()
        events.append("committed")
    if data.then == "commit fails":
        raise OSError("the disk is full")
    if data.then == "commit refuses":
        raise MessageError("conflict")
    if data.then == "commit refuses in a task group":
        raise ExceptionGroup("of a task group", [MessageError("conflict")])


@asynccontextmanager
async def repository(db: str) -> AsyncGenerator[str, None]:
    yield f"repository of {db}"
    events.append("repository left")


SCOPES: Any = {"users": repository, "db": transaction}


def do(data: Save) -> None:
    match data.then:
        case "refuse":
            raise MessageError("no")
        case "fail":
            raise ValueError("a bug")
        case "release":
            released.set()
        case _:
            pass


@listener("/", per_message=SCOPES)
async def save(data: Save, users: str, db: str) -> Saved:
    events.append(f"{users}, {db}")
    do(data)
    return Saved([])


@listener("/stream", per_message=SCOPES)
async def stream(data: Save, users: str) -> AsyncGenerator[Saved, None]:
    events.append(users)
    yield Saved([])
    do(data)
    if data.then == "wait":
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _forget() -> None:
    events.clear()


def ask(serve: Serve, then: str, path: str = "/") -> dict[str, Any]:
    with serve(save, stream) as client, client.websocket_connect(path) as socket:
        socket.send_json({"type": "save", "then": then, "ref": 1})
        answer: dict[str, Any] = socket.receive_json(timeout=20)
        return answer


def test_a_scope_may_have_a_decorator_that_leaves_it_a_generator(serve: Serve) -> None:
    @wraps(transaction)
    def traced(*args: Any, **options: Any) -> AsyncGenerator[str, None]:
        events.append("traced")
        return transaction(*args, **options)

    @listener("/", per_message={"db": traced})
    async def save(data: Save, db: str) -> Saved:
        events.append(db)
        return Saved([])

    with serve(save) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "save"})
        assert socket.receive_json(timeout=20) == {"type": "saved", "events": []}
    assert events == ["traced", "begin", "transaction", "commit"]


BOTH = "repository of transaction, transaction"


def test_scopes_are_left_before_the_answer(serve: Serve) -> None:
    assert ask(serve, "") == {"type": "saved", "events": [], "ref": 1}
    assert events == ["begin", BOTH, "repository left", "commit"]


@pytest.mark.parametrize(
    ("then", "code", "expected"),
    [
        ("refuse", "no", ["begin", BOTH, "rollback"]),
        ("commit fails", "commit_failed", ["begin", BOTH, "repository left", "commit"]),
        ("commit refuses", "conflict", ["begin", BOTH, "repository left", "commit"]),
        ("commit refuses in a task group", "conflict", ["begin", BOTH, "repository left", "commit"]),
    ],
)
def test_an_error_takes_the_place_of_the_answer(serve: Serve, then: str, code: str, expected: list[str]) -> None:
    answer = ask(serve, then)
    assert (answer["type"], answer["code"], answer["ref"]) == ("error", code, 1)
    assert events == expected


def test_a_bug_rolls_back(serve: Serve) -> None:
    with pytest.raises(WebSocketDisconnect) as ended:
        ask(serve, "fail")
    assert ended.value.code == 1011
    assert events == ["begin", BOTH, "rollback"]


async def swallowing() -> AsyncGenerator[str, None]:
    with suppress(Exception):
        yield "swallows"


@listener("/swallows", per_message={"db": swallowing})
async def swallows(data: Save, db: str) -> Saved:
    do(data)
    return Saved([db])


@listener("/swallows/stream", per_message={"db": swallowing})
async def swallows_in_a_stream(data: Save, db: str) -> AsyncGenerator[Saved, None]:
    do(data)
    yield Saved([db])


@pytest.mark.parametrize("path", ["/swallows", "/swallows/stream"])
def test_a_scope_that_swallows_takes_no_answer_from_the_client(serve: Serve, path: str) -> None:
    with serve(swallows, swallows_in_a_stream) as client, client.websocket_connect(path) as socket:
        socket.send_json({"type": "save", "then": "refuse", "ref": 1})
        assert socket.receive_json(timeout=20) == {"type": "error", "code": "no", "detail": "", "ref": 1}
        socket.send_json({"type": "save", "then": "fail", "ref": 2})
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json(timeout=20)
        assert ended.value.code == 1011


@pytest.mark.parametrize(
    ("then", "last", "expected"),
    [
        ("", {"type": "end", "ref": 1}, ["repository left", "commit"]),
        ("refuse", {"type": "error", "code": "no", "detail": "", "ref": 1}, ["rollback"]),
        (
            "commit refuses",
            {"type": "error", "code": "conflict", "detail": "", "ref": 1},
            ["repository left", "commit"],
        ),
    ],
)
def test_the_scope_of_a_stream_lasts_as_long_as_the_stream(
    serve: Serve, then: str, last: dict[str, Any], expected: list[str]
) -> None:
    with serve(stream) as client, client.websocket_connect("/stream") as socket:
        socket.send_json({"type": "save", "then": then, "ref": 1})
        assert socket.receive_json(timeout=20)["type"] == "saved"
        assert socket.receive_json(timeout=20) == last
    assert events == ["begin", "repository of transaction", *expected]


@pytest.mark.parametrize("cancels", [True, False])
def test_a_cancelled_stream_rolls_back(serve: Serve, cancels: bool) -> None:
    with serve(stream) as client, client.websocket_connect("/stream") as socket:
        socket.send_json({"type": "save", "then": "wait", "ref": 1})
        assert socket.receive_json(timeout=20)["type"] == "saved"
        if cancels:
            socket.send_json({"type": "cancel", "ref": 1})
            assert socket.receive_json(timeout=20)["cancelled"]
    assert events[-1] == "rollback"


def test_a_cancel_interrupts_no_commit(serve: Serve) -> None:
    with serve(stream) as client, client.websocket_connect("/stream") as socket:
        socket.send_json({"type": "save", "then": "commit slowly", "ref": 1})
        assert socket.receive_json(timeout=20)["type"] == "saved"
        while "commit" not in events:
            socket.send_json({"type": "ping"})
            assert socket.receive_json(timeout=20) == {"type": "pong"}
        socket.send_json({"type": "cancel", "ref": 1})
        socket.send_json({"type": "save", "then": "release", "ref": 2})
        answers = [socket.receive_json(timeout=20) for _ in range(3)]
    assert {"type": "end", "ref": 1} in answers
    assert "committed" in events


def test_a_listener_class_has_scopes(serve: Serve) -> None:
    class Saver(Listener):
        path = "/"
        per_message = SCOPES

        async def on_receive(self, data: Save, socket: Socket, users: str) -> Saved:
            return Saved([users, socket.scope["path"]])

    with serve(Saver) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "save"})
        assert socket.receive_json(timeout=20)["events"] == ["repository of transaction", "/"]


def rooms(hooks: Hooks, *handlers: Any) -> TestClient[Litestar]:
    settings = Settings.load(max_messages_per_second=0, hook_seconds=1)
    plugins = [Fanout(settings), Sessions(settings, ConnectionInfo, hooks)]
    return TestClient(Litestar(list(handlers), plugins=plugins, logging_config=None, openapi_config=None))


class Publisher(Listener):
    path = "/publish"
    per_message = SCOPES

    async def on_accept(self, socket: Socket, fanout: NamedDependency[Fanout]) -> None:
        await fanout.join(socket, "room")

    async def on_receive(self, data: Save, db: str, fanout: NamedDependency[Fanout]) -> Saved | None:
        futures = [fanout.publish(Published(number), "room") for number in range(3)]
        assert not events[1:]
        if data.then == "await":
            await futures[-1]
        if data.then == "wait":
            await asyncio.wait(futures[-1:])
        do(data)
        return None


def test_what_is_published_is_held_back_until_the_commit(hooks: Hooks) -> None:
    with rooms(hooks, Publisher) as client, client.websocket_connect("/publish") as socket:
        socket.send_json({"type": "save", "then": "refuse", "ref": 1})
        assert socket.receive_json(timeout=20)["code"] == "no"
        events.clear()
        socket.send_json({"type": "save", "then": "commit refuses", "ref": 1})
        assert socket.receive_json(timeout=20)["code"] == "conflict"
        events.clear()
        socket.send_json({"type": "save"})
        assert [socket.receive_json(timeout=20)["number"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("then", ["await", "wait"])
def test_what_is_held_back_cannot_be_awaited(hooks: Hooks, then: str) -> None:
    with rooms(hooks, Publisher) as client:
        with client.websocket_connect("/publish") as socket:
            socket.send_json({"type": "save", "then": then})
            with pytest.raises(WebSocketDisconnect):
                socket.receive_json(timeout=20)
        _, cause = hooks.ended.get(timeout=20)
        assert "per_message" in str(cause.error)


def test_a_stream_publishes_at_once(hooks: Hooks) -> None:
    class Streamer(Listener):
        path = "/"
        per_message = SCOPES

        async def on_accept(self, socket: Socket, fanout: NamedDependency[Fanout]) -> None:
            await fanout.join(socket, "room")

        async def on_receive(self, data: Save, fanout: NamedDependency[Fanout]) -> AsyncGenerator[Saved, None]:
            await fanout.publish(Published(1), "room")
            await asyncio.Event().wait()
            yield Saved([])

    with rooms(hooks, Streamer) as client, client.websocket_connect("/") as socket:
        socket.send_json({"type": "save", "ref": 1})
        assert socket.receive_json(timeout=20) == {"type": "published", "number": 1}


async def plain(data: Save) -> str:
    return ""


async def one(two: str) -> AsyncGenerator[str, None]:
    yield two


async def two(one: str) -> AsyncGenerator[str, None]:
    yield one


async def session() -> AsyncGenerator[str, None]:
    yield ""


async def derived(session: str) -> str:
    return session


@wraps(session)
async def made_later() -> AsyncGenerator[str, None]:
    return session()


async def takes_session(session: NamedDependency[str]) -> AsyncGenerator[str, None]:
    yield session


async def takes_derived(derived: NamedDependency[str]) -> AsyncGenerator[str, None]:
    yield derived


@pytest.mark.parametrize(
    ("scopes", "mistake"),
    [
        ({"db": plain}, "is not an async generator function"),
        ({"db": made_later}, "is not an async generator function"),
        ({"one": one, "two": two}, "depend on each other"),
        ({"data": session}, "this name is reserved"),
        ({"socket": session}, "this name is reserved"),
        ({"connection": session}, "this name is reserved"),
        ({"session": session}, "a dependency of the same name"),
        ({"db": takes_session}, "a dependency that yields"),
        ({"db": takes_derived}, "a dependency that yields"),
    ],
)
def test_a_wrong_scope_is_refused_at_start(serve: Serve, scopes: Any, mistake: str) -> None:
    dependencies = {"session": Provide(session), "derived": Provide(derived)}

    async def handler(data: Save) -> None: ...

    decorate = listener("/", per_message=scopes, dependencies=dependencies)
    with pytest.raises(ConfigurationError, match=mistake), serve(decorate(handler)):
        pass


class DatabaseSession:
    pass


async def database() -> AsyncGenerator[DatabaseSession, None]:
    yield DatabaseSession()


@pytest.mark.parametrize("opt", [{}, {"allow": ["db"]}])
def test_a_session_for_the_whole_connection_is_warned_of(
    serve: Serve, capsys: pytest.CaptureFixture[str], opt: dict[str, Any]
) -> None:
    @listener("/", dependencies={"db": Provide(database)}, opt=opt)
    async def handler(data: Save, db: NamedDependency[DatabaseSession]) -> None: ...

    with serve(handler):
        pass
    assert ("lives as long as the connection" in capsys.readouterr().out) == (not opt)
