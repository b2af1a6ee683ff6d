"""A rendered service in a process of its own, with hooks and a listener that fail on demand, and clients that break it.

The hooks and the listener stand where a user's own do, in `hooks.py` and `listeners/probe.py`. What they see goes into
the log, as JSON lines, and `/probe/look` answers with what is left inside the process.
"""

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic, sleep
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

from websockets.asyncio.client import connect as connect_async
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.utils import apply_mask

from .rendering import answers_of, compile_package, environment, render, replace

TIMEOUT = 20
"""Seconds after which a wait has failed; nothing waits so long when all is well."""

MEBIBYTE = 1 << 20

HOOKS = '''\
"""Hooks that do as the query of the handshake says: `?accept=` and `?disconnect=`."""

import asyncio

import structlog

from .realtime import Cause, Socket
from .state import Connection

log = structlog.get_logger(__name__)
HELD: set[str] = set()
"""What stands for a resource: acquired in on_accept, released in on_disconnect."""


async def on_accept(socket: Socket, connection: Connection) -> None:
    told = socket.query_params.get("accept")
    if told == "raise-before":
        raise RuntimeError("before it acquired anything")
    HELD.add(connection.id)
    if told == "raise-after":
        raise RuntimeError("after it acquired something")
    if told == "hang":
        log.info("on_accept hangs")
        await asyncio.sleep(3600)


async def on_disconnect(socket: Socket, connection: Connection, cause: Cause) -> None:
    log.info("on_disconnect", reason=cause.reason.value, code=cause.code)
    HELD.discard(connection.id)
    told = socket.query_params.get("disconnect")
    if told == "raise":
        raise RuntimeError("in on_disconnect")
    if told == "hang":
        await asyncio.sleep(3600)
    if told == "linger":
        await asyncio.sleep(1)
    log.info("on_disconnect done")
'''

PROBE = '''\
"""A listener that does as each message says, and the insides of the process for the tests."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import structlog
from litestar import Request, Router, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from ..hooks import HELD
from ..realtime import Socket, listener
from ..realtime.sessions.plugin import Sessions
from ..state import Connection

log = structlog.get_logger(__name__)


async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    if connection.query_params.get("guard") == "linger":
        log.info("guard lingers")
        await asyncio.sleep(1)


@listener("/ws", guards=[guard])
async def act(data: str, socket: Socket, connection: NamedDependency[Connection]) -> str:
    connection.count += 1
    match data.split():
        case ["raise"]:
            raise RuntimeError("a bug in the handler")
        case ["cancel"]:
            task = asyncio.current_task()
            assert task
            task.cancel()
        case ["busy", seconds]:
            log.info("busy")
            await asyncio.sleep(float(seconds))
            log.info("done")
        case ["block", seconds]:
            log.info("busy")
            await asyncio.to_thread(time.sleep, float(seconds))
        case ["close", code]:
            await socket.close(int(code), "as told")
        case ["blast"]:
            while True:
                await socket.send_text("x" * 100_000)
                log.info("blasted")
        case ["blast-and-raise"]:
            async with asyncio.timeout(0.5):
                while True:
                    await socket.send_text("x" * 100_000)
        case _:
            pass
    return f"{connection.id} {connection.count}"


@listener("/text")
async def text(data: str) -> str:
    return data


@listener("/bytes")
async def binary(data: bytes) -> bytes:
    return data


class Count(Struct, tag="count"):
    to: int
    seconds: float = 0


class Number(Struct, tag="number"):
    number: int
    padding: str = ""


@listener("/stream")
async def stream(data: Count) -> AsyncGenerator[Number, None]:
    number = 0
    try:
        while number != data.to:
            number += 1
            yield Number(number, "" if data.seconds else "x" * 1000)
            if data.seconds:
                await asyncio.sleep(data.seconds)
    finally:
        log.info("stream closed", number=number)


@listener("/slow")
async def slow(data: Count, connection: NamedDependency[Connection]) -> None:
    log.info("handling")
    while connection.cause is None:
        await asyncio.sleep(0.01)
    log.info("noticed", cause=connection.cause.reason.value)


@listener("/cancelled", cancel_on_disconnect=True)
async def cancelled(data: Count, connection: NamedDependency[Connection]) -> None:
    log.info("handling")
    try:
        await asyncio.Event().wait()
    finally:
        log.info("handler cancelled", cause=connection.cause and connection.cause.reason.value)


@get("/look")
async def look(request: Request[Any, Any, Any]) -> dict[str, int]:
    gc.collect()
    log.info("looked")
    registry = request.app.plugins.get(Sessions).registry
    return {
        "open": len(registry),
        "addresses": sum(client.sessions for client in registry.clients.values()),
        "held": len(HELD),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


probe = Router("/probe", route_handlers=[act, text, binary, stream, slow, cancelled, look])
'''


