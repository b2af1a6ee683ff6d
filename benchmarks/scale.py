"""What more primaries buy: `uv run python -m benchmarks.scale [--short]` prints the tables of docs/scale.md.

One Redis, and clusters of one, two and three primaries without replicas, in turns. First the engine alone: for each
primary, redis-benchmark calls the script of the service as the service does, and three connections, or a hundred,
receive what is published, as so many nodes would. Then two nodes of the service, with 16 rooms whose clients are on
both. CPU time is that of the processes, from the operating system's accounting; each number is the median of some
rounds.
"""

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import NamedTuple
from zlib import crc32

from tests.crowd import CROWD
from tests.engines import RedisCluster, RedisServer
from tests.rendering import ROOT
from tests.service import Service, add_listener
from tests.test_fanout import Client, Crowd, Listener

from .servers import cpu, rendered

SHORT = "--short" in sys.argv
ROUNDS = 2 if SHORT else 5
SHARDS = 16
NODES, MANY_NODES = 3, 100
CALLS = 10_000 if SHORT else 30_000
"""Messages for each primary."""
LISTENERS = 20
"""Clients of each room."""
POURED = 200 if SHORT else 500
"""Messages for each room."""
MESSAGE = '{"type":"said","text":"' + "x" * 75 + '"}'
SCRIPT = next((ROOT / "template").rglob("*redis.lua*")).read_text()


class Engine:
    """One Redis, or the primaries of a cluster."""

    def __init__(self, primaries: int) -> None:
        self.server = RedisCluster(primaries, replicas=False) if primaries else RedisServer()
        self.is_cluster = primaries > 0
        self.name = f"a cluster of {primaries}" if primaries else "one Redis"
        self.primaries: list[RedisServer] = [self.server]

    def start(self) -> None:
        self.server.start()
        if isinstance(self.server, RedisCluster):
            self.primaries = list(self.server.primaries)

    def cpu(self) -> list[float]:
        return [cpu(primary.process.pid) for primary in self.primaries if primary.process]

    def shards(self) -> Iterator[tuple[RedisServer, str]]:
        """Iterate over the primaries, each with the prefix of the keys of one of its shards."""
        for primary in self.primaries:
            if not isinstance(self.server, RedisCluster):
                yield primary, "my_service:0:"
                continue
            tags = (f"{{{number}}}" for number in range(SHARDS))
            tag = next(tag for tag in tags if self.server.primary_of(tag) is primary)
            yield primary, f"my_service:0:{tag}:"


class Result(NamedTuple):
    """Messages and deliveries a second, and µs of CPU for each message: of the busiest primary, and of all services."""

    messages: float
    deliveries: float
    busiest: float
    services: float


class Subscriber(Thread):
    """A connection that reads what is published until it is closed, and counts the bytes."""

    def __init__(self, port: int, command: str, name: str) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(f"{command} {name}\r\n".encode())
        self.socket.recv(1000)
        self.start()

    def run(self) -> None:
        while data := self.socket.recv(1 << 20):
            self.received += len(data)


def alone(engine: Engine, nodes: int = NODES) -> Result:
    """Call the script of the service on each primary, as fast as each one answers."""
    publish, subscribe = ("SPUBLISH", "SSUBSCRIBE") if engine.is_cluster else ("PUBLISH", "SUBSCRIBE")
    subscribers: list[Subscriber] = []
    commands: list[list[str]] = []
    for primary, prefix in engine.shards():
        script = primary.client().script_load(SCRIPT)
        subscribers += [Subscriber(primary.port, subscribe, f"{prefix}channel:hall") for _ in range(nodes)]
        options = [prefix, "100", "3600", str(64 << 20), str(8 << 20), "200", publish, "0"]
        call = ["EVALSHA", script, "2", f"{prefix}nodes", f"{prefix}sequence:hall", *options]
        load = ["redis-benchmark", "-p", str(primary.port), "-n", str(CALLS), "-c", "4", "-P", "50", "-q"]
        commands.append([*load, *call, "publish", "hall", MESSAGE, "-", "id", "0"])
    used, began = engine.cpu(), monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    for each in running:
        assert each.wait(timeout=300) == 0
    seconds = monotonic() - began
    most = max(after - before for after, before in zip(engine.cpu(), used, strict=True))
    for subscriber in subscribers:
        assert subscriber.received > CALLS * len(MESSAGE) // 2, "nobody received what was published"
        subscriber.socket.shutdown(socket.SHUT_RDWR)
        subscriber.join(timeout=60)
        subscriber.socket.close()
    messages = CALLS * len(commands)
    return Result(messages / seconds, nodes * messages / seconds, most / messages * 1e6, 0)


