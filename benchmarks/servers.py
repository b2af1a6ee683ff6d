"""The service and its peers, each in a process of its own, and what the operating system's accounting says of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import npm
from tests.engines import free_port
from tests.rendering import ROOT, answers_of, copy_of_the_template, environment, render
from tests.service import handshake

from .subprotocols import CHANX, PLAIN, SOCKET_IO, Subprotocol

TIMEOUT = 60
"""Seconds after which a wait has failed."""

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
"""What every browser offers."""

LIFTED = {
    "MAX_MESSAGES_PER_SECOND": 10**9,
    "MAX_MESSAGES_PER_SECOND_PER_ADDRESS": 10**9,
    "MAX_BYTES_PER_SECOND_PER_ADDRESS": 10**12,
    "MAX_CONNECTIONS": 10**6,
    "MAX_CONNECTIONS_PER_ADDRESS": 10**6,
}
"""The limits that a load generator would meet, so high that none is met. They are looked at all the same. An older
service may not have all of them."""

COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""So that each module is compiled but once, as it is in production."""

SERVICE = "this template"
OLDER = "this template, older"
BASELINE = "Litestar"
ROOMS = "/ws/rooms/"
ASGI = ("uvicorn", "uvloop", "httptools", "websockets")


def cpu(*pids: int) -> float:
    """Seconds of CPU that processes and their living children have used."""
    seconds = 0.0
    for pid in pids:
        for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            seconds += time.clock_gettime(~each << 3 | 2)  # the clock of a process, as clock_getcpuclockid(3) names it
    return seconds


def memory(pid: int) -> int:
    """Bytes that a process shares with no other."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(words[1]) for words in lines if words[0] in {"Private_Clean:", "Private_Dirty:"}) * 1024


@dataclass(frozen=True)
class Peer:
    """A server that can be started."""

    name: str
    command: tuple[str, ...]
    """`{port}` stands for the port."""
    packages: tuple[str, ...]
    """The distributions that it is made of; of npm, where `modules` is set."""
    variables: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT
    modules: Path | None = None
    rooms: str = ""
    """How the path of a room begins, where it has rooms."""
    path: str = "/ws/echo"
    headers: tuple[bytes, ...] = ()
    """What its clients say in the handshake."""
    subprotocol: Subprotocol = PLAIN

    def versions(self) -> dict[str, str]:
        """Return the version of each of its packages, empty where one is missing."""
        found = dict.fromkeys(self.packages, "")
        for name in found:
            with suppress(PackageNotFoundError, FileNotFoundError):
                if self.modules:
                    found[name] = json.loads((self.modules / name / "package.json").read_text())["version"]
                else:
                    found[name] = version(name)
        return found

    def but(self, name: str, *headers: bytes, **settings: object) -> Self:
        """Return it under another name, with clients that say more in the handshake, the service with more settings."""
        prefix = next(iter(self.variables), "").partition("_MAX_")[0]
        more = {f"{prefix}_{key.upper()}": str(value) for key, value in settings.items()}
        return replace(self, name=name, headers=self.headers + headers, variables=self.variables | more)


def service(project: Path, name: str = SERVICE) -> Peer:
    """The rendered service, by its own command."""
    package = answers_of(project)["package_name"]
    paths = environment(project)["PYTHONPATH"]
    example = (project / ".env.example").read_text()
    names = {key: f"{package.upper()}_{key}" for key in LIFTED}
    lifted = {name: str(LIFTED[key]) for key, name in names.items() if f"\n{name}=" in example}
    return Peer(
        name,
        (sys.executable, "-m", package, "--port", "{port}"),
        ("litestar", "msgspec", *ASGI),
        lifted | {"PYTHONPATH": paths},
        project,
        rooms=ROOMS,
    )


def rendered(folder: Path, checkout: Path | None = None, **answers: object) -> Path:
    """Render a service from the working tree, or from a checkout of another version."""
    template = folder / ("older" if checkout else "template")
    if checkout:
        shutil.copytree(checkout, template, ignore=shutil.ignore_patterns(".git"))
    elif not template.exists():
        copy_of_the_template(template)
    return render(template, folder / f"service-{len(list(folder.iterdir()))}", **answers)


def asgi(name: str, module: str, *packages: str, **its_own: Any) -> Peer:
    """An application of `benchmarks.peers`, on uvicorn's defaults."""
    command = (sys.executable, "-m", "uvicorn", f"benchmarks.peers.{module}:app", "--port", "{port}")
    return Peer(name, command, (*packages, *ASGI), **its_own)


