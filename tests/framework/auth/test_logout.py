"""Logging out: the token is done, and so are the connections of its user."""

from datetime import UTC, datetime

import pytest
from litestar import Litestar
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from my_service.realtime import Reason
from my_service.realtime.auth.plugin import Auth

from ..recording import Hooks
from .tokens import bearer, token

Server = TestClient[Litestar]


def test_it_closes_all_connections_of_the_user_and_nobody_elses(server: Server, hooks: Hooks) -> None:
    phone, laptop = token("ada"), token("ada")
    with (
        server.websocket_connect("/public") as anonymous,
        server.websocket_connect("/who", headers=bearer(token("bob"))) as bob,
    ):
        with (
            server.websocket_connect("/who", headers=bearer(phone)) as one,
            server.websocket_connect("/who", headers=bearer(laptop)) as other,
        ):
            assert server.post("/logout", headers=bearer(phone)).status_code == 204
            for socket in (one, other):
                with pytest.raises(WebSocketDisconnect) as ended:
                    socket.receive_text(timeout=20)
                assert (ended.value.code, ended.value.detail) == (1008, "logged out")
        causes = [hooks.ended.get(timeout=20) for _ in range(2)]
        assert {(connection.user, cause.reason) for connection, cause in causes} == {("ada", Reason.ACCESS_ENDED)}
        for socket, user in ((bob, "bob"), (anonymous, "anonymous")):
            socket.send_text("still here?")
            assert socket.receive_text(timeout=20).startswith(user)


def test_the_token_is_good_for_nothing_more(server: Server) -> None:
    phone, laptop = token("ada"), token("ada")
    assert server.post("/logout", headers=bearer(phone)).status_code == 204
    assert server.post("/logout", headers=bearer(phone)).status_code == 401
    again = server.websocket_connect("/who", headers=bearer(phone))
    with pytest.raises(WebSocketDisconnect, match="the token was revoked"), again:
        pass
    with server.websocket_connect("/who", headers=bearer(laptop)):
        pass


def test_a_revoked_token_is_forgotten_when_it_would_have_expired(server: Server, auth: Auth) -> None:
    auth.authenticator.revoked["old"] = datetime.now(UTC)
    server.post("/logout", headers=bearer(token(jti="new")))
    assert set(auth.authenticator.revoked) == {"new"}


def test_without_a_token_it_is_a_401_that_names_the_scheme(server: Server) -> None:
    for headers in ({}, bearer("x")):
        answer = server.post("/logout", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_foreign_page_cannot_log_anybody_out(server: Server) -> None:
    cookie = {"cookie": f"token={token()}"}
    assert server.post("/logout", headers=cookie).status_code == 403
    assert server.post("/logout", headers=cookie | {"origin": "https://evil.net"}).status_code == 403
    assert server.post("/logout", headers=cookie | {"origin": "http://service.test"}).status_code == 204
