"""Find what a connection leaves behind: tasks, timers, open resources, the `Connection` itself, memory."""

import asyncio
import gc
import io
import socket
import sys
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import AsyncGeneratorType, CodeType, ModuleType
from typing import Any, Final
from weakref import WeakSet, ref

from ..settings import PACKAGE

MAX_STEPS: Final = 4
"""References from a variable to what it holds, at most: a registry, a list in it, an object in that."""

MANY: Final = 50
"""Connections after which nothing has grown by as much."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop that records its timers and uncaught exceptions."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: WeakSet[asyncio.TimerHandle] = WeakSet()
        self.uncaught: list[str] = []
        self.set_exception_handler(lambda _, context: self.uncaught.append(f"{context['message']}: {context!r}"))

    def call_at(self, *arguments: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        """Note the timer; `call_later` calls this."""
        timer = super().call_at(*arguments, **options)
        self.timers.add(timer)
        return timer

    def pending(self) -> set[Any]:
        """Return the tasks and timers that are there now, but for the timer of a task that sleeps."""
        for timer in self.timers:
            if timer.cancelled():
                cancelled: Any = timer
                cancelled._context = None  # else its variables live on until it would have been due
        timers = {each for each in self.timers if not each.cancelled() and each.when() > self.time()}
        return asyncio.all_tasks(self) | {each for each in timers if "_set_result_unless_cancelled" not in repr(each)}


async def find_leftovers(loop: Loop, seconds: float, live: Callable[[], Awaitable[Any]]) -> list[str]:
    """Say what is left of a connection.

    Args:
        loop: The event loop that runs.
        seconds: Seconds in which its tasks and timers may end by themselves.
        live: Has a connection begin and end; returns its `Connection`, which nothing else may hold then.
    """
    before = loop.pending()
    loop.uncaught.clear()
    gc.collect()
    gc.freeze()  # what is there already is not left by this connection
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        connection = await live()
        deadline = loop.time() + seconds
        while (pending := loop.pending() - before) and loop.time() < deadline:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.001)
        gc.collect()
        tasks = pending & asyncio.all_tasks()
        left: list[Any] = [*tasks, *(each for each in pending - tasks if each.when() > loop.time() + 1)]
        left += [each for each in gc.get_objects() if is_open(each)]
        holders = {f"Connection.{each.name}": getattr(connection, each.name) for each in fields(connection)}
        found = [f"{_describe(each)}{_held_by(each, holders | _variables())}" for each in left]
        for each in left:
            each.close() if hasattr(each, "close") else each.cancel() if hasattr(each, "cancel") else None
        del left, tasks, pending, holders
        each, kept = None, ref(connection)
        del connection
        deadline = loop.time() + seconds
        while kept() is not None and not found and loop.time() < deadline:
            await asyncio.sleep(0.001)
            loop.pending()
            gc.collect()
        if kept() is not None and not found:
            found = [f"its Connection{_held_by(kept(), _variables())}"]
    return [*found, *(str(warning.message) for warning in warned), *loop.uncaught]


async def find_growth(live: Callable[[], Awaitable[Any]]) -> list[str]:
    """Say what grows with each connection.

    Args:
        live: Has a connection begin and end.
    """

    def sizes() -> dict[str, int]:
        found = {name: len(each) for name, each in _variables().items() if type(each) in {list, dict, set, deque}}
        return found | {"the number of open files": len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0}

    before = sizes()
    for _ in range(MANY):
        await live()
    gc.collect()
    return [
        f"{name} grows with each connection" for name, size in sizes().items() if size >= before.get(name, 0) + MANY
    ]


DESCRIPTORS: Final = Path("/dev/fd")
"""The file descriptors of this process, where the system lists them."""


def is_open(value: Any) -> bool:
    """Return whether something has to be closed, and is not."""
    if isinstance(value, AsyncGeneratorType):
        return value.ag_frame is not None and value.ag_frame.f_lasti > 0  # it has begun
    if isinstance(value, asyncio.BaseTransport):
        return not value.is_closing()
    if isinstance(value, socket.socket):
        return value.fileno() != -1
    return isinstance(value, io.FileIO) and not value.closed


def _describe(value: Any) -> str:
    """Say what something is, and where it was written."""
    if isinstance(value, asyncio.Task):
        return f"the task {_code_of(value.get_coro())}"
    if isinstance(value, AsyncGeneratorType):
        return f"the open async generator {_code_of(value)}"
    return f"the timer {value!r}" if isinstance(value, asyncio.TimerHandle) else f"{value!r}, which is open"


def _code_of(coroutine: Any) -> str:
    code: CodeType | None = getattr(coroutine, "cr_code", None) or getattr(coroutine, "ag_code", None)
    return (
        f"{code.co_qualname} ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else repr(coroutine)
    )


def _variables() -> dict[str, Any]:
    """Return the variables of the service's own modules."""
    names = [name for name in sys.modules if f"{name}.".startswith(f"{PACKAGE}.") and ".realtime" not in name]
    return {f"{name}.{each}": value for name in names for each, value in vars(sys.modules[name]).items()}


def _held_by(target: Any, holders: Mapping[str, Any]) -> str:
    """Say which of some variables holds an object, the one with the shortest way first."""
    levels, seen = {name: [holder] for name, holder in holders.items()}, set[int]()
    for _ in range(MAX_STEPS):
        for name, level in levels.items():
            if any(each is target for each in level):
                return f", in {name}"
            seen.update(map(id, level))
            levels[name] = [each for held in level for each in _referents(held) if id(each) not in seen]
    return ""


def _referents(holder: Any) -> list[Any]:
    """Return what an object refers to; of classes and modules, only of the service's own."""
    if isinstance(holder, ModuleType) or (isinstance(holder, type) and not holder.__module__.startswith(PACKAGE)):
        return []
    return gc.get_referents(holder)
