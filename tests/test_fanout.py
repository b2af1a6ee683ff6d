"""One room over several processes, with real engines that are killed, frozen, absent and wrong."""

import asyncio
import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4
from zlib import crc32

import jwt
import psycopg
import pytest
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_now

from .browser import network
from .cases import params
from .crowd import CROWD
from .engines import (
    Certificates,
    EngineServer,
    Pooler,
    PostgresReplica,
    PostgresServer,
    RedisCluster,
    RedisSentinels,
    RedisServer,
    begin,
    free_port,
    started,
)
from .rendering import Renders, compile_package, environment, render
from .service import MEBIBYTE, TIMEOUT, Service, add_listener, handshake, reset, running

ENGINES: dict[str, Callable[[], EngineServer]] = {"redis": RedisServer, "postgres": PostgresServer}
SINGLE_SERVERS = pytest.mark.parametrize("engine", ENGINES, indirect=True)
"""For tests that look into the one server of an engine."""
ONE_ENGINE = pytest.mark.parametrize("engine", params([*ENGINES, "cluster"], {"redis"}), indirect=True)
"""For tests that take long, or in which the engines differ little: those with the other engines are `exhaustive`."""
Nodes = Callable[..., list[Service]]

MAX_CHANNELS = 10_000
"""Channels whose history is kept in memory."""


def kind_of(url: str) -> str:
    """Return the answer to the question `fanout` that a URL needs."""
    return "postgres" if url.startswith("postgres") else "redis" if url else "memory"


Crowded = Callable[[str], Path]


