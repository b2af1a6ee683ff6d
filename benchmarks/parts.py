"""The parts of a run: what is measured of which servers, and how it is told."""

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from .rounds import Rounds, in_turns
from .servers import DEFLATE, OLDER, SERVICE, TIMEOUT, Peer, Server, baseline, peers, rendered, service

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
    alone: bool = False
    """Beside plain Litestar, and no other."""
    older: Path | None = None
    """A checkout of the template in another version, whose service is measured in place of the other peers."""

    @cached_property
    def service(self) -> Peer:
        return service(rendered(self.folder))

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
    return Findings(head, rows, versions(plan.all), promises, charts)


def cells(rounds: Rounds, name: str, digits: int = 1) -> list[str]:
    return [f"{rounds.ratio(name):.2f}", f"{rounds.median(name):.{digits}f}"]


def latency(rounds: Rounds, name: str) -> str:
    return f"{rounds.median(name, 'p50'):.1f} / {rounds.median(name, 'p99'):.1f}"


async def echo_of(server: Server, seconds: float) -> list[load.Sample]:
    return await load.echo(server, 1, 16, seconds=seconds)


def room(plan: Plan) -> Findings:
    """A room of 1,000, in which one speaks: one message after the other, and twenty at once."""
    servers = [peer for peer in plan.all if peer.has_rooms]
    speak = partial(room_of, listeners=plan.listeners, seconds=plan.seconds)
    single, burst = in_turns(servers, plan.rounds, speak)
    rows = [[name, *cells(single, name), latency(single, name), *cells(burst, name)] for name in ordered(single)]
    head = ["CPU for a delivery", "one by one", "µs", "p50 / p99, ms", "twenty at once", "µs"]
    charts = {"room": Chart("CPU for a delivery, message by message; Litestar Channels = 1.00", ordered(single))}
    promises = [Promise("one by one", 0.6, single.ratio(SERVICE)), Promise("twenty at once", 0.6, burst.ratio(SERVICE))]
    return Findings(head, rows, versions(servers), promises, charts)


async def room_of(server: Server, listeners: int, seconds: float) -> list[load.Sample]:
    return await load.room(server, 1, 20, listeners=listeners, seconds=seconds)


def stuck(plan: Plan) -> Findings:
    """The others in a room in which one does not read."""
    # It would be closed in the middle of the measurement.
    patient = plan.service.but(SERVICE, send_seconds=600)
    servers = [patient, *(peer for peer in plan.all if peer.has_rooms and peer.name != SERVICE)]
    hear = partial(load.stuck, listeners=plan.listeners, seconds=plan.seconds / 2)
    beside, without = in_turns(servers, plan.rounds, hear, fresh=True)
    rows = [
        [name, latency(without, name), latency(beside, name), f"{beside.against(without, name, 'p99'):.2f}"]
        for name in beside
    ]
    head = ["p50 / p99 of the others, ms", "nobody stuck", "one stuck", "p99"]
    return Findings(head, rows, versions(servers), [Promise("p99", 1.1, beside.against(without, SERVICE, "p99"))])


STREAM = '''\
"""What streams, and what has a task for each connection."""

import asyncio
from collections.abc import AsyncGenerator

from litestar import Router
from msgspec import Struct

from ..messages import Said, Say
from ..realtime import Listener, Socket, listener
from ..state import Connection


class Item(Struct, tag="said"):
    text: str


class Tick(Struct, tag="tick"):
    number: int


@listener("/stream")
async def tokens(data: Say) -> AsyncGenerator[Item, None]:
    for _ in range(int(data.text)):
        yield Item("hello")


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


stream = Router("/bench", route_handlers=[tokens, Idle, Ticking])
'''


