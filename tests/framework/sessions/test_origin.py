"""Origin and Host: which pages may connect, decided before anything is accepted; and what a refused one is told."""

import asyncio
import json
from typing import Any, cast

import pytest
from litestar import Litestar, get
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from my_service.app import create_app
from my_service.realtime import listener
from my_service.realtime.errors import SettingsError
from my_service.realtime.server.serve import TrustedProxies
from my_service.realtime.sessions.origin import OriginPolicy
from my_service.realtime.settings import PREFIX
from my_service.settings import Settings

from ..recording import Hooks, Serve, build, capture_logs


def handshake(*origins: str, host: str = "example.com", scheme: str = "wss", **others: Any) -> dict[str, Any]:
    headers = [(b"host", host.encode()), *((b"origin", origin.encode()) for origin in origins)]
    server = others.get("server", "10.0.0.1")
    return {"headers": headers, "scheme": scheme, "state": {}, "server": (server, 8000)}


def allowed(*origins: str, settings: dict[str, Any] | None = None, **options: Any) -> bool:
    return not OriginPolicy(Settings.load(**(settings or {}))).problem(handshake(*origins, **options))


def test_the_own_origin_may_connect() -> None:
    assert allowed("https://example.com")
    assert allowed("https://example.com", host="example.com:443")
    assert allowed("https://EXAMPLE.com")
    assert allowed("http://localhost:8000", host="localhost:8000", scheme="ws")


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com",
        "https://example.com:8443",
        "https://example.com.evil.net",
        "https://evil-example.com",
        "https://sub.example.com",
        "https://example.co",
        "null",
        "",
        "https://example.com, https://evil.net",
    ],
)
def test_no_other_origin_may(origin: str) -> None:
    assert not allowed(origin)


def test_another_port_of_the_same_host_is_another_origin() -> None:
    assert not allowed("http://localhost:9000", host="localhost:8000", scheme="ws")


def test_two_origins_are_none() -> None:
    assert not allowed("https://example.com", "https://example.com")


@pytest.mark.parametrize("hosts", [[], [b""], [b"example.com", b"example.com"]])
@pytest.mark.parametrize("origin", ["", "https://", "https://example.com", "https://app.example.com"])
def test_an_origin_beside_no_host_or_two_is_nobodys(origin: str, hosts: list[bytes]) -> None:
    scope = handshake(origin)
    scope["headers"] = [*((b"host", host) for host in hosts), (b"origin", origin.encode())]
    assert OriginPolicy(Settings.load(allowed_origins="https://app.example.com")).problem(scope) == "origin"


def test_the_allowlist_is_exact() -> None:
    assert allowed("https://app.example.com", settings={"allowed_origins": "https://app.example.com"})
    assert not allowed("https://app.example.com:8443", settings={"allowed_origins": "https://app.example.com"})


