"""Renewal: a new token on the open connection, before the old one expires."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from my_service.realtime import Cause, ConnectionInfo, Fanout, Socket, listener
from my_service.realtime.auth.plugin import Auth
from my_service.realtime.checks.definitions import check_hooks
from my_service.realtime.errors import ConfigurationError
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks
from .provider import signed
from .tokens import bearer, token

Server = TestClient[Litestar]


class Renewing(Hooks):
    """Hooks that also record what renewals bring."""

    renewed: list[tuple[frozenset[str], Any]]

    async def on_authenticated(self, socket: Socket, connection: ConnectionInfo) -> None:
        self.renewed.append((connection.roles, socket.auth.extras))


@listener("/raw")
async def raw(data: str, connection: NamedDependency[ConnectionInfo]) -> str:
    return f"{data} {sorted(connection.roles)}"


@listener("/json")
async def untyped(data: dict[str, Any]) -> dict[str, Any]:
    return data


@pytest.fixture
def hooks() -> Renewing:
    hooks = Renewing()
    hooks.renewed = []
    return hooks


@pytest.fixture
def server(hooks: Renewing, auth: Auth) -> Any:
    settings = Settings(max_messages_per_second=0, max_bad_messages=3)
    app = Litestar([raw, untyped], plugins=[Fanout(settings), auth, Sessions(settings, ConnectionInfo, hooks)])
    with TestClient(app) as client:
        yield client


def authenticate(encoded: str, **fields: Any) -> dict[str, Any]:
    return {"type": "authenticate", "token": encoded, **fields}


@pytest.mark.parametrize("path", ["/raw", "/json"])
def test_a_connection_outlives_its_first_token(server: Server, hooks: Renewing, path: str) -> None:
    with server.websocket_connect(path, headers=bearer(token(seconds=2))) as socket:
        socket.send_json(authenticate(token(seconds=4, roles=["agent"]), ref="a"))
        assert socket.receive_json(timeout=20) == {"type": "end", "ref": "a"}
        assert hooks.renewed == [(frozenset({"agent"}), {"roles": ["agent"]})]
        for _ in range(5):
            socket.send_json(authenticate(token(seconds=4, roles=["chief"])))  # without a `ref` nothing answers it
        socket.send_json({"type": "authenticate?"})
        assert "authenticate?" in socket.receive_text(timeout=20)
        assert len(hooks.renewed) == 6
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text(timeout=20)
        assert (ended.value.code, ended.value.detail) == (1008, "the token has expired")
    connection, _ = hooks.ended.get(timeout=20)
    assert connection.roles == frozenset({"chief"})
    assert connection.claims == {"roles": ["chief"]}


def test_a_refusal_changes_nothing(server: Server, hooks: Renewing) -> None:
    with server.websocket_connect("/raw", headers=bearer(token(role="agent"))) as socket:
        for encoded, code, detail in (
            ("rubbish", "not_authorized", "the token is not valid"),
            (token(seconds=-1), "not_authorized", "the token is not valid"),
            (token("eve"), "permission_denied", "the token is of another user"),
        ):
            socket.send_json(authenticate(encoded, ref=1))
            answer = {"type": "error", "code": code, "detail": detail, "ref": 1}
            assert socket.receive_json(timeout=20) == answer
        assert hooks.renewed == []
        socket.send_text("hi")
        assert socket.receive_text(timeout=20) == "hi ['agent']"
        socket.send_json(authenticate("rubbish"))
        assert socket.receive_json(timeout=20)["code"] == "not_authorized"


def test_many_refusals_in_a_row_close_the_connection(server: Server) -> None:
    with server.websocket_connect("/raw", headers=bearer()) as socket:
        for _ in range(4):
            socket.send_json(authenticate("rubbish"))
        for _ in range(3):
            assert socket.receive_json(timeout=20)["code"] == "not_authorized"
        with pytest.raises(WebSocketDisconnect, match="too many bad messages"):
            socket.receive_text(timeout=20)


@pytest.mark.parametrize("auth", [{"auth_jwks_url": "http://127.0.0.1:9/keys"}], indirect=True)
def test_a_provider_that_is_unavailable_ends_no_connection(server: Server) -> None:
    with server.websocket_connect("/raw", headers=bearer()) as socket:
        for _ in range(5):
            socket.send_json(authenticate(signed("RS256", "RS256"), ref=1))
            assert socket.receive_json(timeout=20)["code"] == "service_unavailable"


def test_a_revoked_token_renews_nothing(server: Server, auth: Auth) -> None:
    with server.websocket_connect("/raw", headers=bearer()) as socket:
        auth.authenticator.revoke("lost", datetime.now(UTC) + timedelta(hours=1))
        socket.send_json(authenticate(token(jti="lost")))
        assert socket.receive_json(timeout=20)["detail"] == "the token was revoked"


class Quiet:
    """Hooks without that of a renewal."""

    async def on_accept(self, socket: Socket, connection: ConnectionInfo) -> None: ...

    async def on_disconnect(self, socket: Socket, connection: ConnectionInfo, cause: Cause) -> None: ...


def test_the_hook_is_checked_where_there_is_one() -> None:
    class Wrong(Quiet):
        async def on_authenticated(self, socket: Socket) -> None: ...

    class Misspelt(Quiet):
        async def on_authenticate(self, socket: Socket, connection: ConnectionInfo) -> None: ...

    check_hooks(Quiet())
    with pytest.raises(ConfigurationError, match=r"on_authenticated\(socket, connection\)"):
        check_hooks(Wrong())
    with pytest.raises(ConfigurationError, match="rename it to on_authenticated"):
        check_hooks(Misspelt())