async def through(nodes: list[Service], engine: Engine) -> Result:
    """Publish into a room of each shard at once, on both nodes, until all clients have received everything."""
    loop = asyncio.get_running_loop()
    names = [
        next(f"room{each}" for each in count() if crc32(f"room{each}".encode()) % SHARDS == n) for n in range(SHARDS)
    ]
    last = f'"{POURED - 1} {"x" * 75}"}}'.encode()
    async with AsyncExitStack() as stack, Crowd() as crowd:
        listeners: list[Listener] = []
        for number, name in enumerate(names * LISTENERS):
            host, port = nodes[number // SHARDS % 2].address.split(":")
            _, listener = await loop.create_connection(lambda: Listener(f"/ws/crowd/{name}", last), host, int(port))  # noqa: B023
            stack.callback(listener.transport.close)
            listeners.append(listener)
        await asyncio.gather(*[listener.joined for listener in listeners])
        speakers: list[Client] = []
        for number, name in enumerate(names):
            speaker = await crowd.join(nodes[number % 2], f"/ws/crowd/{name}")
            await speaker.tell(type="leave")
            await speaker.receive("answer")
            speakers.append(speaker)
        pids = [node.process.pid for node in nodes]
        used, ours, began = engine.cpu(), cpu(*pids), monotonic()
        for speaker in speakers:
            await speaker.tell(type="pour", messages=POURED, size=75)
        await asyncio.gather(*[listener.done for listener in listeners])
        seconds = monotonic() - began
        most = max(after - before for after, before in zip(engine.cpu(), used, strict=True))
        messages = POURED * SHARDS
        services = (cpu(*pids) - ours) / messages * 1e6
        return Result(messages / seconds, messages * LISTENERS / seconds, most / messages * 1e6, services)


def compare(project: Path) -> dict[str, dict[str, list[Result]]]:
    """Measure all engines in turns."""
    kinds = "the engine alone", f"the engine alone, {MANY_NODES} nodes", "through two nodes"
    results: dict[str, dict[str, list[Result]]] = {kind: {} for kind in kinds}
    with ExitStack() as stack:
        engines = [Engine(primaries) for primaries in range(4)]
        services: list[list[Service]] = []
        for engine in engines:
            stack.callback(engine.server.remove)
            engine.start()
            lifted = {"publish_seconds": 60, "ping_interval": 3600}
            services.append([Service(project, fanout_url=engine.server.url, **lifted) for _ in range(2)])
            for service in services[-1]:
                stack.callback(service.stop)
        for _ in range(ROUNDS):
            for engine, nodes in zip(engines, services, strict=True):
                taken = alone(engine), alone(engine, MANY_NODES), asyncio.run(through(nodes, engine))
                for kind, result in zip(kinds, taken, strict=True):
                    results[kind].setdefault(engine.name, []).append(result)
    return results


def write(results: dict[str, dict[str, list[Result]]]) -> None:
    sys.stdout.write(
        "| what | engine | messages/s | against one Redis | deliveries/s | busiest primary, µs CPU | services |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for what, engines in results.items():
        for name, rounds in engines.items():
            messages, deliveries, busiest, services = (statistics.median(each) for each in zip(*rounds, strict=True))
            ones = engines["one Redis"]
            ratio = statistics.median(each.messages / one.messages for each, one in zip(rounds, ones, strict=True))
            numbers = f"{messages:,.0f} | {ratio:.2f} | {deliveries:,.0f} | {busiest:.1f} | {services:.0f}"
            sys.stdout.write(f"| {what} | {name} | {numbers} |\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = rendered(Path(folder), fanout="redis")
        add_listener(project, "crowd", CROWD)
        write(compare(project))


if __name__ == "__main__":
    main()