def add_listener(project: Path, name: str, source: str) -> None:
    """Add a module to `listeners/` and register the handler of the same name in app.py, as a user does."""
    package = project / "src" / answers_of(project)["package_name"]
    (package / "listeners" / f"{name}.py").write_text(source)
    replace(package / "app.py", "from .realtime", f"from .listeners.{name} import {name}\nfrom .realtime")
    replace(package / "app.py", "route_handlers=[\n", f"route_handlers=[\n            {name},\n")


def render_with_probe(template: Path, target: Path, **answers: Any) -> Path:
    project = render(template, target, **answers)
    (project / "src/my_service/hooks.py").write_text(HOOKS)
    add_listener(project, "probe", PROBE)
    environment(project)
    compile_package(project)
    return project


class Service:
    """The service in a process, on a free port; its log is read as it is written."""

    def __init__(self, project: Path, *options: str, **settings: object) -> None:
        limits = ("max_bytes_per_second_per_address", "max_connections_per_address", "max_messages_per_second")
        lifted = {"log_format": "json", **dict.fromkeys(limits, 0)}
        package = answers_of(project)["package_name"]
        given = {f"{package.upper()}_{name.upper()}": str(value) for name, value in (lifted | settings).items()}
        own = project / ".venv" / "bin" / "python"
        self.process = subprocess.Popen(
            [str(own) if own.exists() else sys.executable, "-m", package, "--port", "0", *options],
            stderr=subprocess.PIPE,
            start_new_session=True,  # --reload has a child
            text=True,
            env=environment(project) | given,
            cwd=project,
        )
        self.log: list[dict[str, Any]] = []
        self._lines: Queue[dict[str, Any] | None] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()
        try:
            self.address = self.wait_for("serving on")["event"].rpartition("/")[2]
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                try:
                    self._lines.put(json.loads(line))
                except ValueError:
                    self._lines.put({"event": line, "level": "error"})  # the log has one shape, so this is a fault
        self._lines.put(None)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=TIMEOUT)
        self._reader.join(timeout=TIMEOUT)

    def ended(self, signalled: int | None = None) -> int:
        """Send a signal, if one is given; return the exit status and read the log to its end."""
        if signalled is not None:
            self.process.send_signal(signalled)
        status = self.process.wait(timeout=TIMEOUT * 2)
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            self.log.append(line)
        return status

    def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        """Read the log until this event has come so often; return its last line."""
        deadline = monotonic() + TIMEOUT
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline - monotonic()))
            except Empty:
                line = None
            assert line is not None, f"{event!r} did not happen: {self.log[-20:]}"
            self.log.append(line)
            times -= line["event"].startswith(event)
            if not times:
                return line

    def happened(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What should wake somebody: errors, and whatever carries a traceback."""
        return [line for line in self.log if line["level"] in {"error", "critical"} or "exception" in line]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://{self.address}{path}", timeout=TIMEOUT) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def look(self) -> dict[str, int]:
        """Look at what is left inside the process; the log is read up to this moment."""
        state: dict[str, int] = json.loads(self.get("/probe/look")[1])
        self.wait_for("looked")
        return state

    def settles_at(self, expected: dict[str, int]) -> None:
        """Wait until the inside of the process is as it was."""
        deadline = monotonic() + TIMEOUT
        while (found := self.look()) != expected:
            assert monotonic() < deadline, f"{found} is not {expected}"
            sleep(0.02)

    @property
    def memory(self) -> int:
        """Bytes of the process that are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def url(self, path: str) -> str:
        return f"ws://{self.address}{path}"

    def connect(self, query: str = "", **options: Any) -> ClientConnection:
        opening: Any = connect  # its own types are partly unknown
        return cast("ClientConnection", opening(f"ws://{self.address}/probe/ws?{query}", **options))

    def connect_async(self, query: str = "", **options: Any) -> connect_async:
        return connect_async(f"ws://{self.address}/probe/ws?{query}", **options)

    def open_tcp(self) -> socket.socket:
        host, port = self.address.split(":")
        return socket.create_connection((host, int(port)), timeout=TIMEOUT)

    def open_raw(self, path: str = "/probe/ws", **options: int) -> socket.socket:
        """Open a WebSocket of which nothing is done by itself: no pong, no answer to a close, no reading."""
        connection = self.open_tcp()
        for name, value in options.items():
            connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        connection.sendall(handshake(path))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)  # one by one: a frame may follow
            assert byte, f"refused: {answer!r}"
            answer += byte
        assert answer.startswith(b"HTTP/1.1 101"), answer
        return connection


