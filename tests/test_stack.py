"""What docs/recipes.md says, run as it stands, with the real tools."""

import asyncio
import json
import re
import shutil
import signal
import ssl
import subprocess
from abc import abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from playwright.sync_api import BrowserContext
from uv import find_uv_bin
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from .browser import missing
from .engines import Certificates, EngineServer, PostgresServer
from .npm import install, require_node
from .rendering import ROOT, check, replace
from .service import TIMEOUT, Service, running
from .test_dev_servers import DOCUMENT, SCRIPT
from .test_readme import fresh_environment

CLIENTS, MESSAGES, POOL = 200, 5, 3


def blocks(title: str) -> list[str]:
    """Return what the page shows under a heading, in its order."""
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    chapter = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", chapter, re.DOTALL | re.MULTILINE)


def register(package: Path, module: str, *handlers: str) -> None:
    """Import handlers in app.py and name them there."""
    replace(package / "app.py", "from .realtime", f"from .{module} import {', '.join(handlers)}\nfrom .realtime")
    named = "".join(f"            {handler},\n" for handler in handlers)
    replace(package / "app.py", "route_handlers=[\n", f"route_handlers=[\n{named}")


def ask(client: ClientConnection, **message: Any) -> dict[str, Any]:
    client.send(json.dumps(message))
    answer: dict[str, Any] = json.loads(client.recv(timeout=TIMEOUT))
    return answer


def uv(project: Path, *command: str) -> None:
    """Run uv as its user does; the project has an environment of its own, with the newest packages."""
    given = fresh_environment(DATABASE_URL="postgresql+psycopg://nowhere")
    result = subprocess.run(
        [find_uv_bin(), *command], cwd=project, env=given, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def project_with_database(project: Path) -> Path:
    """Follow the recipe."""
    database, notes, plugins, hook = blocks("SQLAlchemy with Advanced Alchemy")
    package = project / "src" / "my_service"
    (package / "database.py").write_text(database)
    (package / "listeners" / "notes.py").write_text(notes)
    register(package, "listeners.notes", "notes")
    replace(package / "app.py", "        plugins=[Realtime(settings, Connection, hooks)],\n", "")
    replace(package / "app.py", "    return Litestar(\n", plugins)
    replace(
        package / "app.py",
        "from litestar import Litestar\n",
        "from advanced_alchemy.extensions.litestar import SQLAlchemyPlugin\nfrom litestar import Litestar\n",
    )
    replace(
        package / "app.py",
        "from . import hooks\n",
        "from . import hooks\nfrom .database import database, database_answers\n",
    )
    hooks = (package / "hooks.py").read_text("utf-8")
    imports = (
        "from litestar.exceptions import ServiceUnavailableException\nfrom sqlalchemy.exc import SQLAlchemyError\n\n"
        "from .database import database_answers\nfrom .realtime"
    )
    begin, end = hooks.index("async def on_accept"), hooks.index("async def on_disconnect")
    hooks = f"{hooks[:begin]}{hook}\n\n{hooks[end:]}"
    (package / "hooks.py").write_text(hooks.replace("from .realtime", imports, 1))
    uv(project, "add", "advanced-alchemy", "psycopg[binary]")
    uv(project, "run", "mypy", "src")
    uv(project, "run", "ruff", "check", "--ignore=I001")
    return project


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_200_connections_share_a_pool_of_3_of_advanced_alchemy(
    project: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url.replace("postgresql:", "postgresql+psycopg:"))
    project_with_database(project)
    with running(project) as service:

        async def talk() -> list[int]:
            async with connect_async(service.url("/ws/notes"), open_timeout=TIMEOUT * 3) as client:
                for number in range(MESSAGES):
                    await client.send(json.dumps({"type": "add", "text": "hi", "ref": number}))
                answers = [json.loads(await client.recv()) for _ in range(MESSAGES)]
                assert [answer["ref"] for answer in answers] == list(range(MESSAGES))
                return [answer["id"] for answer in answers]

        async def everybody() -> list[list[int]]:
            async with asyncio.timeout(TIMEOUT * 6):
                return await asyncio.gather(*[talk() for _ in range(CLIENTS)])

        ids = [each for of_one in asyncio.run(everybody()) for each in of_one]
        service.wait_for("connection closed", times=CLIENTS)
        with psycopg.connect(postgres.url) as db:
            stored = db.execute("SELECT id FROM note").fetchall()
            assert sorted(ids) == sorted(each for (each,) in stored)
            used = db.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname IS NOT NULL"
            )
            assert used.fetchone() == (POOL,)
        assert service.get("/ready")[0] == 200
        postgres.kill()
        assert service.get("/ready") == (503, '{"status":"database_answers failed"}')
        with connect(service.url("/ws/notes")) as client, pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=TIMEOUT)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "the database is down")
        assert service.ended(signal.SIGTERM) == 0
        assert [line["event"] for line in service.complaints] == ["not ready"]


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_litestar_vite_serves_a_page_that_connects(rendered: Any, context: BrowserContext) -> None:
    project: Path = rendered(demo_page=False)
    configuration, app = blocks("Pages built by Vite, with litestar-vite")
    package, web = project / "src" / "my_service", project / "web"
    replace(package / "app.py", "        plugins=[Realtime(settings, Connection, hooks)],\n", "")
    replace(package / "app.py", "    return Litestar(\n", app)
    imports = (
        "from pathlib import Path\n\n"
        "from litestar import Litestar\n"
        "from litestar.datastructures import ResponseHeader\n"
        "from litestar_vite import PathConfig, ViteConfig, VitePlugin\n"
    )
    replace(package / "app.py", "from litestar import Litestar\n", imports)
    web.mkdir()
    files = {"vite.config.js": configuration, "index.html": DOCUMENT, "main.js": SCRIPT}
    for name, text in files.items():
        (web / name).write_text(text)
    shutil.copy(package / "realtime" / "client" / "client.js", web)
    require_node()
    install(web, "vite")
    subprocess.run(["node_modules/.bin/vite", "build"], cwd=web, check=True, capture_output=True, timeout=120)
    uv(project, "add", "litestar-vite")
    uv(project, "run", "mypy", "src/my_service/app.py")
    with running(project) as service:
        page = context.new_page()
        page.goto(f"http://{service.address}/some/where")
        page.wait_for_function("() => document.body.dataset.said === 'one'")


