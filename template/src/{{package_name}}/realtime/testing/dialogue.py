"""Dialogues of several clients with the application, each run in a fork of the process that has built it.

No server and no network: the application is called as a server calls it, in an event loop that says when nothing is
left to do. So a step of a dialogue is known to be done, and nothing waits for time to pass.
"""

import asyncio
import gc
import logging
import os
import random
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import partial
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection
from selectors import DefaultSelector, SelectorKey
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote

import msgspec
from litestar import Litestar

from ..fanout.messages import Gap, Members
from ..fanout.plugin import CHANNELS_KEY, Channels, Fanout
from ..handlers.listener import ListenerRouteHandler
from ..sessions.fast_path import encode_with
from ..sessions.runtime import NOT_JSON
from ..sessions.session import SESSION_KEY, Session
from .process import TIMEOUT, Identify
from .strategies import is_object

STEP_SECONDS: Final = 30
"""How long the service may be busy with a step, in the time of its event loop, before the next one comes."""

LAST_SECONDS: Final = 3
"""How long a dialogue goes on after its last step, in the time of its event loop: tasks and timers may do more."""

MAX_FRAMES: Final = 100
"""Frames that a client receives before nobody waits for more of them: a stream may have no end."""

MUTABLE: Final = (list, dict, set, bytearray)
"""What two connections must not have in common."""

GAP: Final = Gap.__struct_config__.tag
"""What tells a client that a channel has more than it receives."""

NUMBER: Final = "\0number"
"""The field of a published message that tells which one of `Run.published` a client receives."""

REFUSED: Final = "is refused with HTTP "
"""How a connection ends that does not begin."""

SCOPE: Final[dict[str, Any]] = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "root_path": "",
    "server": ("testserver.local", 80),
    "extensions": {"websocket.http.response": {}},
}
"""What the scopes of all connections have in common."""

DISCONNECT: Final = {"type": "websocket.disconnect", "code": 1000}

SPEAKER: ContextVar[str] = ContextVar("speaker", default="")
"""Whose connection the code runs for."""

FORKS: Any = get_context("fork" if hasattr(os, "fork") else None)


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
class Received:
    """What one client has received."""

    connection: str = ""
    """The id of its connection; "" where it was not accepted."""
    answers: dict[Any, list[Any]] = field(default_factory=dict[Any, list[Any]])
    """The answers to each of its messages, by `ref`. What has none, and was published on no channel, is under ""."""
    published: list[int] = field(default_factory=list[int])
    """What it received of the channels that it has joined, as numbers of `Run.published`."""
    joined: dict[str, float] = field(default_factory=dict[str, float])
    """The channels that it has joined, with the number from which on it receives what is published there.

    It is infinite for those that it has left.
    """
    unended: set[Any] = field(default_factory=set[Any])
    """Those of `answers` that a stream was still sending when it left, or at the end: how many there are is chance."""
    ended: list[str] = field(default_factory=list[str])
    """What its handshake has brought, and how it ended, unless it left."""
    sees_others: set[Any] = field(default_factory=set[Any])
    """Those of `answers` that may tell who else is present in a channel."""
    shared: tuple[str, ...] = ()
    """Fields of its `Connection` that are one object with those of another."""


