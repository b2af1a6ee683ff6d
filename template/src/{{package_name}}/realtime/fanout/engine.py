"""The supervision of an engine: what keeps the fan-out alive when the engine, or the way to it, is not.

Litestar's own backends end in silence with the connection that they began with. Here a link that breaks is replaced,
after a wait that grows: the channels are listened to again; what was published meanwhile is caught up with, or a gap is
told; operations wait, bounded, for the next link; and who is present is made true again.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

import structlog
from litestar.channels.backends.base import ChannelsBackend
from litestar.exceptions import ServiceUnavailableException

from .link import Arrive, Depart, EngineRefusedError, History, Hole, Link, Operation, Publish, Published, Pulse, Since
from .settings import FanoutSettings

log = structlog.get_logger(__name__)
T = TypeVar("T")

ENGINE_SECONDS: Final = 5
"""What the engine may take for an answer, before the link to it counts as broken."""
FIRST_WAIT: Final = 0.1
MAX_WAIT: Final = 2.0
"""Seconds before the next try to connect, at most: they double, and each wait is a random part of them."""
BATCH: Final = 200
"""Operations, or channels, that the engine is given at once."""
AWAY: Final = "the engine of the fan-out is away"
MAX_WAITING: Final = 10_000
"""Operations that may wait for the engine; further ones fail at once."""


class FanoutUnavailableError(ServiceUnavailableException):
    """The engine of the fan-out was away for PUBLISH_SECONDS, or too much waits for it already.

    Where no handler catches it, a request is answered by 503 and a connection is closed with 1013: come back later.
    """


class _Waiting(NamedTuple):
    operation: Operation[Any]
    result: asyncio.Future[Any]
    deadline: float


@dataclass(slots=True)
class _Presence:
    """A member of a channel on this node."""

    arrival: asyncio.Future[None]
    joined: bytes
    left: bytes
    connections: int = 1


class Engine(ChannelsBackend):
    """A backend for Litestar Channels that outlives the links to its engine.

    Args:
        link: What connects to the engine.
        settings: Its URL, what it keeps, and how long it is waited for.
    """

    def __init__(self, link: type[Link], settings: FanoutSettings) -> None:
        self._connect = link.connect
        self._settings = settings
        self.times_lost = 0
        self.published = 0
        self.failed = 0
        """Operations that were given up."""
        self.gaps = 0
        self._begin()

    def _begin(self) -> None:
        self.node = uuid4().hex
        self._link: Link | None = None
        self._broken: asyncio.Future[None] | None = None
        self._tries = 0
        self._tried = asyncio.Event()
        self._up = asyncio.Event()
        self._away_since: float | None = None
        self._mistake = ""
        self._wanted: set[str] = set()
        self._heard: dict[str, int] = {}
        """The channels that the link listens to, and the last sequence that came of each."""
        self._missing: dict[str, int] = {}
        """The same of the links before, for the channels that are still to be caught up with."""
        self._held: dict[str, list[Published]] = {}
        """What comes of a channel before it is known where it stands."""
        self._aligning = asyncio.Lock()
        self._arrived: asyncio.Queue[tuple[str, Published]] = asyncio.Queue()
        self._waiting: deque[_Waiting] = deque()
        self._flying: list[_Waiting] = []
        """What the engine was given, and has not answered yet."""
        self._work = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._present: dict[tuple[str, str], _Presence] = {}
        self._lifetime = ""
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """There is a link, and it was in order when last looked at."""
        return self._up.is_set()

    @property
    def channels(self) -> int:
        """Channels that this node listens to."""
        return len(self._heard)

    @property
    def waiting(self) -> int:
        """Operations that wait for the engine."""
        return len(self._waiting)

    async def check(self) -> None:
        """Look whether the engine lets us in; if it is not there, that is no mistake.

        Raises:
            EngineRefusedError: It is there, and refuses.
        """
        try:
            async with asyncio.timeout(ENGINE_SECONDS):
                link = await self._connect(self._settings, self.node)
        except EngineRefusedError:
            raise
        except Exception:  # noqa: BLE001  whatever a driver raises where nobody listens
            return
        await link.close()

    def do(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Have an operation done, in the order in which this is called; await the result, or do not.

        Raises:
            FanoutUnavailableError: In the future: the engine was away for too long.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if len(self._waiting) >= MAX_WAITING:
            self._give_up(result, "too much waits for the engine of the fan-out")
            return result
        seconds = self._settings.publish_seconds
        self._waiting.append(_Waiting(operation, result, loop.time() + seconds))
        self._work.set()
        if self._expiry is None:
            self._expiry = loop.call_later(seconds, self._expire)
        return result

    async def arrive(self, channel: str, member: str, joined: bytes, left: bytes) -> None:
        """Note that a connection of a member is in a channel; publish `joined` if it is the member's first anywhere.

        Raises:
            FanoutUnavailableError: The engine was away for too long. Nonetheless `depart` is to be called.
        """
        presence = self._present.get((channel, member))
        if presence is None:
            arrival = self.do(Arrive(channel=channel, member=member, joined=joined, left=left))
            presence = self._present[channel, member] = _Presence(arrival, joined, left)
        else:
            presence.connections += 1
        await asyncio.shield(presence.arrival)

    def depart(self, channel: str, member: str) -> None:
        """Note that a connection of a member is gone; `left` is published if it was the last anywhere."""
        presence = self._present[channel, member]
        presence.connections -= 1
        if not presence.connections:
            del self._present[channel, member]
            self.do(Depart(channel=channel, member=member))

    def want(self, channel: str) -> None:
        """Listen to a channel as soon as that is possible, and for as long as it is not unsubscribed."""
        self._wanted.add(channel)
        if self.up:
            self._aligning_soon = asyncio.get_running_loop().create_task(self._align())

    async def listens(self, channels: Collection[str]) -> None:
        """Wait until all that is published on these channels comes here.

        Raises:
            FanoutUnavailableError: The engine was away for too long.
        """
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                while any(name in self._wanted and name not in self._heard for name in channels):
                    await self._up.wait()
                    await self._align()
        except TimeoutError:
            self.failed += 1
            raise FanoutUnavailableError(detail=AWAY) from None

    # --- What Litestar's plugin calls (litestar.channels.backends.base) ---

    async def on_startup(self) -> None:
        self._begin()
        self._supervisor = asyncio.create_task(self._supervise())
        await self._tried.wait()

    async def on_shutdown(self) -> None:
        if self.up and (pending := [waiting.result for waiting in (*self._flying, *self._waiting)]):
            await asyncio.wait(pending, timeout=ENGINE_SECONDS)
        if self._supervisor:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self._expiry:
            self._expiry.cancel()
        for waiting in self._waiting:
            self._give_up(waiting.result, "the service ends")

    async def publish(self, data: bytes, channels: Iterable[str]) -> None:
        """Publish as Litestar's plugin does; it never raises, for that would end the task behind `channels.publish`."""
        with suppress(FanoutUnavailableError):
            await asyncio.gather(*[self.do(Publish(channel=channel, data=data)) for channel in channels])

    async def subscribe(self, channels: Iterable[str]) -> None:
        names = tuple(channels)
        self._wanted.update(names)
        await self.listens(names)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        for name in channels:
            self._wanted.discard(name)
            self._missing.pop(name, None)
        # That nobody listens any more, the link is told when it is next aligned: whoever leaves waits for no engine.

    async def stream_events(self) -> AsyncGenerator[tuple[str, bytes], None]:
        while True:
            for _ in range(min(BATCH, self._settings.max_backlog)):
                yield await self._arrived.get()
            await asyncio.sleep(0)  # a burst must not fill the backlog of a reader before anything of it can be sent

    async def get_history(self, channel: str, limit: int | None = None) -> list[bytes]:
        history = await self.do(Since(channel=channel, after=0))
        return list(history.messages[-limit:] if limit else history.messages)

    # --- One link after the other ---

    async def _supervise(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ENGINE_SECONDS):
                    link = await self._connect(self._settings, self.node)
            except Exception as error:  # noqa: BLE001  a driver raises what it likes; each is a reason to try again
                self._complain(error)
            else:
                try:
                    await self._live(link)
                except Exception as error:  # noqa: BLE001
                    self._complain(error)
                finally:
                    self._forget_link()
                    with suppress(Exception):
                        async with asyncio.timeout(ENGINE_SECONDS):
                            await link.close()
            self._tried.set()
            await asyncio.sleep(random.uniform(0, min(MAX_WAIT, FIRST_WAIT * 2**self._tries)))  # noqa: S311
            self._tries = min(self._tries + 1, 10)

    async def _live(self, link: Link) -> None:
        """Use a link until it breaks; raise why."""
        self._link = link
        self._broken = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hear(link))
                pulse = await self._feel(link)
                await self._restore_presence(link, pulse)
                await self._align()
                if not self._broken.done():
                    tasks.create_task(self._work_off(link))
                    tasks.create_task(self._keep_alive(link))
                    self._rejoice()
                await self._broken
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    def _forget_link(self) -> None:
        self._link = None
        self._up.clear()
        self._missing.update((name, last) for name, last in self._heard.items() if name in self._wanted)
        self._heard.clear()
        self._held.clear()

    def _rejoice(self) -> None:
        if self._away_since is None:
            log.info("fan-out ready")
        else:
            log.info("fan-out back", seconds=round(monotonic() - self._away_since, 1))
        self._away_since = None
        self._mistake = ""
        self._tries = 0
        self._up.set()
        self._tried.set()

    def _complain(self, error: Exception) -> None:
        """Log that the engine is away: once, and once more where somebody has to mend something."""
        if self._link is not None and self._away_since is None:
            self.times_lost += 1
        detail = "no answer" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, EngineRefusedError) and self._mistake != str(error):
            self._mistake = str(error)
            log.error("fan-out refused", detail=str(error))
        elif self._away_since is None:
            log.error("fan-out away", detail=detail)
        self._away_since = self._away_since or monotonic()

    def _break(self, error: Exception) -> None:
        self._up.clear()  # at once: who waits for it must not come straight back to the same link
        if self._broken and not self._broken.done():
            self._broken.set_exception(error)
            self._broken.exception()  # so that asyncio does not complain where something else broke at the same time

    # --- What comes ---

    async def _hear(self, link: Link) -> None:
        async for name, published in link.events():
            if name in self._held:
                self._held[name].append(published)
            elif published.sequence > self._heard.get(name, published.sequence):
                self._heard[name] = published.sequence
                self._arrived.put_nowait((name, published))

    async def _align(self) -> None:
        """Have the link listen to the channels that are wanted, and to no others."""
        async with self._aligning:
            link = self._link
            if link is None:
                return
            try:
                for names in _batches(self._heard.keys() - self._wanted):
                    for name in names:
                        del self._heard[name]
                    async with asyncio.timeout(ENGINE_SECONDS):
                        await link.ignore(names)
                for names in _batches(self._wanted - self._heard.keys()):
                    async with asyncio.timeout(ENGINE_SECONDS):
                        await self._listen(link, names)
            except Exception as error:  # noqa: BLE001  whatever it is, this link is of no use any more
                self._break(error)

    async def _listen(self, link: Link, names: Sequence[str]) -> None:
        self._held.update((name, []) for name in names)
        await link.listen(names)
        looks = [Since(channel=name, after=self._missing.get(name)) for name in names]
        histories: list[History] = _without_failure(await link.apply(looks))
        for name, history in zip(names, histories, strict=True):
            self._catch_up(name, history)

    def _catch_up(self, name: str, history: History) -> None:
        """Pass on what was missed while there was no link, then what has come meanwhile; each once, and in order."""
        after = self._missing.pop(name, None)
        last = 0
        if after is not None:
            if (missed := history.missed(after)) != 0:
                self.gaps += 1
                self._arrived.put_nowait((name, Hole.of(name, missed)))
            for published in history.messages:
                self._arrived.put_nowait((name, published))
            last = history.sequence
        for published in self._held.pop(name):
            if published.sequence > last:
                last = published.sequence
                self._arrived.put_nowait((name, published))
        self._heard[name] = max(last, history.sequence)

    # --- What goes ---

    async def _work_off(self, link: Link) -> None:
        while True:
            await self._work.wait()
            batch = self._flying = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not self._waiting:
                self._work.clear()
            try:
                async with asyncio.timeout(ENGINE_SECONDS):
                    results = await link.apply([waiting.operation for waiting in batch])
            except BaseException:
                self._put_back(link)
                raise
            self._flying = []
            for waiting, result in zip(batch, results, strict=True):
                if waiting.result.done():
                    pass
                elif isinstance(result, Exception):
                    self.failed += 1
                    waiting.result.set_exception(result)
                else:
                    self.published += isinstance(waiting.operation, Publish)
                    waiting.result.set_result(result)

    def _put_back(self, link: Link) -> None:
        """Nobody knows what was done of the batch. What can be told apart is tried again; the rest fails."""
        batch, self._flying = self._flying, []
        for waiting in reversed(batch):
            if waiting.result.done():
                pass
            elif isinstance(waiting.operation, Publish) and not link.keeps_history:
                self._give_up(waiting.result, "the engine went away, and nobody knows who heard the message")
            else:
                waiting.operation.again = True
                self._waiting.appendleft(waiting)
        self._work.set()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and self._waiting[0].deadline <= now:
            self._give_up(self._waiting.popleft().result, AWAY)
        for waiting in self._flying:
            if waiting.deadline <= now:
                self._give_up(waiting.result, AWAY)
        upcoming = next((each for each in (*self._flying, *islice(self._waiting, 1)) if not each.result.done()), None)
        self._expiry = loop.call_at(upcoming.deadline, self._expire) if upcoming else None

    def _give_up(self, result: asyncio.Future[Any], detail: str) -> None:
        if not result.done():
            self.failed += 1
            result.set_exception(FanoutUnavailableError(detail=detail))
            result.exception()  # so that asyncio does not complain where nobody awaits it

    # --- Who is there ---

    async def _keep_alive(self, link: Link) -> None:
        while True:
            await asyncio.sleep(min(ENGINE_SECONDS, self._settings.presence_seconds / 3))
            await self._align()
            pulse = await self._feel(link)
            if not pulse.known or pulse.lifetime != self._lifetime:
                await self._restore_presence(link, pulse)

    async def _feel(self, link: Link) -> Pulse:
        async with asyncio.timeout(ENGINE_SECONDS):
            return await link.pulse()

    async def _restore_presence(self, link: Link, pulse: Pulse) -> None:
        """Make what the engine believes of this node true again.

        Where the others took this node for dead, they were told that its members left, and hear of them again; where
        the engine has forgotten all, nobody was told anything.
        """
        buried = pulse.lifetime == self._lifetime
        async with asyncio.timeout(ENGINE_SECONDS):
            believed = await link.entries()
        there = {key: presence for key, presence in self._present.items() if presence.arrival.done()}
        changes: list[Operation[None]] = [
            Depart(channel=channel, member=member) for channel, member in believed - self._present.keys()
        ]
        for channel, member in there.keys() - believed:
            presence = there[channel, member]
            joined = presence.joined if buried else b""
            changes.append(Arrive(channel=channel, member=member, joined=joined, left=presence.left))
        for some in _batches(changes):
            async with asyncio.timeout(ENGINE_SECONDS):
                _without_failure(await link.apply(some))
        self._lifetime = pulse.lifetime


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into lists of at most BATCH; `itertools.batched` is of Python 3.12."""
    rest = iter(tuple(items))
    while some := list(islice(rest, BATCH)):
        yield some


def _without_failure(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
