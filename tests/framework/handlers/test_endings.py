"""Whatever ends a connection, at whatever point: nothing of it is left, and `on_disconnect` comes last."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from logging import CRITICAL
from typing import Any

import pytest
import structlog
from litestar import Litestar
from litestar.di import NamedDependency
from msgspec import Struct, json

from my_service.realtime import ConnectionInfo, Reason, listener
from my_service.realtime.sessions.fast_path import EXTENSION
from my_service.realtime.sessions.session import SESSION_KEY, Session

from ..recording import Hooks, build


class Run(Struct, tag="run"):
    what: str = ""


class Item(Struct, tag="item"):
    pass


events: list[str] = []


async def scope() -> AsyncGenerator[str, None]:
    try:
        yield "scope"
    finally:
        await asyncio.sleep(0)
        events.append("scope")


async def wait(name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        events.append(name)


@listener("/", per_message={"db": scope})
async def run(data: Run, db: str, connection: NamedDependency[ConnectionInfo]) -> AsyncGenerator[Item, None]:
    if data.what == "fail":
        raise ValueError("a bug")
    if data.what == "task":
        connection.start(wait("task"))
        return
    try:
        yield Item()
        while data.what == "busy":
            yield Item()
        await asyncio.sleep(random.random() / 500 if data.what == "short" else 3600)  # noqa: S311
        yield Item()
    finally:
        await asyncio.sleep(0)
        events.append("stream")


class Client:
    """The server's end of a connection, in this process: what a client does is put into `incoming`."""

    def __init__(self, app: Litestar) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.is_lost = False
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.scope: Any = {
            "type": "websocket", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"x")],
            "client": ("127.0.0.1", 1), "server": ("x", 80), "scheme": "ws", "subprotocols": [], "root_path": "",
            "extensions": {}, "state": {}, "asgi": {"version": "3.0"},
        }  # fmt: skip
        self.serving = asyncio.create_task(app(self.scope, self.incoming.get, self._send))  # type: ignore[arg-type]

    async def _send(self, message: Any) -> None:
        if self.is_lost:
            raise OSError("connection lost")
        if message["type"] == "websocket.close":
            self.incoming.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        self.outgoing.put_nowait(message)
        await asyncio.sleep(0)

    @property
    def session(self) -> Session:
        session: Session = self.scope["state"][SESSION_KEY]
        return session

    def say(self, **fields: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": json.encode(fields).decode()})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000, "reason": ""})

    async def receive(self, kind: str) -> None:
        async with asyncio.timeout(20):
            while True:
                message = await self.outgoing.get()
                if f'"{kind}"' in str(message.get("text") or message.get("bytes") or message["type"]):
                    return


async def client_closes(client: Client) -> None:
    client.leave()


async def connection_is_lost(client: Client) -> None:
    client.is_lost = True
    client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1005})


async def handler_fails(client: Client) -> None:
    client.say(type="run", what="fail")


async def service_closes(client: Client) -> None:
    await client.session.close(Reason.SERVICE_CLOSED, 4001)


async def limit_is_exceeded(client: Client) -> None:
    await client.session.close_for_limit("idle_seconds", "idle")


async def task_is_cancelled(client: Client) -> None:
    client.session.cancel()


async def server_cancels(client: Client) -> None:
    client.serving.cancel()


CAUSES: dict[Callable[[Client], Awaitable[None]], Reason] = {
    client_closes: Reason.CLIENT_CLOSED,
    connection_is_lost: Reason.CONNECTION_LOST,
    handler_fails: Reason.HANDLER_FAILED,
    service_closes: Reason.SERVICE_CLOSED,
    limit_is_exceeded: Reason.LIMIT_EXCEEDED,
    task_is_cancelled: Reason.CANCELLED,
    server_cancels: Reason.CANCELLED,
}

