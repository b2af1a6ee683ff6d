"""What one node and one engine carry: `uv run python -m benchmarks.fanout` prints the tables of docs/scale.md.

CPU time is that of the processes, from the operating system's accounting; each number is the median of some rounds.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from tests.crowd import CROWD
from tests.engines import EngineServer, PostgresServer, RedisServer
from tests.rendering import copy_of_the_template, environment, render
from tests.service import Service
from tests.test_fanout import Crowd, Ear, Listener

ROUNDS = 3
ENGINES: dict[str, Callable[[], EngineServer] | None] = {
    "memory": None,
    "redis, history": RedisServer,
    "redis, pub/sub": RedisServer,
    "postgres": PostgresServer,
}
SETTINGS: dict[str, object] = {"publish_seconds": 60, "ping_interval": 3600}


def cpu(*pids: int) -> float:
    """Seconds of CPU that processes and their living children have used."""
    ticks = 0
    for pid in pids:
        for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def pour(service: Service, engine: EngineServer | None, listeners: int, messages: int, size: int) -> list[float]:
    """Publish into a room with so many listeners; return messages a second, and µs of CPU for each, ours and theirs."""
    loop = asyncio.get_running_loop()
    last = f'"{messages - 1} {"x" * size}"}}'.encode()
    host, port = service.address.split(":")
    async with AsyncExitStack() as stack, Crowd() as crowd:
        heard: list[Listener] = []
        for _ in range(listeners):
            _, listener = await loop.create_connection(lambda: Listener("/ws/crowd/hall", last), host, int(port))
            stack.callback(listener.transport.close)
            heard.append(listener)
        await asyncio.gather(*[listener.opened for listener in heard])
        speaker: Ear = await crowd.join(service, "/ws/crowd/hall")
        await speaker.tell(type="leave")
        await speaker.hear("answer")
        pids = [service.process.pid], [engine.process.pid] if engine and engine.process else []
        before, began = [cpu(*each) for each in pids], monotonic()
        await speaker.tell(type="pour", messages=messages, size=size)
        await asyncio.gather(*[listener.done for listener in heard])
        seconds = monotonic() - began
        used = [cpu(*each) - at for each, at in zip(pids, before, strict=True)]
        return [messages / seconds, *(each / messages * 1e6 for each in used)]


async def wander(service: Service, rooms: int) -> float:
    """Join, publish to and leave rooms, one after the other; return milliseconds for each."""
    async with Crowd() as crowd:
        wanderer: Ear = await crowd.join(service, "/ws/crowd/hall")
        began = monotonic()
        await wanderer.tell(type="wander", rooms=rooms)
        await wanderer.connection.recv()
        return (monotonic() - began) / rooms * 1000


def measure(project: Path) -> None:
    out: Callable[[str], Any] = sys.stdout.write
    out("| engine | listeners | bytes | messages/s | deliveries/s | service, µs CPU a message | engine |\n")
    out("|---|---|---|---|---|---|---|\n")
    walks: list[str] = []
    for name, make in ENGINES.items():
        with ExitStack() as stack:
            engine = make() if make else None
            if engine:
                stack.callback(engine.remove)
                engine.start()
            history = 0 if name == "redis, pub/sub" else 100
            service = Service(project, fanout_url=engine.url if engine else "memory://", history=history, **SETTINGS)
            stack.callback(service.stop)
            for listeners, messages, size in ((1, 10_000, 100), (1000, 2000, 100), (1, 2000, 10_000)):
                rounds = [asyncio.run(pour(service, engine, listeners, messages, size)) for _ in range(ROUNDS)]
                rate, ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
                out(
                    f"| {name} | {listeners:,} | {size:,} | {rate:,.0f} | {rate * listeners:,.0f} | {ours:,.0f} | "
                    f"{theirs:,.0f} |\n"
                )
            walks.append(f"| {name} | {asyncio.run(wander(service, 2000)):.2f} |\n")
    out("\n| engine | ms to join a room, publish to it and leave it |\n|---|---|\n" + "".join(walks))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        template = copy_of_the_template(Path(folder, "template"))
        project = render(template, Path(folder, "my-service"), listeners=["crowd"])
        (project / "src/my_service/listeners/crowd.py").write_text(CROWD)
        environment(project)
        measure(project)


if __name__ == "__main__":
    main()