class OtherService(BaseHTTPRequestHandler):
    """Knows the rate of one currency."""

    def do_GET(self) -> None:
        known = self.path == "/EUR"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b"1.25" if known else b"")

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.exhaustive
def test_a_client_of_another_service_is_injected(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, app = blocks("A client of another service")
    package = project / "src" / "my_service"
    (package / "rates.py").write_text(rates)
    replace(package / "app.py", "    return Litestar(\n", app)
    replace(
        package / "app.py",
        "from litestar import Litestar\n",
        "import os\n\nfrom litestar import Litestar\nfrom litestar.di import Provide\n",
    )
    replace(
        package / "app.py",
        "from .realtime import Realtime\n",
        "from .rates import Rates\nfrom .realtime import Realtime\n",
    )
    echo = package / "listeners" / "echo.py"
    replace(echo, "from ..realtime", "from ..rates import Rates\nfrom ..realtime")
    replace(
        echo,
        "connection: NamedDependency[Connection])",
        "connection: NamedDependency[Connection], rates: NamedDependency[Rates])",
    )
    replace(echo, "text=data.text", "text=str(await rates.of(data.text))")
    check(project, "mypy", "src")
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherService) as other:
        thread = Thread(target=other.serve_forever)
        thread.start()
        monkeypatch.setenv("RATES_URL", f"http://127.0.0.1:{other.server_port}")
        try:
            with running(project) as service, connect(service.url("/ws/echo")) as client:
                assert ask(client, type="say", text="EUR")["text"] == "1.25"
                assert ask(client, type="say", text="XXX")["code"] == "no_rate"
                assert service.ended(signal.SIGTERM) == 0
        finally:
            other.shutdown()
            thread.join(TIMEOUT)