def baseline() -> Peer:
    return asgi(BASELINE, "litestar", "litestar", "msgspec", rooms=ROOMS)


def streaming() -> list[Peer]:
    """Those of the others that stream, as far as they are installed."""
    path = "/ws/stream"
    return installed(
        asgi("chanx", "chanx", "chanx", "fast-channels", "starlette", path=path, subprotocol=CHANX),
        asgi("python-socketio", "socket_io", "python-socketio", subprotocol=SOCKET_IO),
    )


def peers(folder: Path) -> list[Peer]:
    """All others, as far as they are installed."""
    python = (sys.executable, "-m")
    found = [
        asgi("bare ASGI", "asgi", "msgspec"),
        asgi("Starlette", "starlette", "starlette"),
        asgi("FastAPI", "fastapi", "fastapi", "starlette"),
        asgi("Django Channels", "channels", "channels", "django", rooms=ROOMS),
        asgi("chanx", "chanx", "chanx", "fast-channels", "starlette", rooms=ROOMS, subprotocol=CHANX),
        Peer("websockets", (*python, "benchmarks.peers.websockets", "{port}"), ("websockets",), rooms=ROOMS),
        Peer("aiohttp", (*python, "benchmarks.peers.aiohttp", "{port}"), ("aiohttp",)),
    ]
    if shutil.which("node") and shutil.which("npm"):
        modules = npm.install(folder / "npm", "ws", "socket.io")
        variables = {"NODE_MODULES": str(modules)}
        scripts = ROOT / "benchmarks" / "peers"
        found += [
            Peer(
                "node ws",
                ("node", str(scripts / "ws.mjs"), "{port}"),
                ("ws",),
                variables,
                modules=modules,
                rooms=ROOMS,
            ),
            Peer(
                "socket.io",
                ("node", str(scripts / "socket_io.mjs"), "{port}"),
                ("socket.io", "ws"),
                variables,
                modules=modules,
                rooms=ROOMS,
                subprotocol=SOCKET_IO,
            ),
        ]
    else:
        sys.stderr.write("left out, for node or npm is missing: node ws, socket.io\n")
    return installed(*found)


def installed(*found: Peer) -> list[Peer]:
    """Return those whose packages are all there, and write a line for each that is left out."""
    for peer in found:
        for name, number in peer.versions().items():
            if not number:
                sys.stderr.write(f"left out: {peer.name}, for {name} is missing: uv sync --group benchmarks\n")
    return [peer for peer in found if all(peer.versions().values())]


class Server:
    """A peer that runs, until the end of the `with`."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.port = free_port()
        # It ends with this process, whatever ends that.
        command = ["setpriv", "--pdeathsig", "KILL", *(part.format(port=self.port) for part in peer.command)]
        variables = os.environ | {"PYTHONPATH": "", **COMPILED} | peer.variables
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables, cwd=peer.folder
        )
        try:
            self._wait_until_it_answers()
            self.start_cpu = self.cpu
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            with suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as connection:
                connection.sendall(handshake(path_of(self.peer), *self.peer.headers))
                if connection.recv(12):
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.peer.name} does not start: {' '.join(self.peer.command)}")
            time.sleep(0.002)

    @property
    def cpu(self) -> float:
        return cpu(self.process.pid)

    @property
    def memory(self) -> int:
        return memory(self.process.pid)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def path_of(peer: Peer, room: str = "") -> str:
    """The path of a room, or the one that is measured: the echo, if it is no other."""
    if peer.subprotocol is SOCKET_IO:
        return f"/socket.io/?EIO=4&transport=websocket&room={room}"
    return peer.rooms + room if room else peer.path