def stream(plan: Plan) -> Findings:
    """A stream of 1,000 short messages on each of 64 connections; a cancel; a task for each connection."""
    project = rendered(plan.folder)
    add_listener(project, "stream", STREAM)
    ours = replace(service(project), path="/bench/stream")
    servers = [replace(baseline(), path="/ws/stream"), ours]
    [streams] = in_turns(servers, plan.rounds, partial(load.stream, length=1000, seconds=plan.seconds))
    # What is written by hand never suspends while its client reads, so nothing else is heard meanwhile.
    running = partial(idlers, count=64, asks=load.say_ref(10**9))
    [cancels] = in_turns([ours], plan.rounds, partial(load.cancel, times=50), company=running)
    tasks = [replace(ours, name=name, path=f"/bench/{name}") for name in ("idle", "tick")]
    [memory] = in_turns(tasks, max(1, plan.rounds // 2), partial(load.idle, count=plan.listeners), fresh=True)
    ratio = memory.ratio("tick", "idle")
    rows = [
        [name, *cells(streams, name), *([latency(cancels, name), f"{ratio:.2f}"] if name == SERVICE else ["", ""])]
        for name in ordered(streams)
    ]
    head = ["a stream", "CPU for a message", "µs", "a cancel, p50 / p99, ms", "memory with a task, idle = 1.00"]
    promises = [
        Promise("CPU", 0.5, streams.ratio(SERVICE)),
        Promise("ms until a cancel is heard", 20, cancels.median(SERVICE, "p50")),
        Promise("memory with a task", 1.3, ratio),
    ]
    return Findings(head, rows, versions(servers), promises)


def bystander(plan: Plan) -> Findings:
    """The longest wait for an answer, beside one client that sends frames which are no messages."""
    each = in_turns(plan.pair, plan.rounds, partial(load.bystander, seconds=plan.seconds * 2), fresh=True)
    rows = [[name, *(f"{rounds.median(name):,.0f}" for rounds in each)] for name in each[0]]
    promises = [Promise(kind, 0.05, rounds.ratio(SERVICE)) for kind, rounds in zip(load.OFFENCES, each, strict=True)]
    return Findings(["longest wait beside, ms", *load.OFFENCES], rows, versions(plan.pair), promises)


def churn(plan: Plan) -> Findings:
    """Connect, one message, close."""
    [rounds] = in_turns(plan.all, plan.rounds, partial(load.churn, seconds=plan.seconds))
    rows = [[name, *cells(rounds, name, 0)] for name in ordered(rounds)]
    charts = {"churn": Chart("CPU to connect, say something and close; plain Litestar = 1.00", ordered(rounds))}
    promises = [Promise("CPU", 1.0, rounds.ratio(SERVICE))]
    return Findings(["connect, one message, close", "CPU", "µs"], rows, versions(plan.all), promises, charts)


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
    return Findings(head, rows, versions(plan.all), promises, charts)


def start(plan: Plan) -> Findings:
    """From the start of the process until it answers a handshake."""

    async def started(server: Server) -> list[load.Sample]:
        return [load.Sample(server.start_cpu * 1000)]

    in_turns(plan.all, 1, started, fresh=True)  # the first start compiles
    [rounds] = in_turns(plan.all, plan.rounds, started, fresh=True)
    rows = [[name, *cells(rounds, name, 0)] for name in ordered(rounds)]
    promises = [Promise("CPU", 1.25, rounds.ratio(SERVICE))]
    return Findings(["until it answers", "CPU", "ms"], rows, versions(plan.all), promises)


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


@contextmanager
def idlers(server: Server, count: int, asks: bytes = b"") -> Iterator[None]:
    """Hold connections in a process of their own: idle, or with streams that they ask for and read."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_idle, args=(server, count, asks, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(TIMEOUT * 5):
            raise TimeoutError(f"{count} connections to {server.peer.name} are not open in time")
        ours.recv()
        yield
    finally:
        process.kill()
        process.join(TIMEOUT)


def _idle(server: Server, count: int, asks: bytes, told: Connection) -> None:
    async def hold() -> None:
        async with load.connected(server, count) as clients:
            for client in clients if asks else ():
                client.transport.set_protocol(asyncio.Protocol())  # it only reads
                client.transport.write(asks)
            told.send(count)
            await load.forever()

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
    some = plan.seconds / 2
    each = [
        *in_turns(servers, plan.rounds, partial(echo_once, seconds=some)),
        *in_turns(servers, plan.rounds, partial(room_once, listeners=plan.listeners // 5, seconds=some)),
        *in_turns(servers, plan.rounds, partial(load.churn, seconds=some)),
        *in_turns(servers, max(1, plan.rounds // 2), partial(load.idle, count=plan.connections // 2), fresh=True),
    ]
    rows = [[peer.name, *(f"{rounds.ratio(peer.name, SERVICE):.2f}" for rounds in each)] for peer in servers]
    head = ["against the defaults", "a message", "a delivery", "connect, one message, close", "memory of a connection"]
    return Findings(head, rows, versions([ours]))


async def echo_once(server: Server, seconds: float) -> list[load.Sample]:
    return await load.echo(server, 1, seconds=seconds)


async def room_once(server: Server, listeners: int, seconds: float) -> list[load.Sample]:
    return await load.room(server, 1, listeners=listeners, seconds=seconds)


def engine(plan: Plan) -> Findings:
    """What one node and one engine carry."""
    return engines.measure(plan.folder, min(3, plan.rounds))


def copy(plan: Plan) -> Findings:
    """What Copier takes for this template, and for one of a single file."""
    return copying.measure(plan.folder, plan.rounds)


PARTS: dict[str, Callable[[Plan], Findings]] = {
    "echo": echo,
    "room": room,
    "stuck": stuck,
    "stream": stream,
    "bystander": bystander,
    "churn": churn,
    "memory": memory,
    "start": start,
    "crowd": crowd,
    "settings": settings,
    "engines": engine,
    "copier": copy,
}
