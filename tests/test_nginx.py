"""Two nodes with one Redis behind nginx, as `docker compose up` runs them, with the configuration that ships."""

import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme
import yaml
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .engines import RedisServer, started
from .nginx import Nginx
from .rendering import replace
from .service import TIMEOUT, Service, handshake, render_with_probe
from .test_drain import expect_1012

LONG = 3600
"""Seconds that nothing waits for: whatever does so fails."""


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("deployed") / "my-service"
    return render_with_probe(template, target, docker=True, fanout="redis")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with started(RedisServer()) as server:
        yield server


@pytest.fixture(scope="module")
def node(project: Path, redis: RedisServer) -> Iterator[Service]:
    """A node for the tests that need no other settings, and leave it as it is."""
    with ExitStack() as stack:
        yield Deployment(stack, project, redis).node()


class Deployment:
    """What a test has started; all of it is ended with the test."""

    def __init__(self, stack: ExitStack, project: Path, redis: RedisServer) -> None:
        self._stack = stack
        self._project = project
        compose = yaml.safe_load((project / "compose.yaml").read_text())
        environment = compose["services"]["service"]["environment"]
        self._settings = {name.removeprefix("MY_SERVICE_").lower(): value for name, value in environment.items()}
        self._settings["fanout_url"] = redis.url

    def node(self, *options: str, **settings: object) -> Service:
        """Start a node with the settings of compose.yaml, and some more."""
        node = Service(self._project, *options, **(self._settings | settings))
        self._stack.callback(node.stop)
        return node

    def nginx(self, *addresses: str) -> Nginx:
        """Set nginx up, but do not start it yet."""
        nginx = Nginx(self._project, *addresses)
        self._stack.callback(nginx.remove)
        return nginx

    def pair(self, **settings: object) -> tuple[Service, Service, Nginx]:
        """Start two nodes, and nginx in front of them."""
        nodes = self.node(**settings), self.node(**settings)
        nginx = self.nginx(*(node.address for node in nodes))
        nginx.start()
        return *nodes, nginx

    def connect(self, nginx: Nginx, path: str = "/ws/echo", **options: Any) -> ClientConnection:
        opening: Any = connect  # its own types are partly unknown
        connection = opening(nginx.url + path, open_timeout=TIMEOUT, **options)
        return cast("ClientConnection", self._stack.enter_context(connection))


@pytest.fixture
def deployment(project: Path, redis: RedisServer) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(stack, project, redis)


def say(client: ClientConnection, text: str = "hi") -> None:
    client.send(json.dumps({"type": "say", "text": text}))


def receive(client: ClientConnection, kind: str) -> dict[str, Any]:
    """Wait for a message of a type; skip others."""
    while (message := json.loads(client.recv(timeout=TIMEOUT)))["type"] != kind:
        pass
    return cast("dict[str, Any]", message)


def echo(client: ClientConnection) -> dict[str, Any]:
    """Say something to /ws/echo; return what it answers."""
    say(client)
    return receive(client, "said")


