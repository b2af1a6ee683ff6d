"""Claims and roles: what a connection knows of its user, and one guard for WebSockets and HTTP handlers."""

import asyncio
from typing import Any

import pytest
from litestar import Litestar, Request, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import JSONBody
from litestar.testing import TestClient
from msgspec import Struct

from my_service.realtime import Auth, ConnectionInfo, Fanout, Listener, listener, requires_role
from my_service.realtime.auth.authenticator import Authenticator
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks
from .tokens import bearer, token

Server = TestClient[Litestar]


class Note(Struct):
    text: str


@listener("/desk", guards=[requires_role("agent", "chief")])
async def desk(data: str, connection: NamedDependency[ConnectionInfo]) -> str:
    return f"{connection.user} {sorted(connection.roles)} {connection.claims['team']}"


class Back(Listener):
    path = "/back"
    guards = (requires_role("chief"),)

    async def on_receive(self, data: str) -> str:
        return data


@listener("/lobby", opt={"public": True}, guards=[requires_role("agent")])
async def lobby(data: str) -> None: ...


@post("/notes", guards=[requires_role("agent")])
async def notes(data: JSONBody[Note], request: Request[str, Any, Any]) -> str:
    return f"{request.user} {data.text} {request.auth.extras}"


@pytest.fixture
def server(hooks: Hooks, auth: Auth) -> Any:
    settings = Settings()
    plugins = [Fanout(settings), auth, Sessions(settings, ConnectionInfo, hooks)]
    with TestClient(Litestar([desk, Back, lobby, notes], plugins=plugins)) as client:
        yield client


def ask(server: Server, path: str, encoded: str) -> str:
    with server.websocket_connect(path, headers=bearer(encoded)) as socket:
        socket.send_text("who?")
        return socket.receive_text(timeout=20)


def refused(server: Server, path: str, **options: Any) -> str:
    with pytest.raises(WebSocketDisconnect) as error, server.websocket_connect(path, **options):
        pass
    return error.value.detail


def test_a_websocket_is_for_those_who_have_a_role(server: Server) -> None:
    assert ask(server, "/desk", token(roles=["agent", "reader"], team="red")) == "ada ['agent', 'reader'] red"
    assert ask(server, "/desk", token(role="chief", team="red")) == "ada ['chief'] red"
    assert ask(server, "/back", token(role="chief")) == "who?"
    assert refused(server, "/back", headers=bearer(token(role="agent"))) == "this needs the role chief"
    assert refused(server, "/desk", headers=bearer(token())) == "this needs the role agent or chief"
    assert refused(server, "/lobby") == "a token is needed"


def test_an_http_handler_refuses_before_it_looks_at_the_body(server: Server) -> None:
    wrong: dict[str, Any] = {"text": 1}
    assert server.post("/notes", json=wrong).status_code == 401
    assert server.post("/notes", json=wrong, headers=bearer("x")).status_code == 401
    reader = server.post("/notes", json=wrong, headers=bearer(token(role="reader")))
    assert (reader.status_code, reader.json()["detail"]) == (403, "this needs the role agent")
    agent = bearer(token(role="agent"))
    assert server.post("/notes", json=wrong, headers=agent).status_code == 400
    assert server.post("/notes", json={"text": "hi"}, headers=agent).text == "ada hi {'role': 'agent'}"


CLAIMS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("roles,role", {}, set()),
    ("roles,role", {"roles": ["a", "b"], "role": "c d"}, {"a", "b", "c", "d"}),
    ("roles, role", {"role": "c"}, {"c"}),
    ("realm_access.roles", {"realm_access": {"roles": ["a"]}}, {"a"}),
    ("realm_access.roles", {"realm_access": "roles"}, set()),
    ("https://chat.example/roles", {"https://chat.example/roles": ["a"]}, {"a"}),
    ("groups", {"groups": [1, "a"]}, set()),
    ("groups", {"groups": {"a": 1}}, set()),
    ("groups", {"groups": None}, set()),
    ("scope", {"scope": "read write"}, {"read", "write"}),
]


@pytest.mark.parametrize(("names", "claims", "roles"), CLAIMS)
def test_roles_are_read_as_providers_write_them(names: str, claims: dict[str, Any], roles: set[str]) -> None:
    authenticator = Authenticator(Settings.load(auth_roles_claims=names))
    scope: Any = {"type": "websocket", "headers": [(b"authorization", b"Bearer " + token(**claims).encode())]}

    async def read() -> frozenset[str]:
        return authenticator.roles_of(await authenticator.authenticate(ASGIConnection(scope)))

    assert asyncio.run(read()) == roles
