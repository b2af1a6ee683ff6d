"""What a second process of the service buys: `uv run python -m benchmarks.cores` prints the table of docs/scale.md.

One and two processes, with one Redis, directly and behind the nginx that ships, in turns. CPU time is that of the
processes, from the operating system's accounting; each number is the median of some rounds.
"""

import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from tests.engines import RedisServer
from tests.nginx import Nginx
from tests.rendering import copy_of_the_template, environment, render
from tests.service import Service, frame, handshake

from .servers import cpu

ROUNDS = 5
SECONDS = 3
CLIENTS, WINDOW = 64, 16
SAY = frame(b'{"type":"say","text":"hi"}')
SAID = b'"type":"said"'


class Client(asyncio.Protocol):
    """It keeps so many messages on the way, and counts what it receives."""

    def __init__(self, path: str, window: int) -> None:
        self._handshake = handshake(path)
        self._window = window
        self._tail = b""
        self._transport: Any = None
        self.received = 0
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._handshake)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            if not data.startswith(b"HTTP/1.1 101 "):
                raise SystemExit(f"refused: {data!r}")
            self.opened.set_result(None)
        data = self._tail + data
        received = data.count(SAID)
        self._tail = data[-len(SAID) + 1 :]
        self.received += received
        if self._window and received:
            self._transport.write(SAY * received)

    def begin(self) -> None:
        self._transport.write(SAY * self._window)

    def close(self) -> None:
        self._transport.abort()


class Result(NamedTuple):
    """Messages that clients received per second; µs of CPU for each, of service and nginx; cores of all that ran."""

    rate: float
    service: float
    nginx: float
    cores: float


async def measure(addresses: list[str], path: str, talking: int, services: list[int], nginx: list[int]) -> Result:
    """Spread clients over the addresses, let so many of them talk, and count what all of them receive."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for number in range(CLIENTS):
        host, port = addresses[number % len(addresses)].split(":")
        _, client = await loop.create_connection(
            lambda talks=number < talking: Client(path, WINDOW * talks),  # type: ignore[misc]
            host,
            int(port),
        )
        clients.append(client)
    await asyncio.gather(*[client.opened for client in clients])
    for client in clients:
        client.begin()
    await asyncio.sleep(SECONDS / 4)
    received, began = sum(client.received for client in clients), monotonic()
    before, ours, theirs = idle(), cpu(*services), cpu(*nginx)
    await asyncio.sleep(SECONDS)
    count, seconds = sum(client.received for client in clients) - received, monotonic() - began
    used = cpu(*services) - ours, cpu(*nginx) - theirs
    cores = (idle()[1] - before[1] - (idle()[0] - before[0])) / 100 / seconds
    for client in clients:
        client.close()
    return Result(count / seconds, used[0] / count * 1e6, used[1] / count * 1e6, cores)


def idle() -> tuple[int, int]:
    """The ticks in which the machine had nothing to do, and all of its ticks."""
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return ticks[3] + ticks[4], sum(ticks)


def compare(project: Path) -> None:
    with ExitStack() as stack:
        redis = RedisServer(appends=False)
        stack.callback(redis.remove)
        redis.start()
        lifted: dict[str, Any] = {"max_connections_per_address": 0, "trusted_proxies": "127.0.0.9"}
        nodes = [Service(project, fanout_url=redis.url, log_level="INFO", **lifted) for _ in range(2)]
        for node in nodes:
            stack.callback(node.stop)
        pids = [node.process.pid for node in nodes]
        proxies = [Nginx(project, *[node.address for node in nodes[:count]]) for count in (1, 2)]
        for proxy in proxies:
            stack.callback(proxy.remove)
            proxy.start()
        ways = {
            "one process": ([nodes[0].address], []),
            "two processes, two ports": ([node.address for node in nodes], []),
            "one process behind nginx": ([f"127.0.0.1:{proxies[0].port}"], [proxies[0]]),
            "two processes behind nginx": ([f"127.0.0.1:{proxies[1].port}"], [proxies[1]]),
        }
        rounds: dict[tuple[str, str], list[Result]] = {}
        for _ in range(ROUNDS):
            for way, (addresses, used) in ways.items():
                servers = [proxy.process.pid for proxy in used if proxy.process]
                for what, path, talking in (("echo", "/ws/echo", CLIENTS), ("a room", "/ws/rooms/hall", 1)):
                    result = asyncio.run(measure(addresses, path, talking, pids, servers))
                    rounds.setdefault((what, way), []).append(result)
        write(rounds)


def write(rounds: dict[tuple[str, str], list[Result]]) -> None:
    sys.stdout.write(
        "| what | where | received/s | against one process | service, µs CPU each | nginx | cores busy |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for (what, way), results in rounds.items():
        rate, service, nginx, cores = (statistics.median(column) for column in zip(*results, strict=True))
        ones = rounds[what, "one process"]
        ratio = statistics.median(each.rate / one.rate for each, one in zip(results, ones, strict=True))
        sys.stdout.write(
            f"| {what} | {way} | {rate:,.0f} | {ratio:.2f} | {service:.1f} | {nginx:.1f} | {cores:.1f} |\n"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        template = copy_of_the_template(Path(folder, "template"))
        project = render(template, Path(folder, "my-service"), docker=True, fanout="redis")
        environment(project)
        compare(project)


if __name__ == "__main__":
    main()
