"""What holds for every engine: two nodes and a real one, which is killed while they serve."""

import asyncio
import inspect
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from pydantic import SecretStr

from my_service.realtime.errors import SettingsError
from my_service.realtime.fanout.broker import FanoutUnavailableError
from my_service.realtime.fanout.engine.backend import Backend, Event, PresenceJoin, PresenceState, Publish, ReadHistory
from my_service.realtime.fanout.engine.broker import EngineBroker, choose_broker
from my_service.realtime.fanout.messages import GapMarker, Members, Message, node_channel, room_channel, user_channel
from my_service.realtime.settings import PACKAGE, PREFIX
from my_service.realtime.testing import TIMEOUT, Start, credentials
from my_service.settings import Settings

from ..recording import capture_logs, receive

MIB = 1024**2
PASSWORD = "secret"  # noqa: S105
HELLO = '{"text":"h\u00e9llo \U0001f600"}'.encode()


class Server(Protocol):
    """An engine that keeps its data in a folder, to be killed and started again."""

    url: str

    def __init__(self, folder: Path) -> None: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


@asynccontextmanager
async def receiving(
    backend: type[Backend], settings: Settings, *channels: str, secrets: Sequence[str] = ()
) -> AsyncGenerator[tuple[EngineBroker, asyncio.Queue[Message]], None]:
    """Start a broker that receives channels."""
    broker = EngineBroker(settings, backend, secrets)
    received: asyncio.Queue[Message] = asyncio.Queue()
    await broker.start(lambda _channel, message: received.put_nowait(message))
    try:
        for channel in channels:
            broker.subscribe(channel)
            await broker.wait_subscribed(channel)
        yield broker, received
    finally:
        await broker.stop()


def documented(backend: type[Backend], pattern: str) -> str:
    """Return what the page of an engine says is to be written, with the name of the package and a password."""
    page = Path(inspect.getfile(backend)).with_suffix(".md").read_text()
    [found] = re.findall(pattern, page)
    text: str = found.replace("<package>", PACKAGE).replace("<password>", PASSWORD)
    return text


def counted(broker: EngineBroker) -> list[str]:
    return [f"{metric.name}={float(sample.value)}" for metric in broker.collect() for sample in metric.samples]


