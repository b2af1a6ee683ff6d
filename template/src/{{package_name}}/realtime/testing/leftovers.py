"""Find what a connection leaves behind: tasks, timers, open resources, the `Connection` itself, memory."""

import asyncio
import gc
import io
import socket
import sys
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from itertools import count
from pathlib import Path
from types import AsyncGeneratorType, CodeType, ModuleType
from typing import Any, Final
from weakref import ref

from ..settings import PACKAGE
from .process import TIMEOUT

MAX_STEPS: Final = 4
"""References from a variable to what it holds, at most: a registry, a list in it, an object in that."""

MANY: Final = 50
"""Connections after which nothing has grown by as much."""


async def until(condition: Callable[[], Any], seconds: float = TIMEOUT) -> bool:
    """Wait until a condition is met, for so many seconds at most; return whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for turn in count():
                if condition():
                    break
                await asyncio.sleep(0 if turn < 20 else 0.001)
    return bool(condition())


async def find_leftovers(seconds: float, live: Callable[[], Awaitable[Any]]) -> list[str]:
    """Say what is left of a connection.

    Args:
        seconds: Seconds in which its tasks and timers may end by themselves.
        live: Has a connection begin and end; returns its `Connection`, which nothing else may hold then.
    """
    uncaught: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: uncaught.append(f"{context['message']}: {context!r}")
    )
    gc.collect()
    gc.freeze()  # what is there already is not left by this connection
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        connection = await live()
        await until(lambda: not find_open(), seconds)
        left = find_open()
        holders = {f"Connection.{each.name}": getattr(connection, each.name) for each in fields(connection)}
        found = [f"{_describe(each)}{_held_by(each, holders | _variables())}" for each in left]
        for each in left:
            each.close() if hasattr(each, "close") else each.cancel() if hasattr(each, "cancel") else None
        each, kept = None, ref(connection)
        del connection, left, holders
        if not (found or await until(lambda: collect() and kept() is None, seconds)):
            found = [f"its Connection{_held_by(kept(), _variables())}"]
    return [*found, *(str(warning.message) for warning in warned), *uncaught]


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


def collect() -> list[Any]:
    """Collect the garbage, and return what was made since `gc.freeze`."""
    gc.collect()
    made = gc.get_objects()
    for each in made:
        if isinstance(each, asyncio.TimerHandle) and each.cancelled():
            cancelled: Any = each
            cancelled._context = None  # else its variables live on until it would have been due
    return made


def find_open() -> list[Any]:
    """Return what was made since `gc.freeze`, and has to end or to be closed."""
    return [each for each in collect() if is_open(each)]


def is_open(value: Any) -> bool:
    """Return whether something has to end or to be closed, and has not."""
    if isinstance(value, asyncio.Task):
        return not value.done()
    if isinstance(value, asyncio.TimerHandle):  # a task that sleeps is left itself
        is_late = value.when() > asyncio.get_running_loop().time() + 1
        return is_late and not value.cancelled() and "_set_result_unless_cancelled" not in repr(value)
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