Start = Callable[..., Service]


@contextmanager
def running(project: Path, *options: str, **settings: object) -> Generator[Service]:
    """Run a rendered service with some settings, and kill it in the end."""
    service = Service(project, *options, **settings)
    try:
        yield service
    finally:
        service.stop()


def handshake(path: str, *more: bytes) -> bytes:
    key = base64.b64encode(os.urandom(16))
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: service", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + key, *more, b"", b""]
    return b"\r\n".join(lines)


def frame(data: bytes, opcode: int = Opcode.TEXT, *, fin: bool = True, reserved: int = 0) -> bytes:
    """Write a frame as a client does, masked, whether it is allowed or not (RFC 6455, 5.2)."""
    if len(data) < 126:
        size = struct.pack("!B", 0x80 | len(data))
    else:
        size = struct.pack("!BH", 0xFE, len(data)) if len(data) < 1 << 16 else struct.pack("!BQ", 0xFF, len(data))
    mask = os.urandom(4)
    return bytes([fin << 7 | reserved << 4 | opcode]) + size + mask + apply_mask(data, mask)


def read_frames(connection: socket.socket) -> Generator[tuple[int, bytes]]:
    """Read what the service sends, frame by frame, until it sends no more: the operation code and the payload.

    Raises:
        ConnectionResetError: The connection was reset, and what was still to be read is lost.
    """
    received = b""
    while True:
        size, start = (received[1], 2) if len(received) > 1 else (0, 2)
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(received[2:start], "big")
        if len(received) >= start + size:
            yield received[0] & 0x0F, received[start : start + size]
            received = received[start + size :]
        elif more := connection.recv(65536):
            received += more
        else:
            return


def read_close(connection: socket.socket) -> int | None:
    """Read all that the service sends; return the code of its close frame, None where there was none.

    Raises:
        ConnectionResetError: The connection was reset, and the close frame lost with it.
    """
    closes = [payload for code, payload in read_frames(connection) if code == Opcode.CLOSE]
    return int.from_bytes(closes[0][:2], "big") if closes else None


def reset(connection: socket.socket) -> None:
    """Reset the connection (RST), as a crashed host or a middlebox does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def bystander(service: Service) -> Generator[None]:
    """Hold a healthy connection open meanwhile: it keeps its id, its count and its end for itself."""
    with service.connect() as healthy:
        healthy.send("who")
        name, count = cast("str", healthy.recv(timeout=TIMEOUT)).split()
        yield
        healthy.send("who")
        assert healthy.recv(timeout=TIMEOUT) == f"{name} {int(count) + 1}"
        assert name not in {line["connection"] for line in service.happened("on_disconnect")}