@pytest.mark.exhaustive
def test_an_http_handler_tells_a_user(rendered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project: Path = rendered(auth="jwt")
    package = project / "src" / "my_service"
    (package / "orders.py").write_text(blocks("Tell a user from an HTTP handler")[0])
    register(package, "orders", "Inbox", "ship")
    check(project, "mypy", "src")
    secret = "0123456789abcdef" * 4
    monkeypatch.setenv("MY_SERVICE_AUTH_SECRET", secret)

    def bearer(user: str, *claims: str) -> dict[str, str]:
        token = check(project, "python", "-m", "my_service.realtime", "token", user, *claims).split()[-1]
        return {"authorization": f"Bearer {token}"}

    def ship(order: int, headers: dict[str, str]) -> int:
        request = Request(f"http://{node.address}/users/ada/orders/{order}/shipped", headers=headers, method="POST")
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    ada, eve, shop = bearer("ada"), bearer("eve"), bearer("shop", "--claim", "role=shop")
    with (
        running(project, auth_secret=secret) as node,
        connect(node.url("/ws/inbox"), additional_headers=ada) as phone,
        connect(node.url("/ws/inbox"), additional_headers=ada) as desktop,
        connect(node.url("/ws/inbox"), additional_headers=eve) as other,
    ):
        for client in (phone, desktop, other):
            assert ask(client, type="ping") == {"type": "pong"}  # so on_accept has returned
        assert [ship(1, ada), ship(2, shop)] == [403, 201]
        for client in (phone, desktop):
            assert json.loads(client.recv(timeout=TIMEOUT))["order"] == 2
        assert ask(other, type="ping") == {"type": "pong"}


class Proxy(EngineServer):
    """A proxy with TLS in front of a service, configured as the page shows.

    Args:
        target: The address of the service.
    """

    def __init__(self, target: str) -> None:
        super().__init__()
        self.certificates = Certificates()
        self.target = target
        self.trusting = ssl.create_default_context(cafile=self.certificates.authority)
        # The client reads in a thread of its own. With TLS 1.3, a ticket after the handshake has that thread inside
        # OpenSSL while another one writes, which OpenSSL does not allow: once a handshake was never answered.
        self.trusting.maximum_version = ssl.TLSVersion.TLSv1_2

    carries_on = False
    """Whether connections survive a reload of its configuration."""

    @property
    def configuration(self) -> Path:
        return self.folder / "configuration"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @abstractmethod
    def reload(self) -> None: ...

    def answers(self) -> bool:
        try:
            return self.status("/ready") == 200
        except OSError:
            return False

    def status(self, path: str) -> int:
        try:
            with urlopen(self.url + path, timeout=TIMEOUT, context=self.trusting) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def connect(self, origin: str) -> ClientConnection:
        lie = {"X-Forwarded-For": "203.0.113.9"}
        return connect(
            f"wss://127.0.0.1:{self.port}/ws/echo",
            ssl=self.trusting,
            origin=Origin(origin),
            additional_headers=lie,
            source_address=("127.0.0.2", 0),
            open_timeout=TIMEOUT,
        )

    def remove(self) -> None:
        super().remove()
        self.certificates.remove()


class Caddy(Proxy):
    program = package = "caddy"

    def prepare(self) -> None:
        [text] = blocks("Behind Caddy")
        certificate, key = self.certificates.server
        text = text.replace("chat.example.com {", f"{self.url} {{\n\ttls {certificate} {key}")
        self.admin = f"unix/{self.folder}/admin"
        self.configuration.write_text(f"{{\n\tadmin {self.admin}\n}}\n{text.replace('127.0.0.1:8000', self.target)}")

    def command(self) -> list[str]:
        return [str(self.path()), "run", "--adapter", "caddyfile", "--config", str(self.configuration)]

    def reload(self) -> None:
        reload = [str(self.path()), "reload", "--force", "--address", self.admin, *self.command()[2:]]
        subprocess.run(reload, check=True, capture_output=True, timeout=TIMEOUT)


class HAProxy(Proxy):
    program = package = "haproxy"
    carries_on = True

    @classmethod
    def path(cls) -> str | None:
        return shutil.which(cls.program) or shutil.which(cls.program, path="/usr/sbin")

    def prepare(self) -> None:
        [text] = blocks("Behind HAProxy")
        both = self.folder / "chat.pem"
        both.write_text("".join(file.read_text() for file in self.certificates.server))
        text = text.replace(":443", f"127.0.0.1:{self.port}").replace("/etc/haproxy/chat.pem", str(both))
        self.configuration.write_text(text.replace("127.0.0.1:8000", self.target))

    def command(self) -> list[str]:
        return [str(self.path()), "-W", "-db", "-f", str(self.configuration)]

    def reload(self) -> None:
        assert self.process
        before = set(self._processes())
        self.process.send_signal(signal.SIGUSR2)
        while set(self._processes()) <= before or not self.answers():  # pytest-timeout bounds it
            assert self.runs


@pytest.fixture(params=[Caddy, HAProxy])
def proxy(request: pytest.FixtureRequest, service: Service) -> Iterator[Proxy]:
    kind: type[Proxy] = request.param
    if kind.path() is None:
        missing(kind.program, kind.package)
    proxy = kind(service.address)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.remove()


@pytest.fixture
def service(default_project: Path) -> Iterator[Service]:
    with running(default_project) as service:
        yield service


def test_behind_a_proxy_with_tls(proxy: Proxy, service: Service) -> None:
    with proxy.connect(proxy.url) as client:
        assert ask(client, type="say", text="hi")["text"] == "hi"
        assert service.wait_for("connection accepted")["client"] == "127.0.0.2"
        for other in ("https://evil.example", proxy.url.replace("https", "http")):
            with pytest.raises(InvalidStatus, match="403"):
                proxy.connect(other)
        assert (proxy.status("/metrics"), proxy.status("/health")) == (404, 200)
        proxy.reload()
        with proxy.connect(proxy.url) as another:
            assert ask(another, type="say", text="hi")["count"] == 1
        if proxy.carries_on:
            assert ask(client, type="say", text="still here")["count"] == 2
