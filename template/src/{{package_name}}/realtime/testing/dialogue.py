"""Dialogues of several clients with the application, each run in a fork of the process that has built it.

No server and no network: the application is called as a server calls it, in an event loop that says when nothing is
left to do. So a step of a dialogue is known to be done, and nothing waits for time to pass.
"""

import asyncio
import gc
import logging
import os
import pickle
import random
import select
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, fields
from functools import partial
from selectors import DefaultSelector, SelectorKey
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote

import msgspec
from litestar import Litestar

from ..fanout.messages import Gap, Members
from ..fanout.plugin import CHANNELS_KEY, Fanout
from ..handlers.route_handler import ListenerRouteHandler
from ..sessions.limits import NOT_JSON
from ..sessions.session import SESSION_KEY, Session, Socket
from .process import TIMEOUT, Identify
from .strategies import is_object

STEP_SECONDS: Final = 30
"""How long the service may be busy with a step, in the time of its event loop, before the next one comes."""

LAST_SECONDS: Final = 3
"""How long a dialogue goes on after its last step, in the time of its event loop: tasks and timers may do more."""

MAX_FRAMES: Final = 100
"""Frames that a client receives before nobody waits for more of them: a stream may have no end."""

MAX_UNENDED: Final = 10
"""Frames that are compared of a stream that has not ended with the dialogue: how many there are is chance."""

MUTABLE: Final = (list, dict, set, bytearray)
"""What two connections must not have in common."""

GAP: Final = Gap.__struct_config__.tag
"""What tells a client that a channel has more than it receives."""

REFUSED: Final = "is refused with HTTP "
"""How a connection ends that does not begin."""

SPEAKER: ContextVar[str] = ContextVar("speaker", default="")
"""Whose connection the code runs for."""


class Step(NamedTuple):
    """What one client does."""

    who: str
    does: str
    """It "connects to" a path, "says" a frame, or "leaves"."""
    what: str | bytes = ""
    waits: bool = True
    """The next step comes when the service has nothing more to do."""
    subprotocols: tuple[str, ...] = ()
    user: str = ""
    """As whom it connects, if not as a user of its own."""

    def __str__(self) -> str:
        """Write it as a line of a dialogue."""
        what = self.what if isinstance(self.what, str) else repr(self.what)
        user = f" as {self.user}" if self.user else ""
        return f"{self.who:<8}{self.does} {what}".rstrip() + user + ("" if self.waits else ", and does not wait")


class Published(NamedTuple):
    """A message that was published on a channel."""

    channel: str
    message: Any
    by: str
    """Who published it; "" where that was no connection."""
    exclude: str


@dataclass(slots=True)
class Heard:
    """What one client heard."""

    connection: str = ""
    """The id of its connection; "" where it was not accepted."""
    answers: dict[Any, list[Any]] = field(default_factory=dict[Any, list[Any]])
    """The answers to each of its messages, by `ref`. What has none, and was published on no channel, is under ""."""
    published: list[int] = field(default_factory=list[int])
    """What it heard of the channels that it has joined, as numbers of `Run.published`."""
    joined: dict[str, int] = field(default_factory=dict[str, int])
    """The channels that it has joined, with the number from which on it may receive what is published there."""
    member: dict[str, int] = field(default_factory=dict[str, int])
    """Those of them that it has not left, with the number from which on it has to."""
    ended: list[str] = field(default_factory=list[str])
    """What its handshake has brought, and how it ended, unless it left."""
    sees_others: set[Any] = field(default_factory=set[Any])
    """Those of `answers` that may tell who else is present in a channel."""
    shared: tuple[str, ...] = ()
    """Fields of its `Connection` that are one object with those of another."""


@dataclass(slots=True)
class Run:
    """What happened in a dialogue."""

    heard: dict[str, Heard] = field(default_factory=dict[str, Heard])
    published: list[Published] = field(default_factory=list[Published])
    lines: list[str] = field(default_factory=list[str])
    """The dialogue, as a person reads it."""
    seconds: list[float] = field(default_factory=list[float])
    """How long each step took."""
    error: str = ""
    """The last exception that ended a connection."""