def test_what_is_said_in_a_room_is_received_on_the_other_node(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair()
    speaker = deployment.connect(nginx, "/ws/rooms/nginx")
    receive(speaker, "joined")
    one.wait_for("connection accepted")
    listener = deployment.connect(nginx, "/ws/rooms/nginx")
    receive(listener, "joined")
    other.wait_for("connection accepted")
    say(speaker, "over there?")
    assert receive(listener, "said")["text"] == "over there?"


def test_a_connection_goes_where_the_fewest_are(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair()
    clients = [deployment.connect(nginx) for _ in range(4)]
    for node in (one, other):
        node.wait_for("connection accepted", times=2)
    leaving = {line["connection"] for line in other.happened("connection accepted")}
    for client in clients:
        if echo(client)["connection"] in leaving:
            client.close()
    nginx.wait_for('"GET /ws/echo" 101', times=2)  # it knows that they are gone
    for _ in range(2):
        deployment.connect(nginx)
    other.wait_for("connection accepted", times=2)


def test_each_client_has_its_own_address_and_its_own_limit(deployment: Deployment) -> None:
    node = deployment.node(max_connections_per_address=1)
    nginx = deployment.nginx(node.address)
    nginx.start()
    lie = {"X-Forwarded-For": "203.0.113.9"}
    for address in ("127.0.0.2", "127.0.0.3"):
        echo(deployment.connect(nginx, source_address=(address, 0), additional_headers=lie))
        assert node.wait_for("connection accepted")["client"] == address
    with pytest.raises(InvalidStatus) as refused:
        deployment.connect(nginx, source_address=("127.0.0.3", 0))
    assert refused.value.response.status_code == 429


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate for this machine where listen.conf looks for it; return who trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    folder.mkdir()
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2  # as in test_stack.py: the client has threads
    return trusting


def expect_origin(connect: Callable[..., ClientConnection], origin: str, other: str) -> None:
    """A page with one origin may connect, and one with the other may not."""
    echo(connect(origin=origin))
    with pytest.raises(InvalidStatus) as refused:
        connect(origin=other)
    assert refused.value.response.status_code == 403


def test_where_nginx_ends_tls_the_pages_of_https_may_connect(deployment: Deployment, node: Service) -> None:
    nginx = deployment.nginx(node.address)
    nginx.uncomment("listen 8443 ssl", "ssl_certificate ", "ssl_certificate_key")
    replace(nginx.configuration / "listen.conf", "listen 127.0.0.1", "# listen 127.0.0.1")
    replace(nginx.configuration / "listen.conf", "listen 8443 ", f"listen 127.0.0.1:{nginx.port} ")
    trusting = certificate(nginx.configuration / "tls")
    nginx.start()
    host = f"127.0.0.1:{nginx.port}"

    nginx.scheme = "wss"
    expect_origin(partial(deployment.connect, nginx, ssl=trusting), f"https://{host}", f"http://{host}")


def test_where_tls_ends_before_nginx_the_load_balancer_is_believed(deployment: Deployment, node: Service) -> None:
    nginx = deployment.nginx(node.address)
    nginx.uncomment("set_real_ip_from", "real_ip_header", "real_ip_recursive", "set $client_scheme $http_x")
    replace(nginx.configuration / "listen.conf", "10.0.0.0/8", "127.0.0.1")
    nginx.start()
    host = f"127.0.0.1:{nginx.port}"
    said = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"}

    through = partial(deployment.connect, nginx, additional_headers=said)
    expect_origin(through, f"https://{host}", f"http://{host}")
    while node.wait_for("connection accepted")["client"] != "198.51.100.7":
        pass  # what the load balancer saw itself, and not what it was told


def test_the_page_of_the_service_may_connect_over_http(deployment: Deployment, node: Service) -> None:
    nginx = deployment.nginx(node.address)
    nginx.start()
    host = f"127.0.0.1:{nginx.port}"

    lying = partial(deployment.connect, nginx, additional_headers={"X-Forwarded-Proto": "https"})
    expect_origin(lying, f"http://{host}", f"https://{host}")


PRIVATE = ["/health", "/ready", "/metrics", "/metrics/", "//metrics", "/metrics//", "/%6detrics", "/metrics%2f"]
PRIVATE += ["/./metrics", "/ws/../metrics", "/ws/..%2fmetrics", "/metrics?name=x"]


def test_what_is_for_those_who_run_the_service_is_not_for_the_internet(deployment: Deployment, node: Service) -> None:
    nginx = deployment.nginx(node.address)
    nginx.start()

    def status(address: str, path: str) -> int:
        try:
            with urlopen(f"http://{address}{path}", timeout=TIMEOUT) as answer:
                return cast("int", answer.status)
        except HTTPError as error:
            with error:
                return error.code

    at_nginx = f"127.0.0.1:{nginx.port}"
    assert {path: status(at_nginx, path) for path in PRIVATE} == dict.fromkeys(PRIVATE, 404)
    assert status(node.address, "/metrics/") == 200, "there is something to hide"
    assert status(at_nginx, "/") == status(at_nginx, "/schema") == 200


def test_the_access_log_has_each_connection_but_no_query(deployment: Deployment, node: Service) -> None:
    nginx = deployment.nginx(node.address)
    nginx.start()
    with connect(f"{nginx.url}/ws/echo?token=secret", additional_headers={"Referer": "http://a/?secret"}):
        pass
    line = nginx.wait_for('"GET /ws/echo" 101')
    assert line.startswith("127.0.0.1 [")
    assert node.address in line
    assert "secret" not in line


def received_by_a_replica(deployment: Deployment, request: bytes) -> list[str]:
    """Send a request to nginx; return the lines that reach the replica behind it."""
    with socket.create_server(("127.0.0.1", 0)) as replica:
        replica.settimeout(TIMEOUT)
        nginx = deployment.nginx(f"127.0.0.1:{replica.getsockname()[1]}")
        nginx.start()
        with socket.create_connection(("127.0.0.1", nginx.port), timeout=TIMEOUT) as client:
            client.sendall(request)
            accepted, _ = replica.accept()
            with accepted:
                accepted.settimeout(TIMEOUT)
                received = b""
                while not received.endswith(b"\r\n\r\n"):
                    received += accepted.recv(65536)
    return received.decode().lower().splitlines()


def test_a_websocket_is_asked_for_as_the_client_asks(deployment: Deployment) -> None:
    head = received_by_a_replica(
        deployment, handshake("/ws/echo").replace(b"Host: service", b"Host: chat.example:8443")
    )
    assert {"upgrade: websocket", "connection: upgrade", "host: chat.example:8443"} < set(head)


def test_no_other_protocol_is_asked_for(deployment: Deployment) -> None:
    lines = [b"GET / HTTP/1.1", b"Host: x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"]
    head = received_by_a_replica(
        deployment, b"\r\n".join([*lines, b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"", b""])
    )
    assert "connection: close" in head
    assert not [line for line in head if line.startswith("upgrade:")]


def test_pings_keep_an_idle_connection_longer_than_nginx_bears_silence(deployment: Deployment) -> None:
    silent = {"ping_interval": LONG, "ping_timeout": LONG}
    ways = [deployment.nginx(deployment.node(**settings).address) for settings in ({"ping_interval": 0.2}, silent)]
    for nginx in ways:
        replace(nginx.configuration / "nginx.conf", "proxy_read_timeout 60s", "proxy_read_timeout 1s")
        nginx.start()
    pinged, unpinged = (deployment.connect(nginx, ping_interval=None) for nginx in ways)
    with pytest.raises(ConnectionClosed) as cut:
        unpinged.recv(timeout=TIMEOUT)
    assert cut.value.rcvd is None, "it was the service that closed it, and not nginx"
    echo(pinged)  # it is older, and has been as idle


def one_on_each(deployment: Deployment, one: Service, other: Service, nginx: Nginx) -> list[ClientConnection]:
    """Connect a client to either node."""
    clients = {echo(client)["connection"]: client for client in [deployment.connect(nginx) for _ in range(2)]}
    return [clients[node.wait_for("connection accepted")["connection"]] for node in (one, other)]


def test_clients_of_a_node_that_stops_go_to_the_other_at_once(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair(drain_seconds=0, grace_seconds=LONG)
    comes_back, stays = one_on_each(deployment, one, other, nginx)
    with one.connect() as busy:
        busy.send(f"busy {LONG}")  # so the node goes on draining, and refuses
        one.wait_for("busy")
        one.process.send_signal(signal.SIGTERM)
        expect_1012(comes_back)
        for _ in range(5):
            echo(deployment.connect(nginx))
        assert echo(stays)["count"] == 2
        assert one.get("/ready")[0] == 503
        assert one.ended(signal.SIGTERM) == 0  # the second lets it wait no longer
    assert one.happened("handshake rejected"), "none has come to the node that drains"


def test_clients_of_a_node_that_is_killed_go_to_the_other_at_once(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair()
    comes_back, stays = one_on_each(deployment, one, other, nginx)
    one.process.kill()
    with pytest.raises(ConnectionClosed) as lost:
        comes_back.recv(timeout=TIMEOUT)
    assert lost.value.rcvd is None  # 1006: no close frame
    for _ in range(5):
        echo(deployment.connect(nginx))
    assert echo(stays)["count"] == 2


def test_a_node_that_comes_back_gets_connections_again(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair()
    one.ended(signal.SIGKILL)
    deployment.connect(nginx)
    other.wait_for("connection accepted")
    again = deployment.node("--port", one.address.rpartition(":")[2])
    deployment.connect(nginx)
    again.wait_for("connection accepted")


def test_when_all_is_stopped_together_each_client_receives_1012(deployment: Deployment) -> None:
    one, other, nginx = deployment.pair(drain_seconds=1)
    clients = [deployment.connect(nginx) for _ in range(20)]
    assert nginx.process
    nginx.process.send_signal(signal.SIGQUIT)  # the image's STOPSIGNAL
    for node in (one, other):
        node.process.send_signal(signal.SIGTERM)
    for client in clients:
        expect_1012(client)
    assert one.ended() == other.ended() == 0
    assert nginx.process.wait(timeout=TIMEOUT) == 0
