"""What is published while the scope of a message is open: it is held back until the scope has been left."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Publish = Callable[[], asyncio.Future[int]]


class HeldPublish(asyncio.Future[int]):
    """The result of a `publish` that is held back. It cannot be awaited until then: that would wait for ever."""

    held = True

    def __await__(self) -> Generator[Any, None, int]:
        """Wait for the result."""
        self._check()
        return super().__await__()

    __iter__ = __await__

    def add_done_callback(self, *args: Any, **options: Any) -> None:
        """Call a function with the result; asyncio's `wait` and `gather` do."""
        self._check()
        super().add_done_callback(*args, **options)

    def _check(self) -> None:
        if self.held:
            raise RuntimeError(
                "publish() is awaited inside a per_message scope, which holds it back until the scope has been left. "
                "Fix: call it without await"
            )


class Outbox:
    """The messages that are held back, in order."""

    def __init__(self) -> None:
        self._held: list[tuple[HeldPublish, Publish]] = []
        self.is_open = True

    def hold(self, publish: Publish) -> asyncio.Future[int]:
        """Keep what publishes a message, and return its future."""
        future = HeldPublish()
        self._held.append((future, publish))
        return future

    def close(self, *, publishes: bool) -> None:
        """Publish what is held, or drop it."""
        self.is_open = False
        for future, publish in self._held:
            future.held = False
            if publishes:
                _copy(publish(), future)
            else:
                future.cancel()


def current_outbox() -> Outbox | None:
    """Return what holds back messages here and now."""
    outbox = _outbox.get()
    return outbox if outbox and outbox.is_open else None


@contextmanager
def hold_publishes() -> Generator[None]:
    """Hold back what is published inside; drop it where an exception comes out."""
    outbox, is_left = Outbox(), False
    token = _outbox.set(outbox)
    try:
        yield
        is_left = True
    finally:
        _outbox.reset(token)
        outbox.close(publishes=is_left)


def _copy(source: asyncio.Future[int], target: asyncio.Future[int]) -> None:
    def copy(done: asyncio.Future[int]) -> None:
        if target.done():
            return
        if error := done.exception():
            target.set_exception(error)
            target.exception()  # else asyncio logs it where nobody awaits the future
        else:
            target.set_result(done.result())

    source.add_done_callback(copy)


_outbox: ContextVar[Outbox | None] = ContextVar("outbox", default=None)