class EngineTests:
    """To be inherited by the tests of an engine."""

    backend: ClassVar[type[Backend]]
    server: ClassVar[type[Server]]

    @pytest.fixture
    def engine(self) -> Iterator[Server]:
        folder = Path(tempfile.mkdtemp(prefix="engine-"))
        server: Server | None = None
        try:
            server = self.server(folder)
            server.start()
            yield server
        finally:
            if server:
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def test_what_is_tried_again_is_done_once(self, engine: Server) -> None:
        async def publish_twice() -> None:
            backend = await self.backend.connect(Settings(fanout_url=engine.url), "node")
            try:
                message = Publish(channel="hall", data=b'{"type":"said"}')
                first = await backend.apply([message])
                message.retried = True
                assert await backend.apply([message]) == first
                [history] = await backend.apply([ReadHistory(channel="hall", after=0)])
                assert [kept.sequence for kept in history.messages] == first
            finally:
                await backend.close()

        asyncio.run(publish_twice())

    def test_history_is_bounded_in_bytes_for_each_channel_and_all_and_the_oldest_room_goes_first(
        self, engine: Server
    ) -> None:
        settings = Settings(fanout_url=engine.url, history_bytes=MIB)

        async def fill() -> None:
            backend = await self.backend.connect(settings, "node")

            async def sizes(channels: list[str]) -> list[int]:
                histories = await backend.apply([ReadHistory(channel=channel, after=0) for channel in channels])
                return [sum(len(message.data) for message in history.messages) for history in histories]

            try:
                rooms = [f"room {number}" for number in range(40)]
                for room in rooms:
                    await backend.apply([Publish(channel=room, data=b"x" * 10_000) for _ in range(9)])
                kept = await sizes(rooms)
                assert MIB / 2 < sum(kept) <= MIB
                assert kept == sorted(kept)
                await backend.apply([Publish(channel="loud", data=b"x" * 10_000) for _ in range(100)])
                assert MIB / 16 < (await sizes(["loud"]))[0] <= MIB / 8 + 10_000
                for number in range(100):  # what is counted is what is there, also after much has gone
                    await backend.apply([Publish(channel=f"other {number}", data=b"x" * 30_000) for _ in range(3)])
                assert MIB / 2 < sum(await sizes([f"other {number}" for number in range(100)])) <= MIB
            finally:
                await backend.close()

        asyncio.run(fill())

    async def notify(self, engine: Server, channel: str, payload: str) -> None:
        """Send what is none of the service's to its nodes, as another tenant of the server may."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        "payload", ["", "garbage", "1 2 3", "x 0 - {channel} {}", "-7 0 - {channel} {}", "9" * 30 + " 0 - {channel} {}"]
    )
    def test_a_garbage_notification_is_dropped_and_counted(self, engine: Server, payload: str) -> None:
        async def garbage() -> None:
            async with receiving(self.backend, Settings(fanout_url=engine.url), "hall") as (broker, received):
                await self.notify(engine, "hall", payload)
                await broker.publish("hall", b'{"text":"after"}')
                assert (await received.get()).data == b'{"text":"after"}'
                assert "fanout_notifications_dropped=1.0" in counted(broker)
                assert "fanout_engine_connections_lost=0.0" in counted(broker)

        asyncio.run(asyncio.wait_for(garbage(), TIMEOUT))

    @pytest.mark.parametrize("secrets", [(), ("forger",)], ids=["unsigned", "forged"])
    def test_what_no_node_has_signed_is_dropped_and_counted_and_a_gap_in_the_history(
        self, engine: Server, secrets: Sequence[str]
    ) -> None:
        settings = Settings(fanout_url=engine.url)

        async def forge() -> None:
            async with (
                receiving(self.backend, settings, "hall", secrets=["service"]) as (node, received),
                receiving(self.backend, settings, secrets=secrets) as (forger, _),
            ):
                first = await node.publish("hall", b"1")
                await forger.publish("hall", b"forged")
                await forger.remember("forged", time.time() + 3600)
                await node.remember("kept", time.time() + 3600)
                await node.publish("hall", HELLO)
                messages = [(await received.get()).data for _ in range(3)]
                assert messages == [b"1", GapMarker("hall", 1).data, HELLO]
                history = await node.read_history("hall", first - 1)
                assert [message.data for message in history.messages] == [b"1", b"", HELLO]
                assert await node.remembered() == ["kept"]
                dropped = [line for line in counted(node) if line.startswith("fanout_notifications_dropped=")]
                assert dropped == ["fanout_notifications_dropped=4.0"], "at once, twice in the history, remembered"
                assert "fanout_engine_connections_lost=0.0" in counted(node)

        asyncio.run(asyncio.wait_for(forge(), TIMEOUT))

    def test_a_signature_is_of_one_channel_and_one_message(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url)

        async def move() -> None:
            async with (
                receiving(self.backend, settings, "hall", "other", secrets=["service"]) as (node, received),
                receiving(self.backend, settings, "hall") as (forger, seen),
            ):
                await node.publish("hall", b'{"user":"eve"}')
                genuine = (await seen.get()).data
                assert (await received.get()).data == b'{"user":"eve"}'
                await forger.publish("other", genuine)
                await forger.publish("other", genuine, exclude="somebody")
                await forger.publish("other", genuine.replace(b"eve", b"ada"))
                await node.publish("other", b"after")
                messages = [(await received.get()).data for _ in range(4)]
                assert messages == [*[GapMarker("other", 1).data] * 3, b"after"]

        asyncio.run(asyncio.wait_for(move(), TIMEOUT))

    def test_a_secret_is_replaced_while_nodes_with_both_run(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url)

        async def rotate() -> None:
            async with (
                receiving(self.backend, settings, "hall", secrets=["old"]) as (before, _),
                receiving(self.backend, settings, "hall", secrets=["old", "new"]) as (first, of_first),
                receiving(self.backend, settings, "hall", secrets=["new", "old"]) as (second, of_second),
                receiving(self.backend, settings, "hall", secrets=["new"]) as (after, _),
            ):
                nodes = [before, first, second, after]
                for number, node in enumerate(nodes):
                    await node.publish("hall", b"%d" % number)
                for received in (of_first, of_second):
                    assert [(await received.get()).data for _ in nodes] == [b"0", b"1", b"2", b"3"]

        asyncio.run(asyncio.wait_for(rotate(), TIMEOUT))

    def test_what_nobody_awaits_and_is_given_up_is_said_once_and_a_gap_to_all(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url, publish_seconds=0.2)

        async def outage() -> None:
            async with (
                receiving(self.backend, settings, "hall") as (broker, here),
                receiving(self.backend, settings, "hall") as (_, there),
            ):
                await broker.publish("hall", b'{"text":"before"}')
                await asyncio.to_thread(engine.kill)
                while broker.available:  # noqa: ASYNC110  # the broker has no event for it
                    await asyncio.sleep(0.01)
                lost = [broker.publish("hall", b'{"text":"lost"}') for _ in range(3)]
                raised = broker.publish("hall", b'{"text":"raised"}')
                with pytest.raises(FanoutUnavailableError):
                    await raised
                assert all(isinstance(each.exception(), FanoutUnavailableError) for each in lost)
                with capture_logs() as logs:
                    await asyncio.to_thread(engine.start)
                    while not broker.available:  # noqa: ASYNC110  # the broker has no event for it
                        await asyncio.sleep(0.01)
                while True:
                    with suppress(FanoutUnavailableError):
                        await broker.publish("hall", b'{"text":"after"}')
                        break
                for received in (here, there):
                    assert (await received.get()).data == b'{"text":"before"}'
                    missed = 0
                    while (message := await received.get()).data != b'{"text":"after"}':
                        assert isinstance(message, GapMarker)
                        missed += json.loads(message.data)["missed"]
                    assert missed == len(lost)
                given_up = [line for line in logs if line["event"] == "messages given up"]
                assert [(line["messages"], line["channels"]) for line in given_up] == [(3, ["hall"])]

        asyncio.run(asyncio.wait_for(outage(), TIMEOUT))

    def test_what_is_remembered_outlives_node_and_engine_without_history_until_its_time(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url, history=0, publish_seconds=TIMEOUT)

        async def remember() -> None:
            async with receiving(self.backend, settings) as (broker, _):
                await broker.remember("kept \u00e9", time.time() + 3600)
                await broker.remember("old", time.time() - 1)
            await asyncio.to_thread(engine.kill)
            await asyncio.to_thread(engine.start)
            async with receiving(self.backend, settings) as (broker, _):
                assert await broker.remembered() == ["kept \u00e9"]

        asyncio.run(asyncio.wait_for(remember(), TIMEOUT))

    def test_the_state_of_a_member_is_one_on_all_nodes_and_ends_with_the_last(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url, presence_state_seconds=0)

        async def change() -> None:
            async with (
                receiving(self.backend, settings, "hall", secrets=["service"]) as (one, received),
                receiving(self.backend, settings, secrets=["service"]) as (two, _),
                receiving(self.backend, settings, secrets=["forger"]) as (forger, _),
            ):
                await one.set_presence_state("hall", "ada", b"nobody")
                await one.join_presence("hall", "ada", b"", b"")
                await one.set_presence_state("hall", "ada", HELLO)
                await two.join_presence("hall", "ada", b"joined", b"left")
                for state in (HELLO, b"2", b"2", b"3"):
                    await two.set_presence_state("hall", "ada", state)
                await one.leave_presence("hall", "ada")
                sequence = await two.publish("hall", b"said")
                assert await one.members("hall") == Members(sequence, {"ada": b"3"})
                await forger.set_presence_state("hall", "ada", b"forged")
                assert await one.members("hall") == Members(sequence + 1, {"ada": b""})
                await two.set_presence_state("hall", "ada", b"4")
                await two.leave_presence("hall", "ada")
                await two.join_presence("hall", "ada", b"joined", b"left")
                assert (await one.members("hall")).states == {"ada": b""}
                messages = [(await received.get()).data for _ in range(7)]
                forged = GapMarker("hall", 1).data
                assert messages == [HELLO, b"2", b"3", b"said", forged, b"4", b"joined"]

        asyncio.run(asyncio.wait_for(change(), TIMEOUT))

    def test_of_many_states_on_two_nodes_one_is_published_in_its_time_and_the_latest_when_it_is_over(
        self, engine: Server
    ) -> None:
        patient = Settings(fanout_url=engine.url, presence_state_seconds=3600)

        async def change() -> None:
            async with (
                receiving(self.backend, patient, "hall") as (one, received),
                receiving(self.backend, patient) as (two, _),
                receiving(self.backend, Settings(fanout_url=engine.url, presence_state_seconds=0)) as (later, _),
            ):
                for node in (one, two):
                    await node.join_presence("hall", "ada", b"", b"left")
                assert await one.set_presence_state("hall", "ada", b"1") == 0
                assert await two.set_presence_state("hall", "ada", b"1") == 0, "it is published already"
                for node, state in ((one, b"2"), (two, b"3"), (one, b"1"), (one, b"1")):
                    assert 0 < await node.set_presence_state("hall", "ada", state) <= 3600
                    assert (await one.members("hall")).states == {"ada": state}
                await two.publish("hall", b"said")
                assert [(await received.get()).data for _ in range(2)] == [b"1", b"said"]
                for node in (later, later, one):  # whoever asks first, and whoever asks again
                    assert await node.set_presence_state("hall", "ada") == 0
                await two.set_presence_state("hall", "ada", b"5")
                for node in (one, two):
                    await node.leave_presence("hall", "ada")
                assert await later.set_presence_state("hall", "ada") == 0
                await one.join_presence("hall", "ada", b"", b"")
                assert await one.set_presence_state("hall", "ada", b"6") == 0, "one who comes anew has no past"
                assert [(await received.get()).data for _ in range(4)] == [b"1", b"5", b"left", b"6"], (
                    "who came while 2 or 3 was kept has been told of it, so 1 is published again; 5 as a node is left"
                )

        asyncio.run(asyncio.wait_for(change(), TIMEOUT))

    def test_a_state_that_waits_is_published_when_its_node_stops(self, engine: Server) -> None:
        """While its member is on another node too: nobody else would publish it later."""
        settings = Settings(fanout_url=engine.url, presence_state_seconds=3600)

        async def stop() -> None:
            async with receiving(self.backend, settings, "hall") as (one, received):
                await one.join_presence("hall", "ada", b"", b"left")
                async with receiving(self.backend, settings) as (two, _):
                    await two.join_presence("hall", "ada", b"", b"left")
                    for state in (b"published", b"waits"):
                        await two.set_presence_state("hall", "ada", state)
                    two.leave_presence("hall", "ada")
                await one.publish("hall", b"said")
                assert (await received.get()).data == b"published"
                assert [(await received.get()).data, (await one.members("hall")).states] == [
                    b"waits",
                    {"ada": b"waits"},
                ]

        asyncio.run(asyncio.wait_for(stop(), TIMEOUT))

    def test_a_state_that_waits_while_the_engine_is_unavailable_is_published_later(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url, presence_state_seconds=0, publish_seconds=0.2)
        patient = Settings(fanout_url=engine.url, presence_state_seconds=3600)

        async def outage() -> None:
            async with (
                receiving(self.backend, settings, "hall") as (one, received),
                receiving(self.backend, patient) as (two, _),
            ):
                for node, state in ((one, b"1"), (two, b"2")):
                    await node.join_presence("hall", "ada", b"", b"")
                    await node.set_presence_state("hall", "ada", state)
                assert (await received.get()).data == b"1"
                await asyncio.to_thread(engine.kill)
                with pytest.raises(FanoutUnavailableError):
                    await one.set_presence_state("hall", "ada")
                await asyncio.to_thread(engine.start)
                assert (await received.get()).data == b"2"

        asyncio.run(asyncio.wait_for(outage(), TIMEOUT))

    def test_a_node_restores_its_states_and_not_over_newer_ones_of_others(self, engine: Server) -> None:
        settings = Settings(fanout_url=engine.url, publish_seconds=1)

        async def outage() -> None:
            async with (
                receiving(self.backend, settings) as (one, _),
                receiving(self.backend, settings) as (two, _),
            ):
                await one.join_presence("hall", "ada", b"", b"")
                await one.set_presence_state("hall", "ada", b"old")
                await two.join_presence("hall", "ada", b"", b"")
                await two.set_presence_state("hall", "ada", b"new")
                for member in ("eve", "sue"):
                    await one.join_presence("hall", member, b"", b"")
                    await one.set_presence_state("hall", member, b"before")
                await self.forget(engine, "hall", "eve")
                await asyncio.to_thread(engine.kill)
                while one.available or two.available:  # noqa: ASYNC110  the brokers have no event for it
                    await asyncio.sleep(0.01)
                with pytest.raises(FanoutUnavailableError):
                    await one.set_presence_state("hall", "sue", b"meanwhile")
                await asyncio.to_thread(engine.start)
                while not (one.available and two.available):  # noqa: ASYNC110  the brokers have no event for it
                    await asyncio.sleep(0.01)
                backend = await self.backend.connect(settings, "node")
                await backend.apply([PresenceState(channel="hall", member="ada", state=b"old", restored=True)])
                await backend.close()
                states = (await two.members("hall")).states
                assert states == {"ada": b"new", "eve": b"before", "sue": b"meanwhile"}

        asyncio.run(asyncio.wait_for(outage(), TIMEOUT))

    async def forget(self, engine: Server, channel: str, member: str) -> None:
        """Let the engine know nothing of a member any more, as when it took its node for dead."""
        raise NotImplementedError

    def test_many_members_of_a_dead_node_are_expired_bit_by_bit_and_if_it_returns_it_notices(
        self, engine: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules[self.backend.__module__], "EXPIRE_SECONDS", 0, raising=False)
        settings = Settings(fanout_url=engine.url, presence_seconds=1, presence_state_seconds=3600)

        async def receive(events: AsyncIterator[Event | None]) -> None:
            async for _ in events:
                pass

        async def expire() -> None:
            nodes = [await self.backend.connect(settings, name) for name in ("dead", "alive")]
            receiving = [asyncio.create_task(receive(events)) for node in nodes for events in node.events()]
            dead, alive = nodes
            try:
                await dead.heartbeat()
                for node in nodes:
                    await node.apply([PresenceJoin(channel="other", member="ada", joined=b"", left=b"left")])
                for state in (b"published", b"waits"):
                    await dead.apply([PresenceState(channel="other", member="ada", state=state)])
                for start in range(0, 600, 200):
                    members = [f"{number}" for number in range(start, start + 200)]
                    await dead.apply(
                        [PresenceJoin(channel="hall", member=each, joined=b"", left=b"left") for each in members]
                    )
                while len(left := await dead.registered_members()) == 601:
                    await alive.heartbeat()
                assert left, "all at once"
                assert not (await dead.heartbeat()).known
                await alive.heartbeat()
                assert await dead.registered_members() == left, "it lives again"
                monkeypatch.undo()
                while await dead.registered_members():
                    await alive.heartbeat()
                [history] = await alive.apply([ReadHistory(channel="hall", after=0)])
                assert history.sequence - history.began == 600, "not each left once"
                [history] = await alive.apply([ReadHistory(channel="other", after=0)])
                assert [message.data for message in history.messages] == [b"published", b"waits"]
                await dead.apply([PresenceJoin(channel="hall", member="eve", joined=b"", left=b"left")])
                await alive.heartbeat()
                assert not await dead.registered_members(), "it joins before it notices that it was taken for dead"
            finally:
                for task in receiving:
                    task.cancel()
                for node in nodes:
                    await node.close()

        asyncio.run(asyncio.wait_for(expire(), TIMEOUT * 3))

    @pytest.mark.parametrize("first", ["0", "1"])
    def test_a_sequence_that_the_engine_has_not_given_mutes_nobody(self, engine: Server, first: str) -> None:
        async def forge() -> None:
            async with receiving(self.backend, Settings(fanout_url=engine.url), "hall") as (broker, received):
                await broker.publish("hall", b'{"text":"before"}')
                assert (await received.get()).data == b'{"text":"before"}'
                await self.notify(engine, "hall", f"9007199254740991 {first} - {{channel}} {{}}")
                for text in (b'{"text":"one"}', b'{"text":"two"}'):
                    await broker.publish("hall", text)
                messages: list[bytes] = []
                while b'{"text":"two"}' not in messages:
                    message = await received.get()
                    messages += [] if isinstance(message, GapMarker) else [message.data]
                assert messages == [b'{"text":"one"}', b'{"text":"two"}']

        asyncio.run(asyncio.wait_for(forge(), TIMEOUT))

    def test_what_cannot_be_encoded_fails_alone(self, engine: Server) -> None:
        async def poison() -> None:
            async with receiving(self.backend, Settings(fanout_url=engine.url), "hall") as (broker, received):
                asked: list[asyncio.Future[Any]] = [
                    broker.publish("hall", b"1"),
                    broker.publish("\ud800", b"2"),
                    broker.join_presence("hall", "\ud800", b"3", b"4"),
                    broker.publish("hall", b"5"),
                ]
                results = await asyncio.gather(*asked, return_exceptions=True)
                failed = [isinstance(result, FanoutUnavailableError) for result in results]
                assert failed == [False, True, True, False]
                assert [(await received.get()).data for _ in range(2)] == [b"1", b"5"]
                assert "fanout_engine_connections_lost=0.0" in counted(broker)

        asyncio.run(asyncio.wait_for(poison(), TIMEOUT))

    def test_a_room_is_one_on_two_nodes_and_outlives_its_engine(self, engine: Server, start: Start) -> None:
        self.talk(engine, start, engine.url)

    def talk(self, engine: Server, start: Start, url: str) -> None:
        """Use all that two nodes need of an engine, and kill it in the middle."""
        nodes = [start(fanout_url=url, publish_seconds=30) for _ in range(2)]
        with ExitStack() as stack:
            one = stack.enter_context(nodes[0].connect("/ws/rooms/hall?after=0"))
            assert receive(one)["type"] == "joined"
            other = stack.enter_context(nodes[1].connect("/ws/rooms/hall", additional_headers=credentials("eve")))
            assert receive(one)["connection"] == receive(other)["connection"], "both receive who joins"
            one.send('{"type":"say","text":"before"}')
            said = receive(one)
            assert (said["text"], receive(other)["text"]) == ("before", "before")
            engine.kill()
            for node in nodes:
                node.wait_for("engine unavailable")
                assert node.get("/ready") == (503, '{"status":"fan-out unavailable"}')
            one.send('{"type":"say","text":"meanwhile"}')
            engine.start()
            for node in nodes:
                node.wait_for("engine available again")
                assert node.get("/ready")[0] == 200
            meanwhile = receive(one)
            assert (meanwhile["text"], receive(other)["text"]) == ("meanwhile", "meanwhile")
            assert meanwhile["sequence"] == said["sequence"] + 1
            late = stack.enter_context(nodes[1].connect(f"/ws/rooms/hall?after={said['sequence']}"))
            assert receive(late) == meanwhile
        for node in nodes:
            assert "fanout_operations_failed_total 0.0" in node.get("/metrics")[1]

    def test_no_name_of_a_room_a_user_or_the_nodes_is_that_of_another(self, engine: Server) -> None:
        names = ["", "ada", "user:ada", "\0", "\0user:ada", "\0\0user:ada", "\0node:ada", "{ada}", "a da", "\u00e9\n%*"]
        channels = [channel(name) for channel in (room_channel, user_channel, node_channel) for name in names]

        async def cross() -> None:
            messages: list[tuple[str, bytes]] = []
            broker = EngineBroker(Settings(fanout_url=engine.url), self.backend)
            await broker.start(lambda channel, message: messages.append((channel, message.data)))
            try:
                for channel in channels:
                    broker.subscribe(channel)
                for channel in channels:
                    await broker.wait_subscribed(channel)
                sent = [(channel, str(number).encode()) for number, channel in enumerate(channels)]
                for channel, data in sent:
                    await broker.publish(channel, data)
                while len(messages) < len(sent):  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.01)
                assert sorted(messages) == sorted(sent)
                for channel, data in sent:
                    assert [message.data for message in (await broker.read_history(channel, 0)).messages] == [data]
            finally:
                await broker.stop()

        asyncio.run(asyncio.wait_for(cross(), TIMEOUT))

    @pytest.mark.parametrize("url", ["carrier-pigeon://user:hunter2@host", "memory://user:hunter2@host:port"])
    def test_a_wrong_url_is_named_without_its_password(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{PREFIX}FANOUT_URL", url)
        with pytest.raises(SettingsError) as error:
            Settings.load()
        assert str(error.value).startswith(f"{PREFIX}FANOUT_URL: ")
        assert "hunter2" not in str(error.value)

    def test_a_secret_is_long_and_there_where_tokens_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(f"{PREFIX}FANOUT_URL")
        for secrets in ("short", f"{'s' * 32},short"):
            with pytest.raises(SettingsError, match=f"{PREFIX}FANOUT_SECRET: the secret has 5 bytes but needs 32"):
                Settings.load(fanout_secret=secrets)
        settings = Settings.load(fanout_secret=f"{'s' * 32}, {'t' * 32}")
        assert "ssss" not in repr(settings)
        assert isinstance(choose_broker(settings, self.backend, SecretStr("")), EngineBroker)
        with pytest.raises(SettingsError, match=f"{PREFIX}FANOUT_SECRET: is missing"):
            choose_broker(Settings(), self.backend, SecretStr(""))

    def test_the_settings_print_no_password(self) -> None:
        settings = Settings.load(fanout_url="memory://user:hunter2@host")
        assert "hunter2" not in f"{settings!r} {settings}"