@dataclass(slots=True)
class Run:
    """What happened in a dialogue."""

    steps: Sequence[Step]
    """What the clients do; those of some may be left out."""
    received: dict[str, Received] = field(default_factory=dict[str, Received])
    published: list[Published] = field(default_factory=list[Published])
    lines: list[str] = field(default_factory=list[str])
    """The dialogue, as a person reads it."""
    took: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Of each step, the seconds that it took, and those that the event loop skipped."""
    error: str = ""
    """The last exception that ended a connection."""


class Idling(DefaultSelector):
    """Notices when an event loop has nothing to do, and makes a timer due at once where only that is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        self.waiter: asyncio.Future[None] | None = None
        self.until: Callable[[], float] = float
        """Returns the time up to which the waiter lets the loop go on."""

    def time(self) -> float:
        """Return the time of the event loop."""
        return time.monotonic() + self.skipped

    def only_timers(self) -> bool:
        """Return whether no thread and no socket but the loop's own can have anything to do."""
        return len(self.get_map()) == 1 and threading.active_count() == 1

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        only_timers = self.only_timers()
        quiet = 0.0 if not only_timers else inf if timeout is None else timeout  # for so long nothing can happen
        if self.waiter and not self.waiter.done() and self.until() <= self.time() + quiet:
            self.waiter.set_result(None)
        elif 0 < quiet < inf:
            self.skipped += quiet
        else:
            return super().select(timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """The event loop of a dialogue."""

    def __init__(self) -> None:
        self.idling = Idling()
        super().__init__(self.idling)

    def time(self) -> float:
        return self.idling.time()

    async def wait_idle(self, is_busy: Callable[[], bool], seconds: float) -> None:
        """Wait until nothing is left to do, nobody is busy, and so many seconds have passed that can be skipped."""
        begin, idling = self.time(), self.idling
        idling.until = lambda: begin + (STEP_SECONDS if is_busy() else seconds * idling.only_timers())
        idling.waiter = self.create_future()
        await idling.waiter
        if idling.only_timers():
            idling.skipped += max(0, begin + seconds - self.time())


class Client:
    """A client, and what a server would be between it and the application."""

    def __init__(self, run: Run, app: Any, step: Step, identify: Identify, context: Context) -> None:
        self.received = run.received[step.who] = Received()
        self.user = step.user or step.who
        self._who = step.who
        self._run = run
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._reads = False
        path, _, query = str(step.what).partition("?")
        headers = {"host": "testserver.local", **identify(self.user, path)}
        self._scope: dict[str, Any] = SCOPE | {
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 50000 + len(run.received)),
            "subprotocols": list(step.subprotocols),
            "state": {},
        }
        context.run(SPEAKER.set, step.who)
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.get_running_loop().create_task(app(self._scope, self._receive, self._send), context=context)

    @property
    def session(self) -> Session | None:
        session: Session | None = self._scope["state"].get(SESSION_KEY)
        return session

    def note_channels(self) -> None:
        """Note the channels that it has joined, before anything else is published."""
        subscriptions = self._scope["state"].get(CHANNELS_KEY, Channels()).subscriptions
        joined, number = self.received.joined, len(self._run.published)
        for channel in joined.keys() | subscriptions.keys():
            receives = channel in subscriptions and subscriptions[channel].started
            joined[channel] = min(number, joined.get(channel, number)) if receives else inf

    def is_busy(self) -> bool:
        """Return whether the application has not done yet all that it was asked for."""
        received = len(self.received.published) + sum(map(len, self.received.answers.values()))
        waits = self._reads and self.inbox.empty() and not (self.session and self.session.exchanges)
        return not (self.task.done() or waits or received > MAX_FRAMES)

    def take(self, step: Step) -> None:
        """Let the application receive a message, or the end."""
        if step.does == "says":
            kind = "text" if isinstance(step.what, str) else "bytes"
            self.inbox.put_nowait({"type": "websocket.receive", kind: step.what})
        else:
            self.received.unended |= self.answering()
            self.inbox.put_nowait(DISCONNECT)

    def answering(self) -> set[Any]:
        """Return the `ref` of each message that is answered by a stream, or together with others; "" for none."""
        return {ref if isinstance(ref, int) else "" for ref in (self.session.exchanges if self.session else ())}

    def see_others(self) -> None:
        """Note that what is answered now may tell of others, and what is sent besides."""
        session = self.session
        handled = {session.ref or ""} if session and not session.awaiting_message else set[Any]()
        self.received.sees_others |= self.answering() | handled | {""}

    async def _receive(self) -> Any:
        self._reads = True
        event = await self.inbox.get()
        self._reads = False
        return event

    async def _send(self, event: Any) -> None:
        match event["type"]:
            case "websocket.accept":
                self.received.connection = self.session.ensure_connection().id if self.session else "?"
                if event.get("headers") or event.get("subprotocol"):
                    self._end(f"is accepted with {event.get('subprotocol')} {[*event.get('headers', ())]}")
            case "websocket.send":
                text = event.get("text")
                self._record(text if text is not None else event["bytes"])
            case "websocket.close" if not self.received.ended:
                self._end(f"is closed with {event['code']} {event['reason']}")
            case "websocket.http.response.start":
                self._end(f"{REFUSED}{event['status']}")
            case "websocket.http.response.body":
                self._end(f"receives {event.get('body', b'').decode()}")
            case _:
                pass

    def _end(self, how: str) -> None:
        self.received.ended.append(how)
        self._run.lines.append(f"{self._who:<8}{how}")

    def _record(self, frame: str | bytes) -> None:
        message = decode(frame)
        ref, number = "", None
        if is_object(message):
            number = message.pop(NUMBER, None)
            if isinstance(self._scope["route_handler"], ListenerRouteHandler):
                ref = message.pop("ref", "")
        self.note_channels()
        if number is not None:
            frame = msgspec.json.encode(message).decode()
            self.received.published.append(number)
        elif ref or not (is_object(message) and message.get("type") == GAP and self.received.joined):
            self.received.answers.setdefault(ref, []).append(message)
        self._run.lines.append(f"{self._who:<8}receives {frame if isinstance(frame, str) else repr(frame)}")


def decode(frame: str | bytes) -> Any:
    """Return the JSON value of a frame, or the frame, where that is none."""
    try:
        return msgspec.json.decode(frame)
    except NOT_JSON:
        return frame