POINTS = {
    "waiting": ["stream", "scope"],
    "busy": ["stream", "scope"],
    "task": ["task"],
    "idle": [],
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_each_cause_at_each_point(hooks: Hooks, cause: Callable[[Client], Awaitable[None]], point: str) -> None:
    events.clear()
    hooks.during_disconnect = lambda _: events.append("on_disconnect")

    async def test() -> None:
        app = build(hooks, run)
        async with app.lifespan():
            before = asyncio.all_tasks()
            client = Client(app)
            if point != "idle":
                client.say(type="run", what=point, ref=1)
                await client.receive("end" if point == "task" else "item")
            else:
                client.say(type="ping")
                await client.receive("pong")
            if point == "task":
                events.clear()
            await cause(client)
            async with asyncio.timeout(20):
                await asyncio.gather(client.serving, return_exceptions=True)
                while asyncio.all_tasks() != before:  # noqa: ASYNC110  # no event says that a task is gone
                    await asyncio.sleep(0)

    asyncio.run(test())
    connection, ended = hooks.ended.get(timeout=20)
    assert ended.reason == CAUSES[cause]
    assert connection.cause is ended
    expected = [*POINTS[point], "on_disconnect"]
    if cause is handler_fails:
        expected.insert(0, "scope")
    assert events == expected


class Writer:
    """Tells of the end at once, ahead of what is unread, as the writer of the service's own server does."""

    compresses = False
    takes_frames = False

    def notify_disconnect(self, callback: Callable[[Any], None]) -> None:
        self.tell = callback

    def notify_closed(self, callback: Callable[[], None]) -> None:
        callback()

    def hold_frames(self) -> None: ...


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [0, 2, 3]), ({"concurrency": 2}, [0, 2, 3]), ({"cancel_on_disconnect": True}, ["cancelled"])],
)
def test_what_a_client_said_before_it_left_is_handled(
    hooks: Hooks, options: dict[str, Any], expected: list[Any]
) -> None:
    handled: list[Any] = []

    async def test() -> None:
        begun, free = asyncio.Event(), asyncio.Event()

        @listener("/", **options)
        async def handle(data: Run, connection: NamedDependency[ConnectionInfo]) -> Item:
            begun.set()
            try:
                await free.wait()
            except asyncio.CancelledError:
                handled.append("cancelled")
                raise
            assert connection.cause
            handled.append(int(data.what))
            return Item()  # which reaches nobody

        app = build(hooks, handle)
        async with app.lifespan():
            client, writer = Client(app), Writer()
            client.scope["extensions"] = {EXTENSION: {"writer": writer}}
            client.say(type="run", what="0", ref=0)
            client.say(type="run", ref="what is answered with an error" * 3)
            client.say(type="run", what="2", ref=2)
            client.say(type="run", what="3", ref=3)
            async with asyncio.timeout(20):
                await begun.wait()
                await connection_is_lost(client)
                writer.tell({"type": "websocket.disconnect", "code": 1005})
                free.set()
                await client.serving

    asyncio.run(test())
    assert sorted(handled) == expected
    assert hooks.ended.get(timeout=20)[1].reason == Reason.CONNECTION_LOST


def cut(hooks: Hooks, connections: int, streams: int) -> None:
    """Cut streams at random moments, and expect that no task is left and each was closed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))  # a traceback takes long to show
    moments = random.Random(1)  # noqa: S311

    async def talk(app: Litestar) -> None:
        client = Client(app)
        for ref in range(streams):
            client.say(type="run", what=moments.choice(["short", "waiting", "busy"]), ref=ref)
            for _ in range(moments.randrange(4)):
                await asyncio.sleep(0)
            if moments.random() < 0.5:
                client.say(type="cancel", ref=moments.randrange(streams))
        await asyncio.sleep(moments.random() / 500)
        await moments.choice(list(CAUSES))(client)
        await asyncio.gather(client.serving, return_exceptions=True)

    async def test() -> None:
        app = build(hooks, run, max_streams=streams + 1)
        async with app.lifespan():
            before = asyncio.all_tasks()
            for _ in range(0, connections, 20):
                async with asyncio.timeout(60):
                    await asyncio.gather(*(talk(app) for _ in range(20)))
            async with asyncio.timeout(20):
                while asyncio.all_tasks() != before:  # noqa: ASYNC110  # no event says that a task is gone
                    await asyncio.sleep(0)

    events.clear()
    asyncio.run(test())
    assert hooks.ended.qsize() == len(hooks.accepted)


def test_no_task_is_left_of_streams_that_are_cut_at_random_moments(hooks: Hooks) -> None:
    cut(hooks, connections=40, streams=10)


def test_no_task_is_left_of_ten_thousand_streams(hooks: Hooks) -> None:
    cut(hooks, connections=1000, streams=10)
