"""Logging out: the token is done, and so are the connections of its user."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest
from litestar import Litestar
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from my_service.realtime import Fanout, FanoutUnavailableError, Reason
from my_service.realtime.auth.plugin import NODE_CHANNEL, Auth, LoggedOut
from my_service.realtime.fanout.messages import GapMarker

from ..recording import Hooks
from .tokens import bearer, token

Server = TestClient[Litestar]


def fanout_of(server: Server) -> Fanout:
    app: Litestar = cast("Any", server).app  # the type of the client says nothing of it
    return app.plugins.get(Fanout)


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


def test_a_node_that_starts_later_or_was_cut_off_knows_what_was_revoked(server: Server, auth: Auth) -> None:
    broker = fanout_of(server).broker
    told = LoggedOut(user="ada", jti="elsewhere", exp=datetime.now(UTC) + timedelta(hours=1))
    read = threading.Event()

    async def remembered() -> list[str]:
        read.set()
        return [msgspec.json.encode(told).decode()]

    def lose() -> None:
        fanout_of(server)._dispatcher.dispatch(  # pyright: ignore[reportPrivateUsage]
            NODE_CHANNEL, GapMarker(NODE_CHANNEL)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "remembered", remembered)
        with server.portal() as portal:
            portal.call(lose)
        assert read.wait(timeout=20)
    deadline = time.monotonic() + 20
    while "elsewhere" not in auth.authenticator.revoked:
        assert time.monotonic() < deadline
    assert server.post("/logout", headers=bearer(token(jti="elsewhere"))).status_code == 401


def test_a_logout_that_nobody_could_be_told_of_is_no_204(server: Server) -> None:
    async def remember(_text: str, _until: float) -> None:
        raise FanoutUnavailableError

    phone = bearer(token("ada"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout_of(server).broker, "remember", remember)
        assert server.post("/logout", headers=phone).status_code == 503
    assert server.post("/logout", headers=phone).status_code == 204, "it can be repeated"
