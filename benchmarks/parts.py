"""The parts of a run: what is measured of which servers, and how it is told."""

import asyncio
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jwt
import uvloop

from tests.service import add_listener

from . import copying, engines, load
from .report import Chart, Findings, Promise
from .rounds import Rounds, in_turns, tell
from .servers import (
    BASELINE,
    DEFLATE,
    OLDER,
    SERVICE,
    TIMEOUT,
    Peer,
    Server,
    baseline,
    peers,
    rendered,
    service,
    streaming,
)

QUIET_ROOMS = "/bench/rooms/"
LAYERS = {"chanx", "Django Channels"}
"""Peers whose rooms are a layer in memory, which copies each message for each client."""

PINGS = 20
"""Seconds between two pings of a connection, by default."""

RESERVED_DESCRIPTORS = 1500
"""What the service keeps for HTTP, and what else a process has open."""

SECRET = "not secret at all, for nobody is to be kept out"  # noqa: S105


@dataclass
class Plan:
    """A folder to work in, and how much to measure."""

    folder: Path
    rounds: int
    seconds: float
    connections: int
    """Whose memory is measured."""
    listeners: int
    crowd: int
    """Idle connections beside busy ones, and clients in a large room."""
    idle: int = 0
    """Connections of the part `idle`."""
    alone: bool = False
    """Beside plain Litestar, and no other."""
    older: Path | None = None
    """A checkout of the template in another version, whose service is measured in place of the other peers."""

    @cached_property
    def service(self) -> Peer:
        return service(rendered(self.folder))

    @cached_property
    def extended(self) -> Peer:
        """The service with the listeners of `LISTENERS`, too."""
        project = rendered(self.folder)
        add_listener(project, "bench", LISTENERS)
        return service(project)

    @cached_property
    def others(self) -> list[Peer]:
        if self.older:
            return [service(rendered(self.folder, self.older), OLDER)]
        return [] if self.alone else peers(self.folder)

    @cached_property
    def pair(self) -> list[Peer]:
        """The two of which the promises speak."""
        return [baseline(), self.service]

    @cached_property
    def rooms(self) -> list[Peer]:
        """All that have rooms. As in those of the others, nobody is told who joins: of 1,000 that is half a million."""
        ours = replace(self.extended, rooms=QUIET_ROOMS)
        return [baseline(), ours, *(peer for peer in self.others if peer.rooms)]

    @cached_property
    def all(self) -> list[Peer]:
        return [*self.pair, *self.others]


def versions(servers: Sequence[Peer]) -> dict[str, str]:
    return {name: number for peer in servers for name, number in peer.versions().items()}


def ordered(rounds: Rounds) -> dict[str, float]:
    """The ratios to plain Litestar, the smallest first."""
    return dict(sorted(((name, rounds.ratio(name)) for name in rounds), key=lambda each: each[1]))


def echo(plan: Plan) -> Findings:
    """A message and its answer, on 64 connections, with 1 and with 16 messages on their way."""
    one, many = in_turns(plan.all, plan.rounds, partial(echo_of, seconds=plan.seconds))
    rows = [
        [name, *cells(one, name), latency(one, name), *cells(many, name), latency(many, name)] for name in ordered(one)
    ]
    head = ["CPU for a message", "window 1", "µs", "p50 / p99, ms", "window 16", "µs", "p50 / p99, ms"]
    promises = [Promise("window 1", 0.85, one.ratio(SERVICE)), Promise("window 16", 0.85, many.ratio(SERVICE))]
    charts = {"echo": Chart("CPU for a message, one on its way; plain Litestar = 1.00", ordered(one))}
    ratios = {"an answer, one at a time": ordered(one), "an answer, sixteen at once": ordered(many)}
    return Findings(head, rows, versions(plan.all), promises, charts, ratios)


def cells(rounds: Rounds, name: str, digits: int = 1) -> list[str]:
    return [f"{rounds.ratio(name):.2f}", f"{rounds.median(name):.{digits}f}"]


def latency(rounds: Rounds, name: str) -> str:
    return f"{rounds.median(name, 'p50'):.1f} / {rounds.median(name, 'p99'):.1f}"


async def echo_of(server: Server, seconds: float) -> list[load.Sample]:
    return await load.echo(server, 1, 16, seconds=seconds)