@pytest.fixture(scope="session")
def crowded(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Crowded:
    """Render a project for an engine, once, with a listener that does with a room what it is told. Do not change it."""

    @cache
    def crowded(fanout: str) -> Path:
        project = render(template, tmp_path_factory.mktemp(f"crowded-{fanout}") / "my-service", fanout=fanout)
        add_listener(project, "crowd", CROWD)
        environment(project)
        compile_package(project)
        return project

    return crowded


@pytest.fixture(params=params([*ENGINES, "cluster"], ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[EngineServer]:
    with started(RedisCluster() if request.param == "cluster" else ENGINES[request.param]()) as server:
        yield server


@pytest.fixture
def redis() -> Iterator[EngineServer]:
    """A Redis that keeps nothing over a restart."""
    with started(RedisServer(appends=False)) as server:
        yield server


@pytest.fixture
def nodes(crowded: Crowded) -> Iterator[Nodes]:
    """Start so many processes of the service, with the engine of a URL, or with none."""
    with ExitStack() as stack:

        def nodes(count: int, url: str = "", **settings: object) -> list[Service]:
            if url:
                settings["fanout_url"] = url
            started = [Service(crowded(kind_of(url)), **settings) for _ in range(count)]
            for service in started:
                stack.callback(service.stop)
            return started

        yield nodes


SECRET = "s" * 32


def bearer(user: str, seconds: float = 3600) -> dict[str, str]:
    """Return the header with a token of a user."""
    now = datetime.now(UTC)
    claims = {"sub": user, "iat": now, "exp": now + timedelta(seconds=seconds), "jti": uuid4().hex}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


def log_out(service: Service, token: dict[str, str]) -> int:
    """Return the status of the answer."""
    try:
        request = Request(f"http://{service.address}/logout", method="POST", headers=token)
        with urlopen(request, timeout=TIMEOUT) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def guarded(renders: Renders) -> Iterator[Nodes]:
    """Start so many processes of a service that needs a token, with the engine of a URL."""
    with ExitStack() as stack:

        def guarded(count: int, url: str, **settings: object) -> list[Service]:
            settings |= {"fanout_url": url, "auth_secret": SECRET}
            project = renders.of(auth="jwt", fanout=kind_of(url))
            return [stack.enter_context(running(project, **settings)) for _ in range(count)]

        yield guarded


class Client:
    """A client of one room."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._early: list[dict[str, Any]] = []

    async def receive(self, kind: str = "") -> dict[str, Any]:
        """Return the next message, or the next of a kind."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                message: dict[str, Any] = (
                    self._early.pop(0) if self._early else json.loads(await self.connection.recv())
                )
                if not kind or message["type"] == kind:
                    return message

    async def wait_until_joined(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            while (message := json.loads(await self.connection.recv())) != {"type": "answer", "text": "here"}:
                self._early.append(message)

    async def tell(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def say(self, text: str, **more: Any) -> None:
        await self.tell(type="say", text=text, **more)


class Crowd(AsyncExitStack):
    """Clients that leave together."""

    async def join(self, service: Service, path: str, **options: Any) -> Client:
        client = Client(await self.enter_async_context(connect(service.url(path), **options)))
        if path.startswith("/ws/crowd/"):
            await client.wait_until_joined()
        return client


def up(service: Service) -> tuple[int, bool]:
    """Return what /ready and /metrics say of the engine."""
    return service.get("/ready")[0], "fanout_engine_available 1.0" in service.get("/metrics")[1]


def counted(service: Service, name: str) -> float:
    [line] = [line for line in service.get("/metrics")[1].splitlines() if line.startswith(f"fanout_{name} ")]
    return float(line.split()[1])


def test_a_room_is_one_room_on_three_nodes(engine: EngineServer, nodes: Nodes) -> None:
    async def talk() -> list[list[str]]:
        async with Crowd() as crowd:
            clients = [await crowd.join(node, "/ws/crowd/hall") for node in three]
            for number in range(20):
                for name, client in zip("abc", clients, strict=True):
                    await client.say(f"{name} {number}")
            return [[(await client.receive("said"))["text"] for _ in range(60)] for client in clients]

    three = nodes(3, engine.url)
    one, *others = asyncio.run(talk())
    assert [one, one] == others, "not all received the same, in the same order"
    for name in "abc":
        assert [text for text in one if text[0] == name] == [f"{name} {number}" for number in range(20)]


@ONE_ENGINE
def test_a_sender_can_leave_itself_out_and_leave(engine: EngineServer, nodes: Nodes) -> None:
    async def talk() -> None:
        async with Crowd() as crowd:
            me, other = [await crowd.join(node, "/ws/crowd/hall") for node in two]
            await me.say("for others", alone=True)
            await me.say("for all")
            assert (await other.receive("said"))["text"] == "for others"
            assert [(await me.receive())["type"] for _ in range(3)].count("said") == 1, "it received its own message"
            await me.tell(type="leave")
            assert await me.receive() == {"type": "answer", "text": "done"}
            await other.say("without you")
            assert (await other.receive("said"))["text"] == "for all"
            assert (await other.receive("said"))["text"] == "without you"
            await me.tell(type="join")
            assert await me.receive() == {"type": "answer", "text": "done"}, "joined, and nothing of what came before"
            await other.say("with you")
            while (text := (await me.receive("said"))["text"]) != "with you":
                assert text == "without you"  # it may have been on its way

    two = nodes(2, engine.url)
    asyncio.run(talk())


def test_200_clients_receive_again_when_the_engine_was_killed(engine: EngineServer, nodes: Nodes) -> None:
    async def outlive() -> None:
        async with Crowd() as crowd:
            clients = [await crowd.join(node, "/ws/crowd/hall") for node in two for _ in range(100)]
            await clients[0].say("before")
            assert {(await client.receive("said"))["text"] for client in clients} == {"before"}
            engine.kill()
            for node in two:
                await asyncio.to_thread(node.wait_for, "engine unavailable")
            assert [up(node) for node in two] == [(503, False)] * 2
            await clients[0].say("meanwhile")  # it waits for the engine
            engine.start()
            for node in two:
                await asyncio.to_thread(node.wait_for, "engine available again")
            assert {(await client.receive("said"))["text"] for client in clients} == {"meanwhile"}
            late = await crowd.join(two[1], "/ws/crowd/hall")
            await late.say("after")
            assert {(await client.receive("said"))["text"] for client in [*clients, late]} == {"after"}
            assert [up(node) for node in two] == [(200, True)] * 2
            assert {counted(node, "gaps_total") for node in two} == {0}

    two = nodes(2, engine.url, publish_seconds=TIMEOUT)
    asyncio.run(outlive())
    for node in two:
        assert node.ended(signal.SIGTERM) == 0
        lines = [(line["event"], line["level"]) for line in node.log if line["event"].startswith("engine")]
        assert lines == [
            ("engine available", "info"),
            ("engine unavailable", "error"),
            ("engine available again", "info"),
        ]
        assert not any("exception" in line for line in node.log)
        ends = {line["reason"] for line in node.happened("connection closed")}
        assert ends == {"client_closed"}, "a client had to come back"


@ONE_ENGINE
def test_while_the_engine_is_frozen_a_message_fails_loudly_and_then_all_is_well(
    engine: EngineServer, nodes: Nodes
) -> None:
    async def thaw() -> None:
        async with Crowd() as crowd:
            clients = [await crowd.join(node, "/ws/crowd/hall") for node in two]
            engine.freeze()
            try:
                await clients[0].say("lost")
                assert "unavailable" in (await clients[0].receive("answer"))["text"]
                for node in two:
                    await asyncio.to_thread(node.wait_for, "engine unavailable")
                assert [up(node) for node in two] == [(503, False)] * 2
            finally:
                engine.thaw()
            for node in two:
                await asyncio.to_thread(node.wait_for, "engine available again")
            await clients[0].say("received")
            received = [(await client.receive("said"))["text"] for client in clients]
            if received != ["received", "received"]:  # what was frozen on its way was taken after all
                assert received == ["lost", "lost"]
                assert [(await client.receive("said"))["text"] for client in clients] == ["received", "received"]

    two = nodes(2, engine.url, publish_seconds=0.5, presence_seconds=1)
    asyncio.run(thaw())


@pytest.mark.parametrize("kind", ENGINES)
def test_without_an_engine_the_service_waits_for_it(kind: str, nodes: Nodes) -> None:
    async def wait() -> None:
        async with Crowd() as crowd:
            with pytest.raises(ConnectionClosed) as closed:
                await crowd.join(node, "/ws/crowd/hall")
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1013
            begin(server)
            await asyncio.to_thread(node.wait_for, "engine available again")
            late = await crowd.join(node, "/ws/crowd/hall")
            await late.say("hi")
            assert (await late.receive("said"))["text"] == "hi"

    server = ENGINES[kind]()
    try:
        [node] = nodes(1, server.url, publish_seconds=0.2)
        assert up(node) == (503, False)
        assert node.get("/health")[0] == 200
        asyncio.run(wait())
        assert up(node) == (200, True)
    finally:
        server.remove()
    assert node.ended(signal.SIGTERM) == 0, "it hangs without its engine"
    assert len(node.happened("engine unavailable")) == 2, "once for each time that it went"
    assert not any("exception" in line for line in node.log)


def refused(project: Path, url: str) -> str:
    """Start the service with a URL that is wrong; return the one line that it writes."""
    settings = {"MY_SERVICE_FANOUT_URL": url, "MY_SERVICE_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "my_service", "--port", "0"]
    result = subprocess.run(
        command,
        env=environment(project) | settings,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("my-service: MY_SERVICE_FANOUT_URL: ")
    assert "secret" not in line
    return line


@pytest.mark.parametrize(
    ("fanout", "url", "complaint"),
    [
        ("redis", "kafka://127.0.0.1", "write redis://host:6379/0, or memory://"),
        ("redis", "127.0.0.1:6379", "write redis://host:6379/0, or memory://"),
        ("redis", "postgresql://127.0.0.1/service", "write redis://host:6379/0, or memory://"),
        ("postgres", "redis://127.0.0.1", "write postgresql://user:password@host:5432/database, or memory://"),
        ("redis", "redis://:secret/1@127.0.0.1:6379", "the port is wrong; in a password, write / # ? and @ as %2F"),
    ],
)
def test_a_url_that_is_none_is_one_line(crowded: Crowded, fanout: str, url: str, complaint: str) -> None:
    assert complaint in refused(crowded(fanout), url)


def test_a_wrong_user_password_or_database_is_one_line(crowded: Crowded) -> None:
    with started(RedisServer(password="right")) as redis, started(PostgresServer()) as postgres:  # noqa: S106
        redis_at, postgres_at = f"127.0.0.1:{redis.port}", f"127.0.0.1:{postgres.port}"
        assert "Redis says" in refused(crowded("redis"), f"redis://{redis_at}/0")
        assert "Redis says" in refused(crowded("redis"), f"redis://:secret@{redis_at}/0")
        assert "Redis says" in refused(crowded("redis"), f"redis://:right@{redis_at}/99")
        wrong = refused(crowded("postgres"), f"postgresql://service:secret-not@{postgres_at}/postgres")
        assert "password authentication failed" in wrong
        assert "does not exist" in refused(
            crowded("postgres"), postgres.url.removesuffix("postgres") + "nowhere"
        ).replace("secret", "")


def test_a_pooler_is_refused_by_name(crowded: Crowded) -> None:
    with started(PostgresServer()) as server, started(Pooler(server)) as pooler:
        assert "a pooler such as pgbouncer is in between" in refused(crowded("postgres"), pooler.url)


@pytest.fixture
def certificates() -> Iterator[Certificates]:
    made = Certificates()
    yield made
    made.remove()


TLS: dict[str, Callable[[Certificates], RedisServer | PostgresServer]] = {
    "redis": lambda certificates: RedisServer(password="secret", certificates=certificates),  # noqa: S106
    "sentinels": lambda certificates: RedisSentinels(password="secret", certificates=certificates),  # noqa: S106
    "cluster": lambda certificates: RedisCluster(certificates=certificates),
    "postgres": lambda certificates: PostgresServer(certificates=certificates),
}


@pytest.mark.parametrize("kind", params(TLS.keys(), ENGINES))
def test_over_tls_two_nodes_talk_and_a_wrong_certificate_is_one_line(
    kind: str, certificates: Certificates, nodes: Nodes, crowded: Crowded
) -> None:
    async def talk() -> None:
        async with Crowd() as crowd:
            clients = [await crowd.join(node, "/ws/crowd/hall") for node in two]
            await clients[0].say("hi")
            assert {(await client.receive("said"))["text"] for client in clients} == {"hi"}

    with started(TLS[kind](certificates)) as server:
        two = nodes(2, server.url)
        asyncio.run(talk())
        project, authority = crowded(kind_of(server.url)), str(certificates.authority)
        wrong = Certificates()
        try:
            assert re.search(
                "certificate.verify.failed", refused(project, server.url.replace(authority, str(wrong.authority)))
            )
        finally:
            wrong.remove()
        missing = refused(project, server.url.replace(authority, "/nowhere.pem"))
        assert "ssl_ca_certs" in missing or "nowhere.pem" in missing


@pytest.mark.parametrize("kind", ENGINES)
def test_a_certificate_for_another_host_is_named_in_the_log(kind: str, nodes: Nodes) -> None:
    certificates = Certificates("192.0.2.1")
    server = TLS[kind](certificates)
    try:
        [node] = nodes(1, server.url)  # the engine starts later, and so the service does
        server.answers = lambda: True  # type: ignore[method-assign]  # nobody but the service is to trust it
        begin(server)
        line = node.wait_for("engine refuses the connection")
        assert "certificate" in line["detail"].lower()
        assert "secret" not in line["detail"]
        assert up(node) == (503, False)
    finally:
        server.remove()
        certificates.remove()


def test_a_node_that_dies_is_noticed_and_its_members_leave_once(engine: EngineServer, nodes: Nodes) -> None:
    async def mourn() -> None:
        async with Crowd() as crowd:
            clients: list[Client] = []
            lost = ""
            for node in (lives, lives, dies):
                clients.append(await crowd.join(node, "/ws/rooms/hall"))
                lost = (await clients[-1].receive("joined"))["connection"]  # its own: the others have joined before
            dies.stop()
            for client in clients[:2]:
                assert (await client.receive("left")) == {"type": "left", "room": "hall", "connection": lost}
                await client.say("still here")
            for client in clients[:2]:
                received = [(await client.receive())["type"] for _ in range(2)]
                assert received == ["said", "said"], "it left twice"

    lives, dies = nodes(2, engine.url, presence_seconds=1)
    asyncio.run(mourn())


@ONE_ENGINE
def test_states_are_listed_first_on_every_node_and_end_with_a_node_that_dies(
    engine: EngineServer, nodes: Nodes
) -> None:
    async def meet() -> None:
        async with Crowd() as crowd:
            staying, dying = await crowd.join(lives, "/ws/crowd/hall"), await crowd.join(dies, "/ws/crowd/hall")
            for client, status in ((staying, "here"), (dying, "there"), (dying, "typing")):
                await client.tell(type="be", status=status)
                for each in (staying, dying):
                    assert await each.receive("member") == {"type": "member", "status": status}
            for node, known in ((lives, {"here", "typing"}), (dies, {"here", "typing"}), (lives, {"here"})):
                late = await crowd.join(node, "/ws/crowd/hall?states=true")
                assert {(await late.receive("member"))["status"] for _ in known} == known
                await staying.say(f"seen {len(known)}")
                assert (await late.receive())["type"] == "said", "it came twice"
                if node is dies:
                    dies.stop()
                    await staying.receive("gone")

    lives, dies = nodes(2, engine.url, presence_seconds=1)
    asyncio.run(meet())


@ONE_ENGINE
def test_of_the_states_that_a_user_has_on_two_nodes_the_latest_is_heard_last_and_few_in_between(
    engine: EngineServer, nodes: Nodes
) -> None:
    async def be(tab: Client, *statuses: str) -> None:
        for status in statuses:
            await tab.tell(type="be", status=status)
            await tab.receive("answer")

    async def change() -> None:
        async with Crowd() as crowd:
            slow, other = [await crowd.join(node, "/ws/crowd/hall?user=ada") for node in patient]
            listener = await crowd.join(patient[0], "/ws/crowd/hall?user=eve")
            await be(slow, "1", "2")
            await be(other, "3")
            await other.say("an hour has not passed")
            assert [(await listener.receive())["type"] for _ in range(2)] == ["member", "said"]
            late = await crowd.join(patient[0], "/ws/crowd/hall?states=true")
            assert (await late.receive("member"))["status"] == "3"
            tabs = [await crowd.join(node, "/ws/crowd/hall?user=ada") for node in quick]
            await be(tabs[0], "4", "5")
            await be(tabs[1], "6")
            while (status := (await listener.receive("member"))["status"]) != "6":
                assert status in {"3", "4", "5"}
            await be(tabs[0], "7")
            assert (await listener.receive("member"))["status"] == "7", "an older one came later"

    patient, quick = nodes(2, engine.url, presence_state_seconds=3600), nodes(2, engine.url, presence_state_seconds=1)
    asyncio.run(change())


@ONE_ENGINE
def test_a_user_comes_and_goes_once_for_all_nodes_and_tabs(engine: EngineServer, guarded: Nodes) -> None:
    async def receive_nothing_before(client: Client, text: str) -> None:
        while (message := await client.receive()).get("text") != text:
            assert message["type"] == "said", "one user came or went twice"

    async def come_and_go(one: Service, other: Service) -> None:
        async with Crowd() as crowd:
            watcher = await crowd.join(one, "/ws/rooms/hall", additional_headers=bearer("watcher"))
            await watcher.receive("joined")
            ada = bearer("ada")
            async with Crowd() as tabs:
                first = await tabs.join(one, "/ws/rooms/hall", additional_headers=ada)
                joined = await first.receive("joined")
                assert await watcher.receive() == joined
                further: list[Client] = []
                for name, node in (("second", one), ("third", other)):
                    tab = await tabs.join(node, "/ws/rooms/hall", additional_headers=ada)
                    await tab.say(name)  # whoever receives itself has joined; nothing else tells of a further tab
                    for client in (watcher, tab):
                        await receive_nothing_before(client, name)
                    further.append(tab)
                second, third = further
                await first.connection.close()
                await third.say("still here")
                for client in (watcher, second, third):
                    await receive_nothing_before(client, "still here")
                assert await asyncio.to_thread(log_out, one, ada) == 204
                for client in (second, third):
                    with pytest.raises(ConnectionClosed) as closed:
                        await client.receive("never")
                    assert closed.value.rcvd
                    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "logged out")
            assert await watcher.receive() == {"type": "left", "room": "hall", "connection": joined["connection"]}

    asyncio.run(come_and_go(*guarded(2, engine.url)))


@SINGLE_SERVERS
@pytest.mark.parametrize("history", [0, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_a_node_that_was_cut_off_or_starts_later_knows_who_was_logged_out(
    engine: EngineServer, guarded: Nodes, history: int
) -> None:
    there = f"127.0.0.1:{engine.port}"
    with network(there) as way:
        [near] = guarded(1, engine.url, history=history)
        [far] = guarded(1, engine.url.replace(there, way.address), history=history, publish_seconds=0.5)
        leaving = [bearer(f"user {number}") for number in range(130)]
        last = bearer("ada", seconds=7200)  # what is kept is read in the order in which it expires
        staying = bearer("eve")
        with connect_now(far.url("/ws/echo"), additional_headers=last) as connection:
            way.target = f"127.0.0.1:{free_port()}"
            way.cut()
            far.wait_for("engine unavailable")
            assert log_out(far, staying) == 503, "nobody could be told"
            assert {log_out(near, each) for each in (*leaving, last)} == {204}
            way.target = there
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(timeout=TIMEOUT)
            assert closed.value.rcvd
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "logged out")
        [late] = guarded(1, engine.url, history=history)
        for node in (far, late):
            assert {log_out(node, each) for each in (*leaving, last)} == {401}
        assert log_out(far, staying) == 204, "the token was as good as ever"


@SINGLE_SERVERS
def test_a_node_behind_a_silent_partition_is_not_ready_and_heals_without_a_loss_or_a_duplicate(
    engine: EngineServer, nodes: Nodes
) -> None:
    there = f"127.0.0.1:{engine.port}"

    async def texts_until(client: Client, last: str) -> list[str]:
        texts: list[str] = []
        while not texts or texts[-1] != last:
            message = await client.receive()
            texts += [] if message["type"] == "answer" else [message.get("text", "gap")]
        return texts

    async def part() -> None:
        async with Crowd() as crowd:
            here, afar = [await crowd.join(node, "/ws/crowd/hall?after=0") for node in (near, far)]
            for number in range(10):
                await here.say(f"before {number}")
            while (await afar.receive("said"))["text"] != "before 9":
                pass
            way.stall()
            await afar.say("from afar")  # it is on its way when nothing gets through any more
            for number in range(10):
                await here.say(f"meanwhile {number}")
            await asyncio.to_thread(far.wait_for, "engine unavailable")
            assert up(far) == (503, False)
            assert up(near) == (200, True)
            way.flow()
            await asyncio.to_thread(far.wait_for, "engine available again")
            assert up(far) == (200, True)
            first = await texts_until(here, "from afar")  # it is tried again
            await here.say("last")
            received = [[*first, *await texts_until(here, "last")][-12:], (await texts_until(afar, "last"))[-12:]]
            assert received[0] == received[1]
            assert sorted(received[0]) == ["from afar", "last", *(f"meanwhile {number}" for number in range(10))]

    with network(there) as way:
        [near] = nodes(1, engine.url, publish_seconds=60)
        [far] = nodes(1, engine.url.replace(there, way.address), publish_seconds=60)
        asyncio.run(part())


class Forger:
    """Somebody else who may read and write on the server of the engine, but knows no secret of the service."""

    def __init__(self, url: str) -> None:
        self._channel: Any = "my_service"
        if url.startswith("redis"):
            self._client: Any = cast("Any", Redis).from_url(url)  # its types are partly unknown
            self._received: Any = self._client.pubsub(ignore_subscribe_messages=True)
            self._received.psubscribe("*")
            self._received.get_message(timeout=TIMEOUT)
        else:
            self._client = psycopg.connect(url, autocommit=True)
            self._client.execute("LISTEN my_service")
            self._received = None

    def receive(self, text: str) -> str:
        """Return the next notification in which there is a text."""
        deadline = monotonic() + TIMEOUT
        while monotonic() < deadline:
            if self._received is None:
                payloads = [each.payload for each in self._client.notifies(timeout=TIMEOUT, stop_after=1)]
            else:
                message = self._received.get_message(timeout=TIMEOUT) or {"channel": b"", "data": b""}
                self._channel, payloads = message["channel"], [message["data"].decode()]
            for payload in payloads:
                if text in payload:
                    return str(payload)
        raise AssertionError(f"nobody said {text}")

    def say(self, payload: str) -> None:
        """Notify all nodes."""
        if self._received is None:
            self._client.execute("SELECT pg_notify(%s, %s)", [self._channel, payload])
        else:
            self._client.publish(self._channel, payload)

    def close(self) -> None:
        self._client.close()


@SINGLE_SERVERS
def test_a_forged_logout_is_dropped_and_a_real_one_is_not(engine: EngineServer, guarded: Nodes) -> None:
    one, other = guarded(2, engine.url)
    ada = bearer("ada")
    with (
        closing(Forger(engine.url)) as forger,
        connect_now(other.url("/ws/echo"), additional_headers=ada) as connection,
    ):
        assert log_out(one, bearer("eve")) == 204
        [(sequence, head, signature, message)] = re.findall(r"^(\d+)( .* )(.*?)(\{.*)", forger.receive('"eve"'))
        for number, signed in enumerate([signature, "", "x" * len(signature)], start=1):
            forger.say(f"{int(sequence) + number}{head}{signed}{message.replace('eve', 'ada')}")
        deadline = monotonic() + TIMEOUT
        while counted(other, "notifications_dropped_total") < 3:
            assert monotonic() < deadline, "it was not dropped"
            sleep(0.02)
        connection.send('{"type":"say","text":"still here"}')
        assert json.loads(connection.recv(timeout=TIMEOUT))["text"] == "still here"
        assert log_out(one, ada) == 204
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=TIMEOUT)
    assert counted(other, "engine_connections_lost_total") == 0


def test_who_comes_back_to_another_node_receives_what_was_missed_once_and_in_order(
    engine: EngineServer, nodes: Nodes
) -> None:
    async def come_back() -> None:
        async with Crowd() as crowd:
            speaker = await crowd.join(one, "/ws/crowd/hall")
            await speaker.tell(type="pour", messages=3)
            gone = await crowd.join(one, "/ws/crowd/hall?after=0")
            before = [await gone.receive("said") for _ in range(3)]
            assert [message["text"] for message in before] == ["0 ", "1 ", "2 "], "not all that is kept"
            first = before[0]["sequence"]
            assert [message["sequence"] for message in before] == [first, first + 1, first + 2]
            await gone.connection.close()
            await speaker.tell(type="pour", messages=10)
            assert [(await speaker.receive("answer"))["text"] for _ in range(2)] == ["done", "done"]
            back = await crowd.join(other, f"/ws/crowd/hall?after={first + 2}")
            await speaker.say("now")
            received = [await back.receive() for _ in range(11)]
            assert [message["text"] for message in received] == [*[f"{number} " for number in range(10)], "now"]
            assert [message["sequence"] for message in received] == [*range(first + 3, first + 14)]
            current = await crowd.join(other, f"/ws/crowd/hall?after={first + 13}")
            await speaker.say("and now")
            assert (await current.receive())["text"] == "and now", "it missed nothing"

    one, other = nodes(2, engine.url, history=20)
    asyncio.run(come_back())


def test_who_was_away_for_too_long_is_told_of_the_gap(engine: EngineServer, nodes: Nodes) -> None:
    async def come_back() -> None:
        async with Crowd() as crowd:
            speaker = await crowd.join(node, "/ws/crowd/hall")
            await speaker.say("first")
            gone = await crowd.join(node, "/ws/crowd/hall?after=0")
            last = (await gone.receive("said"))["sequence"]
            await gone.connection.close()
            await speaker.tell(type="pour", messages=30)
            while (await speaker.receive())["text"] != "29 ":
                pass  # what is published has not arrived yet, and nobody misses what arrives after they joined
            back = await crowd.join(node, f"/ws/crowd/hall?after={last}")
            assert await back.receive("gap") == {"type": "gap", "channel": "hall", "missed": 20}
            assert [(await back.receive("said"))["sequence"] for _ in range(10)] == [*range(last + 21, last + 31)]
            elsewhere = await crowd.join(node, f"/ws/crowd/other?after={last}")
            assert await elsewhere.receive("gap") == {"type": "gap", "channel": "other", "missed": None}

    [node] = nodes(1, engine.url, history=10)
    asyncio.run(come_back())


def test_a_message_of_any_size_and_a_room_of_any_name(engine: EngineServer, nodes: Nodes) -> None:
    async def talk() -> None:
        async with Crowd() as crowd:
            for name in ("%00", "%20", "..%2e", "%F0%9F%9A%80", "a%0Ab", "%25s", "*", "a" * 255):
                clients = [await crowd.join(node, f"/ws/crowd/{name}") for node in two]
                for size in (1, 7700, 7800, 7900, 8000, 8100, 60000):
                    text = "é\\u0000🚀 " + "x" * size
                    await clients[0].say(text)
                    assert {(await client.receive("said"))["text"] for client in clients} == {text}
            with pytest.raises(ConnectionClosed) as closed:
                await crowd.join(two[0], f"/ws/crowd/{'a' * 256}")
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1008

    two = nodes(2, engine.url)
    asyncio.run(talk())
    assert not any(node.complaints for node in two)


def test_large_messages_are_received_or_told_as_a_gap(engine: EngineServer, nodes: Nodes) -> None:
    senders, messages = 5, 80

    async def count(client: Client) -> int:
        received = 0
        while received < senders * messages:
            message = await client.receive()
            received += message["missed"] if message["type"] == "gap" else message["type"] == "said"
        return received

    async def pour() -> list[int]:
        async with Crowd() as crowd:
            clients = [await crowd.join(node, "/ws/crowd/hall") for node in two for _ in range(senders)]
            for client in clients[:senders]:
                await client.tell(type="pour", messages=messages, size=9000)
            return await asyncio.gather(*[count(client) for client in clients])

    two = nodes(2, engine.url)
    assert set(asyncio.run(pour())) == {senders * messages}


@pytest.mark.exhaustive
def test_200_clients_who_want_a_large_history_and_reset_harm_nobody(engine: EngineServer, nodes: Nodes) -> None:
    def connect_and_reset() -> None:
        for _ in range(200):
            reset(node.open_raw("/ws/crowd/loud?after=0", SO_RCVBUF=4096))

    async def attack() -> None:
        async with Crowd() as crowd:
            bystander = await crowd.join(node, "/ws/crowd/quiet")
            loud = await crowd.join(node, "/ws/crowd/loud?after=0")
            await loud.tell(type="pour", messages=100, size=60_000)
            while (await loud.receive())["type"] != "answer":
                pass
            before = node.memory, engine.memory
            for number in range(10):
                attacking = asyncio.create_task(asyncio.to_thread(connect_and_reset))
                for _ in range(10):
                    await bystander.say(f"{number}")
                    assert (await bystander.receive("said"))["text"] == f"{number}"
                await attacking
            assert node.memory - before[0] < 64 * MEBIBYTE, "950 MB more, once"
            assert engine.memory - before[1] < 128 * MEBIBYTE, "1.4 GB more, once"

    [node] = nodes(1, engine.url)
    asyncio.run(attack())
    assert counted(node, "operations_failed_total") == 0
    assert not node.complaints


def test_a_middleware_and_compression_see_each_message(nodes: Nodes) -> None:
    async def talk() -> None:
        async with Crowd() as crowd:
            plain = await crowd.join(node, "/ws/crowd/hall")
            small = await crowd.join(node, "/ws/crowd/hall", compression="deflate")
            loud = Client(await crowd.enter_async_context(connect(node.url("/ws/loud/hall"))))
            assert json.loads(await loud.connection.recv()) == {"TYPE": "ANSWER", "TEXT": "HERE"}
            await plain.say("hi")
            assert (await plain.receive("said"))["text"] == (await small.receive("said"))["text"] == "hi"
            assert json.loads(await loud.connection.recv()) == {"TYPE": "SAID", "TEXT": "HI"}

    [node] = nodes(1, deflate=True)
    asyncio.run(talk())


def test_rooms_that_nobody_is_in_any_more_fill_no_memory(nodes: Nodes) -> None:
    async def wander(rooms: int) -> None:
        async with Crowd() as crowd:
            wanderer = await crowd.join(node, "/ws/crowd/hall")
            async with asyncio.timeout(TIMEOUT * 6):
                await wanderer.tell(type="wander", rooms=rooms)
                assert json.loads(await wanderer.connection.recv())["text"] == "done"

    [node] = nodes(1, ping_interval=3600)
    asyncio.run(wander(2 * MAX_CHANNELS))
    memory = node.memory
    asyncio.run(wander(4 * MAX_CHANNELS))
    assert node.memory - memory < 8 * 1024 * 1024, "some 12 are the names alone"
    assert counted(node, "channels") < 10


class Listener(asyncio.Protocol):
    """One of very many clients: it reads frames without looking into them, and sums them up."""

    def __init__(self, path: str, last: bytes) -> None:
        self.last = last
        self.path = path
        self.digest = hashlib.blake2b()
        self.stream = bytearray()
        self.keeps = False
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = b""
        self._accepted = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(handshake(self.path))

    def data_received(self, data: bytes) -> None:
        if not self._accepted:
            self._tail += data
            head, ended, data = self._tail.partition(b"\r\n\r\n")
            if not ended:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._tail = b""
            self._accepted = True
        self.digest.update(data)
        if self.keeps:
            self.stream += data
        self._tail += data
        if not self.joined.done() and b'"here"' in self._tail:
            self.joined.set_result(None)
        self._tail = self._tail[-len(self.last) :]
        if self._tail == self.last and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        for future in (self.joined, self.done):
            if not future.done():
                future.set_exception(ConnectionError("the service closed"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What it kept, decoded; frames of a server are not masked (RFC 6455, 5.1)."""
        messages: list[dict[str, Any]] = []
        at = 0
        while at < len(self.stream):
            length, start = self.stream[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(self.stream[start : start + 2], "big"), start + 2
            messages.append(json.loads(self.stream[start : start + length]))
            at = start + length
        return messages


async def pour_over_a_restart(
    restart: Callable[[], None], three: list[Service], listeners: int, messages: int
) -> list[list[dict[str, Any]]]:
    """Publish, and restart the engine in the middle; return what the listeners of each node received, all the same."""
    loop = asyncio.get_running_loop()
    last = json.dumps({"type": "said", "text": f"{messages - 1} "}, separators=(",", ":")).encode()
    crowds: list[list[Listener]] = [[] for _ in three]
    for number in range(listeners):
        host, port = three[number % 3].address.split(":")
        _, listener = await loop.create_connection(lambda: Listener("/ws/crowd/hall", last), host, int(port))
        listener.keeps = number < 3
        crowds[number % 3].append(listener)
    async with asyncio.timeout(TIMEOUT * 12), Crowd() as crowd:
        await asyncio.gather(*[listener.joined for each in crowds for listener in each])
        pouring = await crowd.join(three[0], "/ws/crowd/hall")
        await pouring.tell(type="pour", messages=messages - 1)
        while (await pouring.receive("said"))["text"] != f"{messages // 3} ":
            pass
        await pouring.tell(type="leave")
        await asyncio.to_thread(restart)
        for node in three:  # without a history, what is poured before a node is back does not reach it
            await asyncio.to_thread(node.wait_for, "engine available again")
        await pouring.say(f"{messages - 1} ")
        await asyncio.gather(*[listener.done for each in crowds for listener in each])
    for each in crowds:
        assert len({listener.digest.digest() for listener in each}) == 1, "not all on a node received the same"
        for listener in each:
            listener.transport.close()
    return [each[0].messages for each in crowds]


@ONE_ENGINE
def test_1000_listeners_receive_10000_messages_once_and_in_order_over_a_restart_of_the_engine(
    engine: EngineServer, nodes: Nodes
) -> None:
    settings = {"history": 10_000, "max_backlog": 10_000, "publish_seconds": 60, "ping_interval": 3600}
    settings |= {"max_connections_per_address": 0}
    three = nodes(3, engine.url, **settings)
    for received in asyncio.run(pour_over_a_restart(engine.restart, three, 1000, 10_000)):
        assert [message["text"] for message in received[1:]] == [f"{number} " for number in range(10_000)]


@pytest.mark.exhaustive
def test_1000_listeners_of_plain_pub_sub_are_told_of_the_gap(redis: EngineServer, nodes: Nodes) -> None:
    settings = {"history": 0, "publish_seconds": 60, "ping_interval": 3600, "max_connections_per_address": 0}
    three = nodes(3, redis.url, **settings)
    for received in asyncio.run(pour_over_a_restart(redis.restart, three, 1000, 10_000)):
        assert [message["type"] for message in received].count("gap") == 1
        numbers = [int(message["text"]) for message in received if message["type"] == "said"]
        assert numbers == sorted(set(numbers)), "not in order, or twice"


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with started(RedisCluster()) as server:
        yield server


async def fail_over(nodes: list[Service], primary: RedisServer) -> None:
    """Kill a primary, and wait until all nodes use its replica."""
    await asyncio.to_thread(primary.kill)
    for node in nodes:
        await asyncio.to_thread(node.wait_for, "engine unavailable")
        await asyncio.to_thread(node.wait_for, "engine available again")


def test_a_cluster_spreads_the_rooms_and_outlives_a_primary(cluster: RedisCluster, nodes: Nodes) -> None:
    async def talk() -> None:
        async with Crowd() as crowd:
            pairs = [[await crowd.join(node, f"/ws/rooms/{room}?after=0") for node in two] for room in range(30)]
            for pair in pairs:  # both receive who joins, and what is said
                names = [[(await client.receive("joined"))["connection"] for _ in two] for client in pair]
                assert names[0] == names[1]
            for text in ("before", "after"):
                sequences = []
                for pair in pairs:
                    await pair[0].say(text)
                    one, other = [await client.receive("said") for client in pair]
                    assert one == other
                    assert one["text"] == text
                    sequences.append(one["sequence"])
                primaries = [server for server in cluster.servers[:3] if server.runs and server.client().dbsize() > 30]
                if text == "before":
                    assert len(primaries) == 3, "one of them has nothing to do"
                    before = sequences
                    await fail_over(two, cluster.primary_of("{0}"))
            assert all(later > earlier for earlier, later in zip(before, sequences, strict=True))
            late = await crowd.join(two[1], f"/ws/rooms/0?after={before[0]}")
            assert (await late.receive())["type"] in {"said", "gap"}

    two = nodes(2, cluster.url, publish_seconds=TIMEOUT)
    asyncio.run(talk())


async def publish_numbers(client: Client, acknowledged: asyncio.Semaphore, done: asyncio.Event) -> list[int]:
    """Publish numbers until told to stop; return those that were acknowledged."""
    numbers: list[int] = []
    for number in count():
        if done.is_set():
            break
        await client.say(f"{number}")
        if (await client.receive("answer"))["text"] == "done":
            numbers.append(number)
            acknowledged.release()
    await client.say("last")
    return numbers


async def receive_until_last(client: Client) -> list[dict[str, Any]]:
    received = [await client.receive()]
    while received[-1].get("text") != "last":
        received.append(await client.receive())
    return received


async def pour_over(three: list[Service], rooms: int, *disturbances: Callable[[], Awaitable[None]]) -> None:
    """Publish into rooms, disturb the engine meanwhile, and check what the listeners on all nodes received."""
    done, acknowledged = asyncio.Event(), asyncio.Semaphore(0)
    async with Crowd() as crowd:
        paths = [f"/ws/crowd/{room}" for room in range(rooms)]
        clients = [[await crowd.join(node, f"{path}?after=0") for node in three] for path in paths]
        senders = [await crowd.join(three[number % 3], path) for number, path in enumerate(paths)]
        listening = [asyncio.gather(*[receive_until_last(client) for client in each]) for each in clients]
        publishing = [asyncio.create_task(publish_numbers(client, acknowledged, done)) for client in senders]
        for disturb in disturbances:
            for _ in range(1000):
                await acknowledged.acquire()
            await disturb()
        done.set()
        for published, received in zip(publishing, listening, strict=True):
            for each in await received:
                check_received(each, await published)


@pytest.mark.exhaustive
@pytest.mark.parametrize("disturbance", ["failover", "resharding"])
def test_what_is_acknowledged_is_received_or_told_as_a_gap(
    cluster: RedisCluster, nodes: Nodes, disturbance: str
) -> None:
    async def disturb(key: str) -> None:
        if disturbance == "failover":
            await fail_over(three, cluster.primary_of(key))
            return
        await asyncio.to_thread(cluster.move_slot_of, key)
        for node in three:
            await asyncio.to_thread(node.wait_for, "engine available again")

    three = nodes(3, cluster.url, publish_seconds=TIMEOUT)
    asyncio.run(pour_over(three, 12, *[partial(disturb, shard_of(room)) for room in "01"]))


@pytest.mark.exhaustive
def test_what_is_acknowledged_is_received_or_told_as_a_gap_when_sentinels_promote_a_replica(
    nodes: Nodes, crowded: Crowded
) -> None:
    with started(RedisSentinels()) as sentinels:
        unknown = refused(crowded("redis"), sentinels.url.replace("/kitchen/", "/cellar/"))
        assert "no Sentinel knows 'cellar'" in unknown
        three = nodes(3, sentinels.url, publish_seconds=TIMEOUT)
        asyncio.run(pour_over(three, 3, partial(fail_over, three, sentinels)))


def check_received(received: list[dict[str, Any]], acknowledged: list[int]) -> None:
    """Check that numbers came in order and none twice, and a gap wherever one is missing that was acknowledged."""
    expected, gap = 0, False
    sequences = [message["sequence"] for message in received if "sequence" in message]
    assert sequences == sorted(set(sequences)), "a sequence names two messages"
    for message in received:
        if message["type"] == "gap":
            gap = True
            continue
        number = acknowledged[-1] + 1 if message["text"] == "last" else int(message["text"])
        missing = [each for each in acknowledged if expected <= each < number]
        assert message["text"] == "last" or number >= expected, "not in order, or twice"
        assert gap or not missing, f"{missing} are missing, and no gap was told"
        expected, gap = number + 1, False


@pytest.mark.exhaustive
def test_1000_listeners_receive_10000_messages_in_order_and_once_while_a_primary_is_killed(
    cluster: RedisCluster, nodes: Nodes
) -> None:
    settings = {"history": 10_000, "max_backlog": 10_000, "publish_seconds": 60, "ping_interval": 3600}
    settings |= {"max_connections_per_address": 0}
    three = nodes(3, cluster.url, **settings)
    restart = cluster.primary_of(shard_of("hall")).kill
    for received in asyncio.run(pour_over_a_restart(restart, three, 1000, 10_000)):
        check_received([message for message in received if message["type"] != "answer"], [*range(10_000)])


async def fall_behind(two: list[Service], cut_off: Callable[[], None], promote: Callable[[], None]) -> None:
    """Publish what a replica lacks, and promote it: no sequence names two messages, and all are told of the gap."""
    async with Crowd() as crowd:
        clients = [await crowd.join(node, "/ws/crowd/hall?after=0") for node in two]
        await clients[0].tell(type="pour", messages=10)
        received = [[await client.receive("said") for _ in range(10)] for client in clients]
        await asyncio.to_thread(cut_off)
        await clients[0].tell(type="pour", messages=50)
        for client, each in zip(clients, received, strict=True):
            each += [await client.receive("said") for _ in range(50)]
        await asyncio.to_thread(promote)
        for node in two:
            await asyncio.to_thread(node.wait_for, "engine unavailable")
            await asyncio.to_thread(node.wait_for, "engine available again")
        await clients[0].tell(type="pour", messages=70)
        for client, each in zip(clients, received, strict=True):
            await client.receive("gap")
            each += [await client.receive("said") for _ in range(70)]
            assert len({message["sequence"] for message in each}) == 130, "a sequence names two messages"
        late = await crowd.join(two[1], f"/ws/crowd/hall?after={received[0][30]['sequence']}")
        assert await late.receive() == {"type": "gap", "channel": "hall", "missed": None}
        assert [await late.receive() for _ in range(70)] == received[0][60:]


@pytest.mark.exhaustive
def test_a_replica_in_a_cluster_that_lacks_messages_gives_no_sequence_twice(
    cluster: RedisCluster, nodes: Nodes
) -> None:
    primary = cluster.primary_of(shard_of("hall"))
    two = nodes(2, cluster.url, publish_seconds=TIMEOUT)
    asyncio.run(fall_behind(two, lambda: cluster.cut_off_replica_of(primary), primary.kill))


def test_a_replica_of_postgresql_that_lacks_messages_gives_no_sequence_twice(
    postgres: PostgresServer, nodes: Nodes
) -> None:
    with network(f"127.0.0.1:{postgres.port}") as way, started(PostgresReplica(way.port)) as replica:

        def cut_off() -> None:
            way.target = f"127.0.0.1:{free_port()}"
            way.cut()

        def promote() -> None:
            postgres.kill()
            replica.promote()

        hosts = f"127.0.0.1:{postgres.port},127.0.0.1:{replica.port}"
        url = postgres.url.replace(f"127.0.0.1:{postgres.port}", hosts) + "?target_session_attrs=read-write"
        asyncio.run(fall_behind(nodes(2, url, publish_seconds=TIMEOUT), cut_off, promote))


def test_a_replica_of_redis_that_lacks_messages_gives_no_sequence_twice(nodes: Nodes) -> None:
    with (
        started(RedisServer()) as primary,
        started(RedisServer()) as replica,
        closing(cast("Any", Redis).from_url(replica.url)) as client,  # its types are partly unknown
    ):

        def cut_off() -> None:
            client.config_set("masteruser", "nobody")
            client.config_set("masterauth", "wrong")
            with closing(cast("Any", Redis).from_url(primary.url)) as other:
                other.execute_command("CLIENT", "KILL", "TYPE", "replica")

        def promote() -> None:
            primary.kill()
            client.replicaof("NO", "ONE")

        client.replicaof("127.0.0.1", primary.port)
        deadline = monotonic() + TIMEOUT
        while client.info("replication")["master_link_status"] != "up":
            assert monotonic() < deadline, "it does not follow"
            sleep(0.02)
        two = nodes(2, f"redis://127.0.0.1:{primary.port},127.0.0.1:{replica.port}/0", publish_seconds=TIMEOUT)
        for node in two:
            node.wait_for("engine available")  # or "again", where it had tried the replica
        asyncio.run(fall_behind(two, cut_off, promote))


def shard_of(channel: str) -> str:
    """Return the hash tag of the keys of a channel."""
    return f"{{{crc32(channel.encode()) % 16}}}"