@dataclass(slots=True, eq=False)
class Dialogue:
    """Serves an application for one dialogue, in a fork of this process.

    Args:
        app: The application; it is not served in this process.
        identify: The headers of each client.
        run: It has the steps; what happens is noted there.
        only: The one who speaks, so that the steps of others are left out; "" for all.
        pauses: For each step, the seconds that pass in its place where it is left out, and those that the event loop
            skips at least, whoever takes it.
    """

    app: Litestar
    identify: Identify
    run: Run
    only: str = ""
    pauses: Sequence[tuple[float, float]] = ()
    clients: dict[str, Client] = field(default_factory=dict[str, Client])

    def start(self) -> Callable[[], Run]:
        """Begin it.

        Returns:
            A function that waits for the end, and returns what happened. It raises RuntimeError where the application
            could not be served, or where that takes more than 20 seconds.
        """
        results, sending = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=self._serve, args=(sending,))
        with sending, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pytest-xdist has threads, which a fork does not need
            process.start()
        return partial(_wait, process, results)

    def _serve(self, sending: Connection) -> None:
        gc.disable()
        logging.disable()
        random.seed()
        ballast = [object() for _ in range(random.randrange(10_000))]  # noqa: S311  addresses are as random as ids
        try:
            with asyncio.Runner(loop_factory=Loop) as runner:
                sending.send(runner.run(self._converse()))
        except BaseException:  # noqa: BLE001  all is told to the process that waits
            sending.send(traceback.format_exc())
        del ballast
        os._exit(0)  # and wait for no thread

    async def _converse(self) -> Run:
        context = copy_context()  # as under a server: a context variable of the lifespan reaches no connection
        async with self.app.lifespan():
            broker = self.app.plugins.get(Fanout).broker
            publish, members = partial(self._publish, broker.publish), partial(self._members, broker.members)
            with patch.multiple(broker, publish=publish, members=members):
                await self._take_steps(context)
            self._note_ends()
            happened = deepcopy(self.run)  # whoever ends last receives something, by chance
            for client in self.clients.values():
                client.inbox.put_nowait(DISCONNECT)
            await asyncio.wait([client.task for client in self.clients.values()])
        return happened

    async def _take_steps(self, context: Context) -> None:
        loop: Any = asyncio.get_running_loop()
        pauses = self.pauses or [(0, 0)] * len(self.run.steps)
        for step, (pause, skips) in zip(self.run.steps, pauses, strict=True):
            begin, skipped = time.perf_counter(), loop.idling.skipped
            if self.only in {step.who, ""}:
                self.run.lines.append(str(step))
                if step.does == "connects to":
                    self.clients[step.who] = Client(self.run, self.app, step, self.identify, context.copy())
                else:
                    self.clients[step.who].take(step)
            else:
                time.sleep(pause)  # noqa: ASYNC251  nothing goes on meanwhile
            if step.waits:
                await loop.wait_idle(self._is_busy, skips)
            self.run.took.append((time.perf_counter() - begin, loop.idling.skipped - skipped))
        await loop.wait_idle(self._is_busy, LAST_SECONDS)

    def _is_busy(self) -> bool:
        return any(client.is_busy() for client in self.clients.values())

    def _publish(self, publish: Callable[..., Any], channel: str, data: bytes, exclude: str = "") -> Any:
        for client in self.clients.values():
            client.note_channels()
        numbered = encode_with(msgspec.Raw(data), NUMBER, len(self.run.published))
        self.run.published.append(Published(channel, msgspec.json.decode(data), SPEAKER.get(), exclude))
        return publish(channel, numbered, exclude)

    async def _members(self, members: Callable[..., Any], channel: str) -> Members:
        found: Members = await members(channel)
        if client := self.clients.get(SPEAKER.get()):
            same = [each for each in self.clients.values() if each.user == client.user]
            if len(same) > 1 or not found.states.keys() <= {client.received.connection, client.user}:
                client.see_others()
        return found

    def _note_ends(self) -> None:
        """Note what is known at the end: which connections have a field of their `Connection` in common, and errors."""
        seen: dict[int, Client] = {}
        for client in self.clients.values():
            client.note_channels()
            client.received.unended |= client.answering()
            session = client.session
            if session and session.cause and session.cause.error:
                self.run.error = repr(session.cause.error)
            connection: Any = session.connection if session else None
            for each in fields(connection) if connection else ():
                value = getattr(connection, each.name)
                first = seen.setdefault(id(value), client)
                if first is not client and isinstance(value, MUTABLE):
                    client.received.shared += (each.name,)


def _wait(process: Any, results: Connection) -> Run:
    with results:
        result = results.recv() if results.poll(TIMEOUT) else f"a dialogue took more than {TIMEOUT} seconds"
    process.kill()
    process.join()
    if isinstance(result, Run):
        return result
    raise RuntimeError(result)
