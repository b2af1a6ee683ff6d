"""A real Chromium, Debian's, driven by playwright; and what lies between it and the service, which can fail."""

import os
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from .service import TIMEOUT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ELSEWHERE = "service.test"
"""A name for this machine that does not look like it: the client takes it for a host that needs a network."""
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
]
MILLISECONDS = 15_000
"""After which a wait in the browser has failed."""


@contextmanager
def chromium() -> Generator[Browser]:
    if CHROMIUM is None:
        missing("Chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=60_000)
        yield browser
        browser.close()


def missing(what: str, package: str) -> None:
    """Skip a test for what is not installed; in CI, fail."""
    message = f"there is no {what}; install it: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def open_page(page: Page, address: str) -> Page:
    """Open the live page, and wait until its first connections are open."""
    page.goto(f"http://{address}/")
    page.locator("article[data-status=open]").nth(2).wait_for()
    return page


class Network:
    """A network between clients and a service: it carries, stalls, breaks, and leads to another process.

    Args:
        target: Where it leads to, as "host:port"; may be set anew.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.flows = Event()
        self.flows.set()
        self._sockets: set[socket.socket] = set()
        network = self

        class Carry(BaseRequestHandler):
            def handle(self) -> None:
                network._carry(self.request)

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Carry)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        self._serving = Thread(target=self._server.serve_forever)
        self._serving.start()

    def stall(self) -> None:
        """Carry nothing any more, and say nothing about it: a cable that was pulled."""
        self.flows.clear()

    def flow(self) -> None:
        """Carry again, and what has waited first."""
        self.flows.set()

    def cut(self) -> None:
        """End all connections, without a close frame."""
        for each in self._sockets.copy():
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.flow()
        self.cut()
        self._server.shutdown()
        self._server.server_close()
        self._serving.join(timeout=TIMEOUT)

    def _carry(self, client: socket.socket) -> None:
        host, port = self.target.split(":")
        try:
            service = socket.create_connection((host, int(port)), timeout=TIMEOUT)
        except OSError:
            return  # so the client is closed, too
        service.settimeout(None)
        self._sockets |= {client, service}
        back = Thread(target=self._pump, args=(service, client), daemon=True)
        back.start()
        self._pump(client, service)
        back.join()
        self._sockets -= {client, service}
        for each in (client, service):
            each.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.flows.wait()
                sink.sendall(data)
        self.flows.wait()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def network(target: str) -> Generator[Network]:
    network = Network(target)
    try:
        yield network
    finally:
        network.stop()