class Idling(DefaultSelector):
    """Notices when an event loop has nothing to do, and makes a timer due at once where only that is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        self.waiter: asyncio.Future[None] | None = None
        self.is_busy: Callable[[], bool] = bool

    def only_timers(self) -> bool:
        """Return whether no thread and no socket but the loop's own can have anything to do."""
        return len(self.get_map()) == 1 and threading.active_count() == 1

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        only_timers = self.only_timers()
        if self.waiter and not (self.waiter.done() or (self.is_busy() and not (only_timers and timeout is None))):
            self.waiter.set_result(None)
        elif only_timers and timeout is not None:
            self.skipped += timeout
        else:
            return super().select(timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """The event loop of a dialogue."""

    def __init__(self) -> None:
        self.idling = Idling()
        super().__init__(self.idling)

    def time(self) -> float:
        return super().time() + self.idling.skipped

    async def wait_idle(self, is_busy: Callable[[], bool]) -> None:
        """Wait until nothing is left to do, and nobody is busy."""
        limit = self.time() + STEP_SECONDS
        self.idling.is_busy = lambda: self.time() < limit and is_busy()
        self.idling.waiter = self.create_future()
        await self.idling.waiter


class Client:
    """A client, and what a server would be between it and the application."""

    def __init__(self, run: Run, app: Any, step: Step, identify: Identify) -> None:
        self.heard = run.heard[step.who] = Heard()
        self.user = step.user or step.who
        self._who = step.who
        self._run = run
        self._said: set[Any] = set()
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._reads = False
        path, _, query = str(step.what).partition("?")
        headers = {"host": "testserver.local", **identify(self.user, path)}
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 50000 + len(run.heard)),
            "server": ("testserver.local", 80),
            "subprotocols": list(step.subprotocols),
            "extensions": {"websocket.http.response": {}},
            "state": {},
        }
        context = copy_context()
        context.run(SPEAKER.set, step.who)
        self.put({"type": "websocket.connect"})
        self.task = asyncio.get_running_loop().create_task(app(self._scope, self._receive, self._send), context=context)

    @property
    def session(self) -> Session | None:
        session: Session | None = self._scope["state"].get(SESSION_KEY)
        return session

    @property
    def channels(self) -> Any:
        """The channels to which it is subscribed now."""
        return getattr(self._scope["state"].get(CHANNELS_KEY), "subscriptions", ())

    def is_busy(self) -> bool:
        """Return whether the application has not done yet all that it was asked for."""
        heard = len(self.heard.published) + sum(map(len, self.heard.answers.values()))
        waits = self._reads and self._inbox.empty() and not (self.session and self.session.exchanges)
        return not (self.task.done() or waits or heard > MAX_FRAMES)

    def say(self, frame: str | bytes) -> None:
        """Let the application receive a message."""
        message = decode(frame)
        self._said.add(message.get("ref", "") if is_object(message) else "")
        self.put({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    def see_others(self) -> None:
        """Note that what it receives next may tell of others."""
        self.heard.sees_others |= {ref for ref in self._said if not ref or ref not in self.heard.answers} or {""}

    def put(self, event: Any) -> None:
        """Let the application receive an event."""
        self._inbox.put_nowait(event)

    async def _receive(self) -> Any:
        self._reads = True
        event = await self._inbox.get()
        self._reads = False
        return event

    async def _send(self, event: Any) -> None:
        match event["type"]:
            case "websocket.accept":
                self.heard.connection = self.session.ensure_connection().id if self.session else "?"
                if event.get("headers") or event.get("subprotocol"):
                    self._end(f"is accepted with {event.get('subprotocol')} {[*event.get('headers', ())]}")
            case "websocket.send":
                text = event.get("text")
                self._hear(text if text is not None else event["bytes"])
            case "websocket.close" if not self.heard.ended:
                self._end(f"is closed with {event['code']} {event['reason']}")
            case "websocket.http.response.start":
                self._end(f"{REFUSED}{event['status']}")
            case "websocket.http.response.body":
                self._end(f"receives {event.get('body', b'').decode()}")
            case _:
                pass

    def _end(self, how: str) -> None:
        self.heard.ended.append(how)
        self._run.lines.append(f"{self._who:<8}{how}")

    def _hear(self, frame: str | bytes) -> None:
        self._run.lines.append(f"{self._who:<8}receives {frame if isinstance(frame, str) else repr(frame)}")
        message, ref = decode(frame), ""
        if is_object(message) and isinstance(self._scope["route_handler"], ListenerRouteHandler):
            ref = message.pop("ref", "")
        number = None if ref else find_published(self._run, self.heard, message)
        if number is None:
            self.heard.answers.setdefault(ref, []).append(message)
        elif number >= 0:
            self.heard.published.append(number)


def decode(frame: str | bytes) -> Any:
    """Return the JSON value of a frame, or the frame, where that is none."""
    try:
        return msgspec.json.decode(frame)
    except NOT_JSON:
        return frame


def find_published(run: Run, heard: Heard, message: Any) -> int | None:
    """Return the number of the published message that a client receives; -1 for a `Gap`, and None where it is none."""
    if not is_object(message):
        return None
    plain = {name: value for name, value in message.items() if name != "sequence"}
    for number, each in enumerate(run.published):
        is_due = number >= heard.joined.get(each.channel, number + 1) or "sequence" in message
        is_for_it = each.exclude != heard.connection and each.channel in heard.joined
        if is_due and is_for_it and each.message == plain and number not in heard.published:
            return number
    return -1 if plain.get("type") == GAP and heard.joined else None


class Watch:
    """Notes what goes through the fan-out of an application."""

    def __init__(self, fanout: Any, run: Run, clients: dict[str, Client]) -> None:
        self._run = run
        self._clients = clients
        self._publish, self._members = fanout.broker.publish, fanout.broker.members
        self._join = fanout._join
        names = {"publish": fanout.broker, "members": fanout.broker, "_join": fanout}
        for name, target in names.items():
            patch.object(target, name, getattr(self, name.strip("_"))).start()  # for good: the process is a fork

    def publish(self, channel: str, data: bytes, exclude: str = "") -> Any:
        self._run.published.append(Published(channel, msgspec.json.decode(data), SPEAKER.get(), exclude))
        return self._publish(channel, data, exclude)

    async def join(self, socket: Socket, channel: str, *arguments: Any, **options: Any) -> None:
        session = Session.of(socket)
        heard = next((each.heard for each in self._clients.values() if each.session is session), Heard())
        heard.joined.setdefault(channel, len(self._run.published))
        await self._join(socket, channel, *arguments, **options)
        heard.member[channel] = len(self._run.published)

    async def members(self, channel: str) -> Members:
        members: Members = await self._members(channel)
        client = self._clients.get(SPEAKER.get())
        if client:
            same = [each for each in self._clients.values() if each.user == client.user]
            if len(same) > 1 or not members.states.keys() <= {client.heard.connection, client.user}:
                client.see_others()
        return members


async def converse(
    app: Litestar, identify: Identify, steps: Sequence[Step], only: str, pauses: Sequence[float], pace: float
) -> Run:
    """Serve the application for one dialogue; see `start`."""
    loop: Any = asyncio.get_running_loop()
    run, clients = Run(), dict[str, Client]()
    started, stop = asyncio.Event(), asyncio.Event()

    async def serve() -> None:  # a task of its own, as under a server: its context variables reach no connection
        async with app.lifespan():
            Watch(app.plugins.get(Fanout), run, clients)
            started.set()
            await stop.wait()

    def is_anybody_busy() -> bool:
        return any(client.is_busy() for client in clients.values())

    def do(step: Step) -> None:
        run.lines.append(str(step))
        if step.does == "connects to":
            clients[step.who] = Client(run, app, step, identify)
        elif step.does == "says":
            clients[step.who].say(step.what)
        else:
            clients[step.who].put({"type": "websocket.disconnect", "code": 1000})

    serving = asyncio.create_task(serve())
    await asyncio.wait([serving, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    for number, step in enumerate(steps):
        begin = time.perf_counter()
        if only in {step.who, ""}:
            do(step)
        else:
            time.sleep(pauses[number] if pauses else 0)  # noqa: ASYNC251  nothing goes on meanwhile
            if pace:  # else no turn of the loop, as where the others speak
                await asyncio.sleep(pace)
        if step.waits:
            await loop.wait_idle(is_anybody_busy)
        run.seconds.append(time.perf_counter() - begin)
    later = asyncio.create_task(asyncio.sleep(LAST_SECONDS))
    await loop.wait_idle(lambda: is_anybody_busy() or (not later.done() and loop.idling.only_timers()))
    later.cancel()
    note_shared_fields(clients)
    for client in clients.values():
        client.heard.member = {each: number for each, number in client.heard.member.items() if each in client.channels}
        for ref in client.session.exchanges if client.session else ():
            del client.heard.answers.get(ref, [])[MAX_UNENDED:]
        cause = client.session.cause if client.session else None
        run.error = repr(cause.error) if cause and cause.error else run.error
        client.put({"type": "websocket.disconnect", "code": 1000})
    await asyncio.wait([client.task for client in clients.values()])
    stop.set()
    await serving
    return run


def note_shared_fields(clients: dict[str, Client]) -> None:
    """Note which fields of a `Connection` are one object for two connections."""
    seen: dict[int, Client] = {}
    for client in clients.values():
        connection: Any = client.session.connection if client.session else None
        for each in fields(connection) if connection else ():
            value: Any = getattr(connection, each.name)
            if isinstance(getattr(connection, each.name), MUTABLE) and seen.setdefault(id(value), client) is not client:
                client.heard.shared += (each.name,)


def start(
    app: Litestar,
    identify: Identify,
    steps: Sequence[Step],
    *,
    only: str = "",
    pauses: Sequence[float] = (),
    pace: float = 0,
) -> Callable[[], Run]:
    """Begin a dialogue in a fork of this process.

    Args:
        app: The application; it is not served in this process.
        identify: The headers of each client.
        steps: What the clients do.
        only: The one who speaks, so that the steps of others are left out; "" for all.
        pauses: Seconds that pass in place of each step that is left out.
        pace: The same, in the time of the event loop alone.

    Returns:
        A function that waits for the end, and returns what happened. It raises RuntimeError where the application could
        not be served, and TimeoutError where that takes more than 20 seconds.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest-xdist has threads, which a fork does not need
        process = os.fork()
    if process:
        os.close(writing)
        return partial(_wait, process, reading)
    result: tuple[Run | None, str] = (None, "")
    try:
        os.close(reading)
        gc.disable()
        logging.disable()
        random.seed()
        ballast = [object() for _ in range(random.randrange(10_000))]  # noqa: S311  addresses are as random as ids
        with asyncio.Runner(loop_factory=Loop) as runner:
            result = runner.run(converse(app, identify, steps, only, pauses, pace)), ""
        del ballast
    except BaseException:  # noqa: BLE001  all is told to the process that waits
        result = None, traceback.format_exc()
    finally:
        with os.fdopen(writing, "wb") as output:
            pickle.dump(result, output)
        os._exit(0)


def _wait(process: int, reading: int) -> Run:
    with os.fdopen(reading, "rb") as results:
        ready, _, _ = select.select([results], [], [], TIMEOUT)
        if not ready:
            os.kill(process, signal.SIGKILL)
        written = results.read()
    os.waitpid(process, 0)
    if not ready:
        raise TimeoutError(f"a dialogue took more than {TIMEOUT} seconds")
    run, problem = pickle.loads(written)  # noqa: S301  of the fork
    if problem:
        raise RuntimeError(problem)
    return run  # type: ignore[no-any-return]
