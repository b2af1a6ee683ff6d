"""What one node and one engine carry, in messages that come a hundred at once: the table of docs/scale.md."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import monotonic

from tests.crowd import CROWD
from tests.engines import EngineServer, PostgresServer, RedisServer
from tests.service import Service, add_listener
from tests.test_fanout import Client, Crowd, Listener

from .report import Findings
from .rounds import tell
from .servers import cpu, rendered

ENGINES: dict[str, tuple[str, Callable[[], EngineServer] | None]] = {
    "memory": ("memory", None),
    "redis, history": ("redis", RedisServer),
    "redis, pub/sub": ("redis", RedisServer),
    "postgres": ("postgres", PostgresServer),
}
"""The answer to the question `fanout`, and the server."""


async def pour(service: Service, engine: EngineServer | None, listeners: int, messages: int, size: int) -> list[float]:
    """Publish into a room with so many listeners; return messages a second, and µs of CPU for each, ours and theirs."""
    loop = asyncio.get_running_loop()
    last = f'"{messages - 1} {"x" * size}"}}'.encode()
    host, port = service.address.split(":")
    async with AsyncExitStack() as stack, Crowd() as crowd:
        clients: list[Listener] = []
        for _ in range(listeners):
            _, listener = await loop.create_connection(lambda: Listener("/ws/crowd/hall", last), host, int(port))
            stack.callback(listener.transport.close)
            clients.append(listener)
        await asyncio.gather(*[listener.joined for listener in clients])
        speaker: Client = await crowd.join(service, "/ws/crowd/hall")
        await speaker.tell(type="leave")
        await speaker.receive("answer")
        pids = [service.process.pid], [engine.process.pid] if engine and engine.process else []
        before, began = [cpu(*each) for each in pids], monotonic()
        await speaker.tell(type="pour", messages=messages, size=size)
        await asyncio.gather(*[listener.done for listener in clients])
        seconds = monotonic() - began
        used = [cpu(*each) - at for each, at in zip(pids, before, strict=True)]
        return [messages / seconds, *(each / messages * 1e6 for each in used)]


async def wander(service: Service, rooms: int) -> float:
    """Join, publish to and leave rooms, one after the other; return milliseconds for each."""
    async with Crowd() as crowd:
        wanderer: Client = await crowd.join(service, "/ws/crowd/hall")
        began = monotonic()
        await wanderer.tell(type="wander", rooms=rooms)
        await wanderer.connection.recv()
        return (monotonic() - began) / rooms * 1000


def measure(folder: Path, rounds: int) -> Findings:
    """Fill rooms of one listener and of a thousand, with each engine whose program is there."""
    rows: list[list[str]] = []
    for name, (answer, make) in ENGINES.items():
        tell(f"  {name} ")
        with ExitStack() as stack:
            engine = make() if make else None
            if engine and not engine.path():
                tell(f"is left out, for {engine.program} is missing\n")
                continue
            if engine:
                stack.callback(engine.remove)
                engine.start()
            project = rendered(folder, fanout=answer)
            add_listener(project, "crowd", CROWD)
            settings: dict[str, object] = {"fanout_url": engine.url, "publish_seconds": 60} if engine else {}
            history = 0 if name == "redis, pub/sub" else 100
            service = Service(project, history=history, ping_interval=3600, **settings)
            stack.callback(service.stop)
            for listeners, messages, size in ((1, 10_000, 100), (1000, 2000, 100), (1, 2000, 10_000)):
                taken = [asyncio.run(pour(service, engine, listeners, messages, size)) for _ in range(rounds)]
                rate, ours, theirs = (median(column) for column in zip(*taken, strict=True))
                numbers = [f"{listeners:,}", f"{size:,}", f"{rate:,.0f}", f"{rate * listeners:,.0f}"]
                rows.append([name, *numbers, f"{ours:,.0f}", f"{theirs:,.0f}", ""])
                tell(".")
            rows[-3][-1] = f"{median(asyncio.run(wander(service, 1000)) for _ in range(rounds)):.2f}"
        tell("\n")
    head = ["engine", "listeners", "bytes", "messages/s", "deliveries/s", "service, µs CPU a message", "engine, µs CPU"]
    packages = {name: version(name) for name in ("litestar", "redis", "psycopg", "uvloop")}
    return Findings([*head, "ms to join, publish and leave"], rows, packages)
