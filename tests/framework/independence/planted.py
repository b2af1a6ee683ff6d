"""Mistakes, each planted by a seed into one of the fifty listeners: what it keeps is not its connection's own."""

import random
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from my_service.realtime import Cause, Socket

from .listeners import FIFTY, Connection

Store = dict[Any, Any]


# Five shapes of mistake: what is kept for all, and what a connection is sent of it.


def counts(store: Store, _: Any) -> Any:
    store["count"] = store.get("count", 0) + 1
    return store["count"]


def tells_the_latest(store: Store, text: Any) -> Any:
    before, store["latest"] = store.get("latest"), text
    return before


def tells_the_first(store: Store, text: Any) -> Any:
    return store.setdefault("first", text)


def collects(store: Store, text: Any) -> Any:
    store.setdefault("texts", []).append(text)
    return [*store["texts"]]


def knows_it_already(store: Store, text: Any) -> Any:
    """A cache, which another has filled with the same text."""
    store[text] = store.get(text, 0) + 1
    return store[text] > 1


SHAPES = counts, tells_the_latest, tells_the_first, collects, knows_it_already


# Ten places in which it is kept.

MODULE: Store = {}
BY_ADDRESS: dict[str, Store] = {}
BY_PATH: dict[str, Store] = {}
POOL: list[Store] = []
GONE: Store = {}
IN_CONTEXT: ContextVar[Store] = ContextVar("kept", default={})  # noqa: B039


class Client:
    kept: Store = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.mine: Store = {}


CLIENT = Client()


def in_a_module(_: Socket) -> Store:
    return MODULE


def in_a_default(_: Socket, kept: Store = {}) -> Store:  # noqa: B006
    return kept


def in_a_class(_: Socket) -> Store:
    return Client.kept


def in_a_client(_: Socket) -> Store:
    return CLIENT.mine


def in_the_application(socket: Socket) -> Store:
    if "kept" not in socket.app.state:
        socket.app.state.kept = {}
    kept: Any = socket.app.state
    return kept.kept  # type: ignore[no-any-return]


@cache
def cached() -> Store:
    return {}


def in_a_cache(_: Socket) -> Store:
    return cached()


def in_a_context(_: Socket) -> Store:
    return IN_CONTEXT.get()


def by_address(socket: Socket) -> Store:
    return BY_ADDRESS.setdefault(socket.client.host if socket.client else "", {})


def by_path(socket: Socket) -> Store:
    return BY_PATH.setdefault(socket.scope["path"], {})


def in_a_pool(_: Socket) -> Store:
    return POOL.pop() if POOL else {}


PLACES = (
    *(in_a_module, in_a_default, in_a_class, in_a_client, in_the_application),
    *(in_a_cache, in_a_context, by_address, by_path, in_a_pool),
)


@dataclass(slots=True)
class Kept:
    """What a connection keeps, in the place and in the shape of a mistake."""

    shape: Callable[[Store, Any], Any]
    store: Store
    first: int
    """From which message on it tells."""
    texts: list[Any] = field(default_factory=list[Any])

    def add(self, text: Any) -> Any:
        self.texts.append(text)
        told = self.shape(self.store, text)
        return told if len(self.texts) >= self.first else text


@dataclass(frozen=True)
class Mistake:
    """One mistake. It has the hooks of the service with which it is planted."""

    seed: int
    handler: Any
    shape: Callable[[Store, Any], Any]
    place: Callable[[Socket], Store]
    first: int

    async def on_accept(self, socket: Socket, connection: Connection) -> None:
        """Give the connection what is not its own."""
        connection.kept = Kept(self.shape, self.place(socket), self.first)

    async def on_disconnect(self, socket: Socket, connection: Connection, cause: Cause) -> None:
        """Give it back to the pool, where it is from one."""
        if self.place is in_a_pool:
            POOL.append(connection.kept.store)


def plant(seed: int) -> Mistake:
    """Return the mistake of a seed."""
    chance = random.Random(seed)  # noqa: S311
    return Mistake(
        seed,
        chance.choice(FIFTY),
        SHAPES[seed % len(SHAPES)],
        PLACES[seed // len(SHAPES) % len(PLACES)],
        chance.choice([1, 1, 1, 2, 3]),
    )