def room(plan: Plan) -> Findings:
    """A room of 1,000, in which one speaks: one message after the other, and twenty at once."""
    some = [peer for peer in plan.rooms if peer.name not in LAYERS]  # a burst takes the others ten seconds
    speak = partial(room_of, listeners=plan.listeners, seconds=plan.seconds)
    [single] = in_turns(plan.rooms, min(3, plan.rounds), speak)
    [burst] = in_turns(some, min(3, plan.rounds), partial(speak, burst=20))
    rows = [
        [name, *cells(single, name), latency(single, name), *(cells(burst, name) if name in burst else ["", ""])]
        for name in ordered(single)
    ]
    head = ["CPU for a delivery", "one by one", "µs", "p50 / p99, ms", "in bursts of twenty", "µs"]
    charts = {"room": Chart("CPU for a delivery, message by message; Litestar Channels = 1.00", ordered(single))}
    promises = [
        Promise("one by one", 0.6, single.ratio(SERVICE)),
        Promise("in bursts of twenty", 0.2, burst.ratio(SERVICE)),
    ]
    ratios = {"a delivery in a room, one by one": ordered(single), "a delivery in a room, in bursts": ordered(burst)}
    return Findings(head, rows, versions(plan.rooms), promises, charts, ratios)


async def room_of(server: Server, listeners: int, seconds: float, burst: int = 1) -> list[load.Sample]:
    return [await load.room(server, burst, listeners=listeners, seconds=seconds)]


def large_room(plan: Plan) -> Findings:
    """A room of 10,000, in which one speaks."""
    servers = [peer for peer in plan.rooms if peer.name in {SERVICE, BASELINE, OLDER, "websockets", "node ws"}]
    speak = partial(room_of, listeners=plan.crowd, seconds=plan.seconds * 2)
    [rounds] = in_turns(servers, 1, speak, fresh=True)
    rows = [[name, *cells(rounds, name), latency(rounds, name)] for name in ordered(rounds)]
    head = ["a room of 10,000", "CPU for a delivery", "µs", "p50 / p99, ms"]
    return Findings(head, rows, versions(servers), [Promise("CPU", 0.6, rounds.ratio(SERVICE))])


def stuck(plan: Plan) -> Findings:
    """The others in a room in which one does not read."""
    # It would be closed in the middle of the measurement.
    patient = {SERVICE: replace(plan.extended.but(SERVICE, send_seconds=600), rooms=QUIET_ROOMS)}
    # The layers drop what a slow consumer does not read.
    servers = [patient.get(peer.name, peer) for peer in plan.rooms if peer.name not in LAYERS]
    listen = partial(load.stuck, listeners=plan.listeners, seconds=plan.seconds / 2)
    beside, without = in_turns(servers, min(3, plan.rounds), listen, fresh=True)
    rows = [
        [name, latency(without, name), latency(beside, name), f"{beside.against(without, name, 'p99'):.2f}"]
        for name in beside
    ]
    head = ["p50 / p99 of the others, ms", "nobody stuck", "one stuck", "p99"]
    return Findings(head, rows, versions(servers), [Promise("p99", 1.1, beside.against(without, SERVICE, "p99"))])


LISTENERS = '''\
"""What streams, what has a task for each connection, and a room that does not tell who joins."""

import asyncio
from collections.abc import AsyncGenerator

from litestar import Router
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from ..messages import SaidInRoom, Say
from ..realtime import Fanout, Listener, Socket, listener
from ..state import Connection
from .rooms import Rooms


class Item(Struct, tag="said"):
    text: str


class Tick(Struct, tag="tick"):
    number: int


@listener("/stream")
async def tokens(data: Say) -> AsyncGenerator[Item, None]:
    for _ in range(int(data.text)):
        yield Item("hello")


@listener("/paced")
async def paced(data: Say) -> AsyncGenerator[Item, None]:
    for _ in range(int(data.text)):
        yield Item("hello")
        await asyncio.sleep(0.005)


class Idle(Listener):
    path = "/idle"

    async def on_receive(self, data: Say) -> Item:
        return Item("hello")


class Ticking(Idle):
    path = "/tick"
    sends = Tick

    async def on_accept(self, socket: Socket, connection: Connection) -> None:
        connection.start(tick(connection))


async def tick(connection: Connection) -> None:
    while True:
        await connection.send(Tick(1))
        await asyncio.sleep(1)


class QuietRooms(Rooms):
    path = "/rooms/{room:str}"
    sends = SaidInRoom

    async def on_accept(self, socket: Socket, room: FromPath[str], fanout: NamedDependency[Fanout]) -> None:
        await fanout.join(socket, room)


bench = Router("/bench", route_handlers=[tokens, paced, Idle, Ticking, QuietRooms])
'''
"""What a user would write, in a file of its own in `listeners/`."""