@pytest.mark.parametrize(
    ("setting", "origin"),
    [
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost", "ionic://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("http://tauri.localhost", "http://tauri.localhost"),
        ("vscode-webview://*", "vscode-webview://0d4k3vq0f1"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("file://", "file://"),
        ("null", "null"),
        ("https://*.example.org", "https://app.example.org"),
        ("https://*.example.org:8443", "https://a.b.example.org:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
        ("https://faß.example", "https://xn--fa-hia.example"),
        ("https://*.bücher.example", "https://shop.xn--bcher-kva.example"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_what_people_need_can_be_allowed(setting: str, origin: str) -> None:
    assert not allowed(origin)
    assert allowed(origin, settings={"allowed_origins": f"https://app.example.com, {setting}"})


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org",
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://evil-example.org",
        "https://app.example.org.evil.net",
        "https://evil.net/.example.org",
        "https://evil.net#.example.org",
        "https://a@b.example.org",
        "https://.example.org",
        "null",
    ],
)
def test_a_pattern_admits_sub_domains_alone(origin: str) -> None:
    assert not allowed(origin, settings={"allowed_origins": "https://*.example.org"})


def test_clients_without_an_origin_are_let_in_unless_a_setting_says_no() -> None:
    assert allowed()
    assert not allowed(settings={"require_origin": True})


NO_ORIGINS = [
    "example.com",
    "*",
    "https://*",
    "https://*.com",
    "https://a.*.com",
    "https://example.com/path",
    "https://a@b.com",
    "ws://a.b",
    "https://example.com:65536",
]


@pytest.mark.parametrize("origin", NO_ORIGINS)
def test_the_setting_takes_only_origins(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"ALLOWED_ORIGINS: .* is not an origin"):
        Settings.load(allowed_origins=origin)


@pytest.mark.parametrize("host", ["*", "https://example.com", "example.com:8000", "a.*.com"])
def test_the_setting_takes_only_names(host: str) -> None:
    with pytest.raises(SettingsError, match=r"ALLOWED_HOSTS: .* is not a host name"):
        Settings.load(allowed_hosts=host)


def problem(host: str, server: str = "127.0.0.1", *more: tuple[bytes, bytes], **settings: Any) -> str:
    scope = handshake(f"http://{host}", host=host, scheme="ws", server=server)
    scope["headers"].extend(more)
    return OriginPolicy(Settings.load(**settings)).problem(scope)


@pytest.mark.parametrize("host", ["localhost:8000", "a.localhost", "127.0.0.1:8000", "[::1]:8000", "192.168.1.2"])
def test_on_loopback_its_names_are_the_service(host: str) -> None:
    assert problem(host) == ""


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_dns_rebinding_finds_no_service_on_loopback(host: str) -> None:
    assert problem(host) == "host"
    assert problem(host, "::1") == "host"
    assert problem(host, "10.0.0.1") == ""
    assert problem(host, allowed_hosts="example.com") == "host"


def test_allowed_hosts_are_the_names_of_the_service() -> None:
    hosts = {"allowed_hosts": "laptop.example, *.chat.example"}
    assert problem("laptop.example:8000", **hosts) == ""
    assert problem("eu.chat.example", "10.0.0.1", **hosts) == ""
    assert problem("other.example", "10.0.0.1", **hosts) == "host"
    assert problem("localhost", **hosts) == ""


REQUESTS: list[tuple[str, str, dict[str, Any], bool]] = [
    # Host, the address on which it came, settings, whether it is answered
    ("localhost:8000", "127.0.0.1", {}, True),
    ("evil.example", "127.0.0.1", {}, False),
    ("evil.example", "10.0.0.1", {}, True),
    ("evil.example", "10.0.0.1", {"allowed_hosts": "chat.example"}, False),
    ("chat.example", "10.0.0.1", {"allowed_hosts": "chat.example"}, True),
    ("10.0.0.1:8000", "10.0.0.1", {"allowed_hosts": "chat.example"}, True),
    ("[fe80::1]:8000", "10.0.0.1", {"allowed_hosts": "chat.example"}, True),
]


@pytest.mark.parametrize(("host", "server", "settings", "answered"), REQUESTS)
def test_a_request_names_the_service_too(host: str, server: str, settings: dict[str, Any], answered: bool) -> None:
    app = create_app(Settings.load(**settings))

    async def local(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | ({"server": (server, 8000)} if scope["type"] == "http" else {}), receive, send)

    with capture_logs() as lines, TestClient(cast("Any", local)) as client:
        for path in ("/metrics", "/schema/openapi.json", "/nothing"):
            assert (client.get(path, headers={"host": host}).status_code == 403) is not answered
        for path in ("/health", "/ready"):
            assert client.get(path, headers={"host": host}).status_code == 200
    rejected = [line for line in lines if line["event"] == "request rejected"]
    assert len(rejected) == (0 if answered else 3)
    assert all("ALLOWED_HOSTS=evil.example" in line["fix"] for line in rejected)


def test_a_page_behind_a_proxy_on_the_same_machine_needs_no_setting() -> None:
    assert problem("chat.example", "127.0.0.1", (b"x-forwarded-for", b"10.1.2.3")) == ""


def forwarded(scope: dict[str, Any], trusted: str = "127.0.0.1") -> dict[str, Any]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    asyncio.run(TrustedProxies(app, trusted)(scope | {"type": "websocket"}, None, None))
    return dict(seen[0])


PROXIES: list[tuple[str, str, dict[str, str], str]] = [
    # Host, Origin, further headers, what the line must name; "" where the page may connect
    ("service:8000", "https://chat.example", {}, "proxy_set_header Host $http_host;"),
    ("service:8000", "https://chat.example", {}, "ProxyPreserveHost On"),
    ("service:8000", "https://chat.example", {}, "ALLOWED_ORIGINS=https://chat.example"),
    ("localhost:8000", "http://localhost:5173", {}, "changeOrigin: false"),
    ("chat.example", "http://chat.example:8080", {}, "proxy_set_header Host $http_host;"),
    ("chat.example", "https://chat.example", {}, "X-Forwarded-Proto: https"),
    ("chat.example", "https://chat.example", {"x-forwarded-proto": "https"}, ""),
    ("chat.example", "https://chat.example", {"x-forwarded-proto": "https, http"}, ""),
    ("chat.example", "https://chat.example", {"x-forwarded-proto": "WSS"}, ""),
    ("service:8000", "https://chat.example", {"x-forwarded-host": "chat.example", "x-forwarded-proto": "https"}, ""),
    ("service:8000", "http://chat.example", {"x-forwarded-host": "chat.example, service:8000"}, ""),
    ("chat.example", "null", {}, "ALLOWED_ORIGINS=null"),
]


@pytest.mark.parametrize(("host", "origin", "headers", "fix"), PROXIES)
def test_a_refused_origin_names_the_line_that_fixes_it(
    host: str, origin: str, headers: dict[str, str], fix: str
) -> None:
    scope = handshake(origin, host=host, scheme="ws")
    scope["client"] = ("127.0.0.1", 1)
    scope["headers"].extend((name.encode(), value.encode()) for name, value in headers.items())
    policy = OriginPolicy(Settings.load())
    seen = forwarded(scope)
    if not fix:
        assert policy.problem(seen) == ""
        untrusted = forwarded(scope, trusted="10.9.9.9")
        assert policy.problem(untrusted) == "origin"
        assert policy.explain(untrusted, "origin")["fix"] == f"set {PREFIX}TRUSTED_PROXIES=127.0.0.1"
        return
    assert policy.problem(seen) == "origin"
    line = policy.explain(seen, "origin")
    assert (line["origin"], line["host"], line["scheme"]) == (origin, host, "ws")
    assert line["expected"] == f"http://{host}"
    assert "127.0.0.1" in line["peer"]
    assert fix in line["fix"]


@pytest.mark.parametrize("garbage", ["http://[", "http://a:b:c", "http://[::1", "\xff\x9b2J", "x" * 9000, "://", "\t"])
def test_no_origin_and_no_host_breaks_the_explanation(garbage: str) -> None:
    policy = OriginPolicy(Settings.load())
    for scope in (handshake(garbage), handshake("http://a.example", host=garbage), handshake(garbage, host=garbage)):
        scope["headers"] = [(name, value.decode().encode("latin-1")) for name, value in scope["headers"]]
        if problem := policy.problem(scope):
            line = json.dumps(policy.explain(scope, problem))
            assert len(line) < 2000
            assert "\\u" not in line


def test_a_foreign_page_is_refused_before_the_handshake_is_accepted(serve: Serve, hooks: Hooks) -> None:
    @listener("/")
    async def handler(data: str) -> None: ...

    with serve(handler, allowed_origins=("https://app.example.com",)) as client:
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/", headers={"origin": "https://evil.net"}).__enter__()
        with client.websocket_connect("/", headers={"origin": "https://app.example.com"}):
            pass
        hooks.ended.get(timeout=20)
    assert len(hooks.accepted) == 1


def refused(app: Litestar, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, str]:
    """Open a handshake on a server that can send a denial response; return its status and its text."""
    scope: Any = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"token=SECRET"}
    scope |= {"headers": list(headers), "scheme": "ws", "extensions": {"websocket.http.response": {}}, "root_path": ""}
    scope |= {"server": ("10.0.0.1", 8000), "client": ("10.0.0.2", 1), "subprotocols": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def connect() -> None:
        async with app.lifespan():
            await app(scope, receive, send)

    asyncio.run(connect())
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"<a>", b"\xfc"])
def test_a_host_that_cannot_be_read_is_a_400(host: bytes) -> None:
    app = create_app()
    with capture_logs() as lines:
        assert refused(app, "/ws/echo", (b"host", host)) == (400, "the Host header cannot be read")
    [line] = [line for line in lines if line["event"] == "handshake rejected"]
    assert (line["reason"], line["status"]) == ("host", 400)


@pytest.mark.parametrize("in_development", [False, True])
def test_only_in_development_the_response_says_why(in_development: bool) -> None:
    settings = Settings.load()
    app = create_app(settings.for_reload() if in_development else settings)
    evil = (b"host", b"service:8000"), (b"origin", b"https://chat.example")
    with capture_logs() as lines:
        status, body = refused(app, "/ws/echo", *evil)
        unknown, answer = refused(app, "/api/ws/rooms/lobby", *evil)
    assert (status, unknown) == (403, 404)
    assert ("ALLOWED_ORIGINS" in body) is in_development
    assert ("/ws/rooms/{room" in answer) is in_development
    first, second = (line for line in lines if line["event"] == "handshake rejected")
    assert "ALLOWED_ORIGINS=https://chat.example" in first["fix"]
    assert (second["path"], second["reason"], second["status"]) == ("/api/ws/rooms/lobby", "path", 404)
    assert "SECRET" not in str(lines) + body + answer


LOCAL = [
    "http://localhost:5173",
    "https://localhost:3000",
    "https://localhost",
    "http://127.0.0.1:8080",
    "http://[::1]:1",
    "http://a.localhost:4",
]
FOREIGN = [
    "http://localhost.evil.net:5173",
    "http://evil.net:5173",
    "http://127.0.0.1.evil.net:1",
    "http://10.0.0.1:5173",
]


@pytest.mark.parametrize("in_development", [False, True])
def test_only_in_development_pages_of_localhost_connect_from_any_port(in_development: bool) -> None:
    settings = Settings.load()
    policy = OriginPolicy(settings.for_reload() if in_development else settings)

    def problem(origin: str) -> str:
        headers = [(b"host", b"127.0.0.1:8000"), (b"origin", origin.encode())]
        return policy.problem({"scheme": "ws", "headers": headers, "state": {}, "server": ("127.0.0.1", 8000)})

    assert {problem(origin) for origin in LOCAL} == {"" if in_development else "origin"}
    assert {problem(origin) for origin in FOREIGN} == {"origin"}


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/ws/ecco", "/ws/echo"),
        ("/ws/rooms", "/ws/rooms/{room}"),
        ("/ws/rooms/", "/ws/rooms/{room}"),
        ("/chat/ws/echo", "/ws/echo"),
        ("/health", None),
        ("/" + "x" * 9000, None),
    ],
)
def test_an_unknown_path_is_a_404_that_names_the_nearest(path: str, nearest: str | None) -> None:
    app = create_app()
    with capture_logs() as lines:
        assert refused(app, path, (b"host", b"x"))[0] == 404
    [line] = [line for line in lines if line["event"] == "handshake rejected"]
    assert line.get("nearest") == nearest


@pytest.mark.parametrize("path", ["/inf", "/99999999999999", "/price/abc"])
def test_a_number_that_no_path_can_hold_is_an_unknown_path(path: str, hooks: Hooks) -> None:
    @listener(["/{wait:timedelta}", "/price/{price:decimal}"])
    async def never(data: str) -> None: ...

    @get(["/over/http/{wait:timedelta}", "/over/http/price/{price:decimal}"])
    async def never_over_http() -> None: ...

    app = build(hooks, never, never_over_http)
    assert refused(app, path, (b"host", b"x"))[0] == 404
    with TestClient(app) as client:
        assert [client.get(f"{at}{path}").status_code for at in ("", "/over/http")] == [404, 404]
