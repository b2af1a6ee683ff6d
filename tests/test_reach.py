"""Users, workers and moderators reach the connections of a service, on whatever node: real processes and engines."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from saq import Queue
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .cases import params
from .engines import EngineServer, RedisServer, started
from .rendering import compile_package, environment, render
from .service import TIMEOUT, Service, add_listener
from .test_fanout import ENGINES, kind_of

LISTENERS = """
from litestar import Router
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from ..realtime import Fanout, Gap, Listener, Socket
from ..state import Connection


class Say(Struct, tag="say"):
    text: str


class Note(Struct, tag="note"):
    text: str


class Progress(Struct, tag="progress"):
    percent: int


class Came(Struct, tag="came"):
    user: str


class Went(Struct, tag="went"):
    user: str


class Inbox(Listener):
    path = "/ws/inbox/{user:str}"
    sends = Note | Progress | Gap

    async def on_accept(
        self, socket: Socket, connection: Connection, user: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        connection.user = user
        await fanout.join_user(socket, after=0)

    async def on_receive(self, data: Say) -> None: ...


class Kitchen(Listener):
    path = "/ws/kitchen/{user:str}"
    sends = Note | Came | Went

    async def on_accept(
        self, socket: Socket, connection: Connection, user: FromPath[str], fanout: NamedDependency[Fanout]
    ) -> None:
        connection.user = user
        await fanout.join(socket, "kitchen")
        await fanout.track(socket, "kitchen", joined=Came(user), left=Went(user))
        await connection.send(Note("here"))

    async def on_receive(self, data: Say, fanout: NamedDependency[Fanout]) -> None:
        await fanout.publish(Note(data.text), "kitchen")


reach = Router("/", route_handlers=[Inbox, Kitchen])
"""

WORKER = """
import os
from contextlib import AsyncExitStack
from typing import Any

from saq import Queue

from .listeners.reach import Progress
from .realtime import Fanout
from .settings import Settings

stack = AsyncExitStack()


async def startup(context: dict[str, Any]) -> None:
    context["fanout"] = await stack.enter_async_context(Fanout.connect(Settings.load()))


async def shutdown(context: dict[str, Any]) -> None:
    await stack.aclose()


async def bake(context: dict[str, Any], *, user: str) -> None:
    for percent in (0, 50, 100):
        await context["fanout"].publish_to_user(Progress(percent), user)


settings = {
    "queue": Queue.from_url(os.environ["QUEUE_URL"]),
    "functions": [bake],
    "startup": startup,
    "shutdown": shutdown,
    # A signal that comes during one of these is seen after its pause, of a minute by default.
    "timers": dict.fromkeys(("schedule", "worker_info", "sweep", "abort"), 1),
}
"""

THREAD = """
from anyio.from_thread import start_blocking_portal

from my_service.listeners.reach import Note
from my_service.realtime import Fanout
from my_service.settings import Settings

with start_blocking_portal() as portal:
    with portal.wrap_async_context_manager(Fanout.connect(Settings.load())) as fanout:
        first = fanout.publish(Note("from a thread"), "kitchen").result()
        fanout.publish_to_user(Note("for you"), "ada")
        assert fanout.publish(Note("and one more"), "kitchen").result() == first + 1
"""

SCRIPT = """
import asyncio

from my_service.listeners.reach import Note
from my_service.realtime import Fanout
from my_service.settings import Settings

async def main() -> None:
    async with Fanout.connect(Settings.load()) as fanout:
        {}

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def project_of(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Render a project for an engine, once, with listeners and a worker. Do not change it."""

    @cache
    def project_of(fanout: str) -> Path:
        project = render(template, tmp_path_factory.mktemp(f"reach-{fanout}") / "my-service", fanout=fanout)
        add_listener(project, "reach", LISTENERS)
        (project / "src" / "my_service" / "worker.py").write_text(WORKER)
        environment(project)
        compile_package(project)
        return project

    return project_of


class Reach:
    """Nodes of a service with one engine, and what runs beside them."""

    def __init__(self, project: Path, url: str, stack: ExitStack) -> None:
        self.project = project
        self.environment = environment(project) | {"MY_SERVICE_FANOUT_URL": url}
        self._url = url
        self._stack = stack

    def node(self) -> Service:
        service = Service(self.project, fanout_url=self._url)
        self._stack.callback(service.stop)
        return service

    def connect(self, node: Service, path: str) -> ClientConnection:
        """Connect; the service has done its `on_accept`."""
        client = self._stack.enter_context(connect(node.url(path), open_timeout=TIMEOUT))
        if path.startswith("/ws/kitchen/"):
            while receive(client) != {"type": "note", "text": "here"}:
                pass
        return client

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=False,
        )

    def script(self, *lines: str) -> None:
        """Run code in a process of its own, with a `fanout` that is connected."""
        result = self.run("-c", SCRIPT.format("\n        ".join(lines)))
        assert result.returncode == 0, result.stderr


@pytest.fixture(params=params(ENGINES.keys(), {"redis"}))
def engine(request: pytest.FixtureRequest) -> Iterator[EngineServer]:
    with started(ENGINES[request.param]()) as server:
        yield server


@pytest.fixture
def reach(engine: EngineServer, project_of: Callable[[str], Path]) -> Iterator[Reach]:
    with ExitStack() as stack:
        yield Reach(project_of(kind_of(engine.url)), engine.url, stack)


def receive(client: ClientConnection, kind: str = "") -> dict[str, Any]:
    """Return the next message, or the next of a kind."""
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
        if not kind or message["type"] == kind:
            return message


def texts(client: ClientConnection, number: int) -> list[str]:
    return [receive(client, "note")["text"] for _ in range(number)]


def test_all_devices_of_a_user_receive_on_every_node_and_resume(reach: Reach) -> None:
    nodes = [reach.node(), reach.node()]
    devices = [reach.connect(node, "/ws/inbox/ada") for node in nodes]
    other = reach.connect(nodes[0], "/ws/inbox/user:ada")
    kitchen = reach.connect(nodes[1], "/ws/kitchen/ada")
    reach.script(
        'await fanout.publish_to_user(Note("1"), "ada")',
        'await fanout.publish(Note("room"), "user:ada")',
        'await fanout.publish_to_user(Note("2"), "ada")',
        'await fanout.publish_to_user(Note("other"), "user:ada")',
        'fanout.publish(Note("not awaited"), "kitchen")',
    )
    assert [texts(device, 2) for device in devices] == [["1", "2"]] * 2
    assert texts(other, 1) == ["other"]
    assert texts(kitchen, 1) == ["not awaited"], "who leaves the context waits for it"
    assert texts(reach.connect(nodes[1], "/ws/inbox/ada"), 2) == ["1", "2"], "what came before is kept"


def test_a_thread_publishes_without_an_event_loop_of_its_own(reach: Reach) -> None:
    node = reach.node()
    inbox, kitchen = reach.connect(node, "/ws/inbox/ada"), reach.connect(node, "/ws/kitchen/eve")
    result = reach.run("-c", THREAD)
    assert result.returncode == 0, result.stderr
    assert texts(kitchen, 2) == ["from a thread", "and one more"]
    assert texts(inbox, 1) == ["for you"]


def test_the_command_publishes(reach: Reach, engine: EngineServer) -> None:
    node = reach.node()
    inbox, kitchen = reach.connect(node, "/ws/inbox/ada"), reach.connect(node, "/ws/kitchen/eve")
    publish = ["-m", "my_service.realtime", "publish"]
    results = [
        reach.run(*publish, "kitchen", '{"type":"note","text":"caf\u00e9"}'),
        reach.run(*publish, "ada", '{"type":"note","text":"for you"}', "--user"),
    ]
    assert [result.returncode for result in results] == [0, 0], results
    assert [int(result.stdout) > 0 for result in results] == [True, True], "the output is the sequence alone"
    assert (texts(kitchen, 1), texts(inbox, 1)) == (["caf\u00e9"], ["for you"])
    for wrong in ("[]", "{", '{"type":"note"', "\udcff", '{"a":' + "[" * 2000):
        refused = reach.run(*publish, "kitchen", wrong)
        assert (refused.returncode, "not a JSON object" in refused.stderr) == (2, True), refused.stderr
    for reserved in ("ref", "sequence"):
        refused = reach.run(*publish, "kitchen", f'{{"{reserved}":5}}')
        assert (refused.returncode, f"the service itself adds the field '{reserved}'" in refused.stderr) == (2, True)
    assert reach.run(*publish, "x" * 256, "{}").returncode == 2
    engine.kill()
    reach.environment["MY_SERVICE_PUBLISH_SECONDS"] = "0.2"
    failed = reach.run(*publish, "kitchen", "{}")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "The message was not sent: the engine of the fan-out is unavailable.\nFix: start the engine" in failed.stderr


def test_the_command_says_that_memory_reaches_nobody(project_of: Callable[[str], Path]) -> None:
    with ExitStack() as stack:
        nowhere = Reach(project_of("redis"), "memory://", stack)
        failed = nowhere.run("-m", "my_service.realtime", "publish", "kitchen", "{}")
    assert failed.returncode == 1
    assert "Fanout.connect reaches no client" in failed.stderr
    assert "Traceback" not in failed.stderr


@contextmanager
def working(reach: Reach, queue_url: str) -> Generator[None]:
    """Run a worker of SAQ."""
    command = [sys.executable, "-m", "saq", "my_service.worker.settings"]
    worker = subprocess.Popen(command, cwd=reach.project, env=reach.environment | {"QUEUE_URL": queue_url})
    try:
        yield
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=TIMEOUT) == 0
    finally:
        worker.kill()
        worker.wait(timeout=TIMEOUT)


def test_a_client_follows_the_progress_of_a_worker(project_of: Callable[[str], Path]) -> None:
    async def enqueue(url: str) -> None:
        queue = Queue.from_url(url)
        await queue.connect()
        await queue.enqueue("bake", user="ada")
        await queue.disconnect()

    with started(RedisServer()) as server, ExitStack() as stack:
        reach = Reach(project_of("redis"), server.url, stack)
        inbox = reach.connect(reach.node(), "/ws/inbox/ada")
        with working(reach, server.url):
            asyncio.run(enqueue(server.url))
            assert [receive(inbox)["percent"] for _ in range(3)] == [0, 50, 100]


def test_a_user_is_put_out_of_a_room_on_every_node_and_told_why(reach: Reach) -> None:
    nodes = [reach.node(), reach.node()]
    tabs = [reach.connect(node, "/ws/kitchen/ada") for node in nodes]
    inbox = reach.connect(nodes[0], "/ws/inbox/ada")
    eve = reach.connect(nodes[1], "/ws/kitchen/eve")
    reach.script('await fanout.remove("ada", "kitchen", "spam")', 'await fanout.remove("ada", "elsewhere")')
    told = {"type": "error", "code": "removed", "detail": "spam", "extra": {"channel": "kitchen"}}
    assert [receive(tab, "error") for tab in tabs] == [told, told]
    assert receive(eve, "went") == {"type": "went", "user": "ada"}
    tabs[0].send('{"type":"say","text":"without me"}')
    assert texts(eve, 1) == ["without me"]
    reach.script('assert await fanout.present("kitchen") == ["eve"]', 'await fanout.publish_to_user(Note("hi"), "ada")')
    assert texts(inbox, 1) == ["hi"], "the connections stay open"
    reach.script('await fanout.disconnect("ada", "bye")')
    for client in (*tabs, inbox):
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(timeout=TIMEOUT)
        assert ended.value.rcvd
        assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, "bye")
    eve.send('{"type":"say","text":"still here"}')
    assert texts(eve, 1) == ["still here"]