def stream(plan: Plan) -> Findings:
    """A stream of 1,000 short messages on each of 64 connections."""
    others = [] if plan.alone or plan.older else streaming()
    servers = [replace(baseline(), path="/ws/stream"), replace(plan.extended, path="/bench/stream"), *others]
    # In a fresh process each time, for some write tracebacks for a while about clients that went in the middle.
    [rounds] = in_turns(servers, plan.rounds, partial(load.stream, length=1000, seconds=plan.seconds), fresh=True)
    rows = [[name, *cells(rounds, name)] for name in ordered(rounds)]
    promises = [Promise("CPU", 0.5, rounds.ratio(SERVICE))]
    ratios = {"a message of a stream": ordered(rounds)}
    return Findings(["a stream", "CPU for a message", "µs"], rows, versions(servers), promises, ratios=ratios)


def cancel(plan: Plan) -> Findings:
    """How long a client that cancels a stream waits for its end, while 64 other streams run."""
    # What is written by hand in plain Litestar never suspends while its client reads, and so receives no cancel.
    ours = replace(plan.extended, path="/bench/stream")
    cancelled = {"pauses between messages": "/bench/paced", "runs as fast as its client reads": "/bench/stream"}
    running = partial(idlers, count=64, request=load.ask_stream(ours, load.ENDLESS))
    taking = partial(cancel_of, paths=tuple(cancelled.values()), times=50)
    each = in_turns([ours], min(3, plan.rounds), taking, company=running)
    rows = [[f"one that {kind}", latency(rounds, SERVICE)] for kind, rounds in zip(cancelled, each, strict=True)]
    promises = [Promise("ms for one that pauses, p50", 20, each[0].median(SERVICE, "p50"))]
    return Findings(["the stream that is cancelled", "until its end, p50 / p99, ms"], rows, versions([ours]), promises)


async def cancel_of(server: Server, paths: Sequence[str], times: int) -> list[load.Sample]:
    return await load.cancel(server, *paths, times=times)


def tasks(plan: Plan) -> Findings:
    """The memory of 1,000 connections, each with a task that sends something every second."""
    paths = {"idle": "/bench/idle", "with a task": "/bench/tick"}
    servers = [replace(plan.extended, name=name, path=path) for name, path in paths.items()]
    measure = partial(load.idle, count=plan.listeners)
    [rounds] = in_turns(servers, min(3, plan.rounds), measure, fresh=True)
    rows = [[name, f"{rounds.ratio(name, 'idle'):.2f}", f"{rounds.median(name):.1f}"] for name in rounds]
    promises = [Promise("memory with a task", 1.3, rounds.ratio("with a task", "idle"))]
    return Findings(["a connection", "memory", "KiB"], rows, versions(servers[:1]), promises)


def bystander(plan: Plan) -> Findings:
    """The longest wait for an answer, beside one client that sends frames which are no messages."""
    each = in_turns(plan.pair, min(3, plan.rounds), partial(load.bystander, seconds=plan.seconds * 2), fresh=True)
    rows = [[name, *(f"{rounds.median(name):,.0f}" for rounds in each)] for name in each[0]]
    promises = [Promise(kind, 0.05, rounds.ratio(SERVICE)) for kind, rounds in zip(load.OFFENCES, each, strict=True)]
    return Findings(["longest wait beside, ms", *load.OFFENCES], rows, versions(plan.pair), promises)


def churn(plan: Plan) -> Findings:
    """Connect, one message, close."""
    [rounds] = in_turns(plan.all, plan.rounds, partial(load.churn, seconds=plan.seconds))
    rows = [[name, *cells(rounds, name, 0)] for name in ordered(rounds)]
    charts = {"churn": Chart("CPU to connect, say something and close; plain Litestar = 1.00", ordered(rounds))}
    promises = [Promise("CPU", 1.0, rounds.ratio(SERVICE))]
    ratios = {"connect, one message, close": ordered(rounds)}
    return Findings(["connect, one message, close", "CPU", "µs"], rows, versions(plan.all), promises, charts, ratios)


def memory(plan: Plan) -> Findings:
    """Idle connections, of clients that offer deflate and of those that do not."""
    take = partial(in_turns, rounds=max(1, plan.rounds // 2), measure=partial(load.idle, count=plan.connections))
    [without] = take(plan.all, fresh=True)
    offering = plan.all if plan.older else plan.pair
    [offered] = take([peer.but(peer.name, DEFLATE) for peer in offering], fresh=True)
    rows = [
        [
            name,
            *cells(without, name),
            f"{1024**2 / without.median(name):,.0f}",
            *(cells(offered, name) if name in offered else ["", ""]),
        ]
        for name in ordered(without)
    ]
    bars = {name: without.median(name) for name in ordered(without)}
    bars |= {f"{name}, deflate offered": offered.median(name) for name in offered}
    charts = {"memory": Chart("KiB of memory for an idle connection", bars)}
    head = ["idle connection", "memory", "KiB", "fit into a GiB", "client offers deflate", "KiB"]
    promises = [
        Promise("no deflate offered", 1.0, without.ratio(SERVICE)),
        Promise("client offers deflate", 0.4, offered.ratio(SERVICE)),
    ]
    ratios = {"memory of an idle connection": ordered(without)}
    return Findings(head, rows, versions(plan.all), promises, charts, ratios)


def start(plan: Plan) -> Findings:
    """From the start of the process until it answers a handshake."""

    async def started(server: Server) -> list[load.Sample]:
        return [load.Sample(server.start_cpu * 1000)]

    in_turns(plan.all, 1, started, fresh=True)  # the first start compiles
    [rounds] = in_turns(plan.all, plan.rounds, started, fresh=True)
    rows = [[name, *cells(rounds, name, 0)] for name in ordered(rounds)]
    promises = [Promise("CPU", 1.25, rounds.ratio(SERVICE))]
    ratios = {"start": ordered(rounds)}
    return Findings(["until it answers", "CPU", "ms"], rows, versions(plan.all), promises, ratios=ratios)


def crowd(plan: Plan) -> Findings:
    """100 busy connections beside 10,000 idle ones."""
    beside = {f"{peer.name}, beside the idle": peer for peer in plan.pair}
    servers = [each for name, peer in beside.items() for each in (peer, peer.but(name))]

    def company(server: Server) -> Any:
        return idlers(server, plan.crowd) if server.peer.name in beside else nullcontext()

    [rounds] = in_turns(servers, plan.rounds, partial(busy, seconds=plan.seconds * 2), company=company)
    rows = [
        [
            peer.name,
            latency(rounds, peer.name),
            latency(rounds, name),
            f"{rounds.ratio(name, peer.name, 'p99'):.2f}",
            f"{rounds.ratio(name, peer.name):.2f}",
        ]
        for name, peer in beside.items()
    ]
    head = ["p50 / p99 of the busy, ms", "alone", "beside the idle", "p99", "CPU for a message"]
    crowded = next(name for name, peer in beside.items() if peer.name == SERVICE)
    return Findings(head, rows, versions(plan.pair), [Promise("p99", 1.1, rounds.ratio(crowded, SERVICE, "p99"))])


async def busy(server: Server, seconds: float) -> list[load.Sample]:
    return await load.echo(server, 1, connections=100, seconds=seconds)


def idle(plan: Plan) -> Findings:
    """100,000 idle connections, from many loopback addresses: memory, CPU, and how long a busy one waits."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = math.ceil(plan.idle / (most - RESERVED_DESCRIPTORS))  # each may open so many files only
    count = math.ceil(plan.idle / processes)

    def talk(server: Server) -> load.Sample:
        [sample] = uvloop.run(load.echo(server, 1, connections=1, seconds=PINGS))
        return sample

    with ExitStack() as stack:
        servers = [stack.enter_context(Server(plan.service)) for _ in range(processes)]
        alone, before = talk(servers[0]), sum(server.memory for server in servers)
        tell(f"  opening {count:,} connections to each of {processes}, which are all pinged twice in {PINGS * 2} s\n")
        for server in servers:
            stack.enter_context(idlers(server, count, addresses=max(1, count // 100)))
        used = sum(server.cpu for server in servers)
        mebibytes = (sum(server.memory for server in servers) - before) / 1024**2
        time.sleep(PINGS * 2)
        cores = (sum(server.cpu for server in servers) - used) / PINGS / 2
        beside = talk(servers[0])
    head = [
        "idle connections",
        "processes",
        "MiB",
        "KiB each",
        "cores for their pings",
        "an echo alone, p50 / p99, ms",
        "beside them",
    ]
    total = count * processes
    row = [f"{total:,}", f"{processes}", f"{mebibytes:,.0f}", f"{mebibytes * 1024 / total:.1f}", f"{cores:.3f}"]
    echoes = [f"{each.p50:.2f} / {each.p99:.2f}" for each in (alone, beside)]
    return Findings(head, [[*row, *echoes]], versions([plan.service]))


@contextmanager
def idlers(server: Server, count: int, request: bytes = b"", addresses: int = 0) -> Iterator[None]:
    """Hold connections in a process of their own.

    Args:
        request: What each of them sends, to read and drop all that comes; idle ones send nothing and answer pings.
        addresses: Of the loopback, from which they come.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(server, count, request, addresses, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(TIMEOUT * 10):
            raise TimeoutError(f"{count} connections to {server.peer.name} are not open in time")
        ours.recv()
        yield
    finally:
        process.kill()
        process.join(TIMEOUT)


def _hold(server: Server, count: int, request: bytes, addresses: int, opened: Connection) -> None:
    async def hold() -> None:
        async with load.connected(server, count, addresses=addresses) as clients:
            for client in clients if request else ():
                client.transport.set_protocol(asyncio.Protocol())
                client.transport.write(request)
            opened.send(count)
            await asyncio.Event().wait()  # until it is killed

    uvloop.run(hold())


def settings(plan: Plan) -> Findings:
    """What some settings cost, in the service against itself."""
    ours = plan.service
    secured = service(rendered(plan.folder, auth="jwt"), "auth=jwt").but("auth=jwt", auth_secret=SECRET)
    token = jwt.encode({"sub": "ada", "exp": 2**32, "iat": 0, "jti": "1"}, SECRET)
    authorized = secured.but(secured.name, f"Authorization: Bearer {token}".encode(), auth_max_connections_per_user=0)
    servers = [
        ours,
        ours.but("DEFLATE=true, client offers it", DEFLATE, deflate=True),
        ours.but("MAX_MESSAGES_PER_SECOND=0", max_messages_per_second=0),
        ours.but("IDLE_SECONDS=60", idle_seconds=60),
        ours.but("PING_INTERVAL=1", ping_interval=1),
        ours.but("HISTORY=0", history=0),
        ours.but("LOG_LEVEL=WARNING", log_level="WARNING"),
        authorized,
    ]
    some, rounds = plan.seconds / 2, min(3, plan.rounds)
    each = [
        *in_turns(servers, rounds, partial(echo_once, seconds=some)),
        *in_turns(servers, rounds, partial(room_of, listeners=plan.listeners // 5, seconds=some)),
        *in_turns(servers, rounds, partial(load.churn, seconds=some)),
        *in_turns(servers, max(1, rounds // 2), partial(load.idle, count=plan.connections // 2), fresh=True),
    ]
    rows = [[peer.name, *(f"{column.ratio(peer.name, SERVICE):.2f}" for column in each)] for peer in servers]
    head = ["against the defaults", "a message", "a delivery", "connect, one message, close", "memory of a connection"]
    return Findings(head, rows, versions([ours]))


async def echo_once(server: Server, seconds: float) -> list[load.Sample]:
    return await load.echo(server, 1, seconds=seconds)


def engine(plan: Plan) -> Findings:
    """What one node and one engine carry."""
    return engines.measure(plan.folder, min(3, plan.rounds))


def copy(plan: Plan) -> Findings:
    """What Copier takes for this template, and for one of a single file."""
    return copying.measure(plan.folder, min(3, plan.rounds))


PARTS: dict[str, Callable[[Plan], Findings]] = {
    "echo": echo,
    "room": room,
    "stream": stream,
    "churn": churn,
    "memory": memory,
    "start": start,
    "cancel": cancel,
    "tasks": tasks,
    "bystander": bystander,
    "stuck": stuck,
    "large-room": large_room,
    "crowd": crowd,
    "settings": settings,
    "copier": copy,
    "engines": engine,
    "idle": idle,
}

WHEN_NAMED = ("engines", "idle")
"""Parts that are measured only when they are named: one is not of docs/speed.md, the other needs the whole machine."""

SHORT = ("echo", "room", "stream", "churn", "memory", "start")
"""Parts that `--short` measures when none is named, in three minutes."""
