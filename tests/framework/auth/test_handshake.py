"""The handshake: each way in, and each way that leads nowhere."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect
from litestar.testing import TestClient
from pydantic import SecretStr

from my_service.realtime import ConnectionInfo, Fanout, Reason, Socket, listener
from my_service.realtime.auth.plugin import Auth
from my_service.realtime.sessions.plugin import Sessions
from my_service.realtime.settings import PREFIX
from my_service.settings import Settings

from ..recording import Hooks, capture_logs
from .tokens import SECRET, bearer, by_hand, claims, token

Server = TestClient[Litestar]
OWN = {"origin": "http://service.test"}


def in_cookie(encoded: str, **headers: str) -> dict[str, Any]:
    return {"headers": {"cookie": f"theme=dark; token={encoded}"} | headers}


def ask(server: Server, path: str = "/who", **options: Any) -> str:
    with server.websocket_connect(path, **options) as socket:
        socket.send_text("who?")
        return socket.receive_text(timeout=20)


def refused(server: Server, path: str = "/who", **options: Any) -> str:
    """Expect a refusal before the accept, and return its reason."""
    with pytest.raises(WebSocketDisconnect) as error, server.websocket_connect(path, **options):
        pass
    assert error.value.code == 1008
    return error.value.detail


def user_of(auth: Auth, encoded: str) -> str:
    scope: Any = {"type": "websocket", "headers": [(b"authorization", b"Bearer " + encoded.encode())]}
    return asyncio.run(auth.authenticate(ASGIConnection(scope))).sub


def test_a_service_shows_its_token_in_the_header(server: Server) -> None:
    assert ask(server, headers=bearer(token("ada", team="red"))) == "ada ada {'team': 'red'}"
    assert ask(server, headers={"authorization": f"bearer  {token()}"}).startswith("ada")


def test_a_page_shows_it_as_a_subprotocol_and_gets_its_answer(server: Server) -> None:
    with server.websocket_connect("/who", subprotocols=["bearer", token("bob")]) as socket:
        assert socket.accepted_subprotocol == "bearer"
        socket.send_text("who?")
        assert socket.receive_text(timeout=20).startswith("bob")


def test_a_page_of_the_own_origin_may_use_a_cookie(server: Server) -> None:
    assert ask(server, **in_cookie(token("cleo"), **OWN)).startswith("cleo")


def test_what_is_sent_on_purpose_goes_before_a_cookie(server: Server) -> None:
    assert ask(server, **in_cookie(token("cleo"), **OWN, **bearer(token("ada")))).startswith("ada")
    assert refused(server, **in_cookie(token("cleo"), **OWN, **bearer("x"))) == "the token is not valid"


def test_a_cookie_does_not_count_without_an_allowed_origin(server: Server) -> None:
    assert "Origin" in refused(server, **in_cookie(token()))
    assert refused(server, **in_cookie(token(), origin="http://service.test:8080")) == "this origin may not connect"


def test_without_a_token_nobody_gets_in(server: Server, hooks: Hooks) -> None:
    others: list[dict[str, Any]] = [{}, {"headers": {"authorization": "Basic YTpi"}}, {"subprotocols": ["chat"]}]
    for options in others:
        assert refused(server, **options) == "a token is needed"
    assert hooks.accepted == []


def test_a_token_in_the_url_is_none(server: Server) -> None:
    for name in ("token", "access_token", "authorization"):
        assert refused(server, f"/who?{name}={token()}") == "a token is needed"


BAD = {
    "expired": token(seconds=-1),
    "another secret": token(secret="another secret " * 5),
    "another algorithm": token(algorithm="HS512"),
    "no algorithm": by_hand(b'{"alg":"none","typ":"JWT"}'),
    "a public key as the secret": by_hand(b'{"alg":"RS256","typ":"JWT"}', b"signature"),
    "no signature": token().rpartition(".")[0] + ".",
    "changed": ".".join([token().split(".")[0], token("eve").split(".")[1], token().split(".")[2]]),
    "nested too deeply": by_hand(b"[" * 100_000),
    "no expiry": token(exp=None),
    "no beginning": token(iat=None),
    "no user": token(sub=None),
    "an empty user": token(""),
    "no id": token(jti=None),
    "not yet": token(nbf=claims(seconds=3600)["exp"]),
    "from the future": token(iat=claims(seconds=3600)["exp"]),
    "nothing": "",
    "no token at all": "x.y.z",
}


@pytest.mark.parametrize("encoded", BAD.values(), ids=BAD)
def test_a_bad_token_is_refused(server: Server, hooks: Hooks, encoded: str) -> None:
    with capture_logs() as logs:
        assert refused(server, headers=bearer(encoded)) == "the token is not valid"
    assert hooks.accepted == []
    assert [(line["event"], line["reason"], line["log_level"]) for line in logs] == [
        ("handshake rejected", "token", "warning")
    ]


@given(st.text(max_size=50) | st.builds(by_hand, st.binary(max_size=50), st.binary(max_size=40)))
def test_whatever_is_no_token_is_not_valid(encoded: str) -> None:
    with pytest.raises(NotAuthorizedException):
        user_of(Auth(Settings(auth_secret=SecretStr(SECRET))), encoded)


@pytest.mark.parametrize("claim", ["issuer", "audience"])
def test_an_issuer_and_an_audience_count_where_they_are_set(claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}AUTH_{claim.upper()}", "us")
    auth = Auth(Settings.load())

    right: dict[str, Any] = {claim[:3]: "us"}
    assert user_of(auth, token(**right)) == "ada"
    wrong: list[dict[str, Any]] = [{}, {claim[:3]: "them"}]
    for others in wrong:
        with pytest.raises(NotAuthorizedException):
            user_of(auth, token(**others))


def test_a_public_handler_lets_anonymous_clients_in_and_verifies_a_token_that_is_sent(server: Server) -> None:
    assert ask(server, "/public") == "anonymous"
    assert ask(server, "/public", headers=bearer(token("ada"))) == "ada"
    assert ask(server, "/public", **in_cookie(token("cleo"), **OWN)) == "cleo"
    assert ask(server, "/public", **in_cookie("old", **OWN)) == "anonymous"  # the browser sends it without being told
    assert refused(server, "/public", headers=bearer("x")) == "the token is not valid"


def test_a_token_that_ends_during_the_handshake_lets_nobody_in(hooks: Hooks, auth: Auth) -> None:
    async def slow(socket: Socket) -> str:
        await auth.log_out(socket.auth, socket.app)
        return "done"

    @listener("/", dependencies={"slow": slow})
    async def handler(data: str, slow: NamedDependency[str]) -> None: ...

    sessions = Sessions(Settings(), ConnectionInfo, hooks)
    with TestClient(Litestar([handler], plugins=[Fanout(Settings()), auth, sessions])) as client:
        assert refused(client, "/", headers=bearer()) == "the token was revoked"
    assert hooks.accepted == []


def test_an_expired_token_closes_its_connection_and_no_other(server: Server, hooks: Hooks) -> None:
    with server.websocket_connect("/who", headers=bearer(token("bob"))) as stays:
        with server.websocket_connect("/who", headers=bearer(token("ada", seconds=2))) as socket:
            with pytest.raises(WebSocketDisconnect) as ended:
                socket.receive_text(timeout=20)
            assert (ended.value.code, ended.value.detail) == (1008, "the token has expired")
        connection, cause = hooks.ended.get(timeout=20)
        assert (connection.user, cause.reason, cause.code) == ("ada", Reason.ACCESS_ENDED, 1008)
        stays.send_text("still here?")
        assert stays.receive_text(timeout=20).startswith("bob")


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    assert SECRET not in f"{Settings.load()} {Settings.load()!r}"


@pytest.mark.parametrize("auth", [{"auth_max_connections_per_user": 1}], indirect=True)
def test_a_user_has_so_many_connections_and_no_more(server: Server, hooks: Hooks) -> None:
    with server.websocket_connect("/who", headers=bearer(token("ada"))):
        assert refused(server, headers=bearer(token("ada"))) == "too many connections of this user"
        assert ask(server, headers=bearer(token("bob"))).startswith("bob")
    for _ in range(2):
        hooks.ended.get(timeout=20)
    assert ask(server, headers=bearer(token("ada"))).startswith("ada")


@pytest.mark.parametrize("encoded", [token("ada\ud800"), token(jti="\ud800")])
def test_a_user_or_an_id_that_is_not_utf_8_is_a_token_that_is_not_valid(server: Server, encoded: str) -> None:
    assert refused(server, headers=bearer(encoded)) == "the token is not valid: its user or id is not UTF-8"
    assert server.post("/logout", headers=bearer(encoded)).status_code == 401


def test_a_get_says_why_a_handshake_would_be_refused(server: Server, hooks: Hooks) -> None:
    answer = server.get("/who")
    assert (answer.status_code, answer.text) == (401, "a token is needed")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert server.get("/who", headers=bearer(token())).status_code == 426
    assert server.get("/public").status_code == 426
    assert server.get("/who", **in_cookie(token())).status_code == 403
    assert server.get("/who", **in_cookie(token(), **{"sec-fetch-site": "same-origin"})).status_code == 426
    assert hooks.accepted == []


@pytest.mark.parametrize("auth", [{"auth_max_connections_per_user": 1}], indirect=True)
def test_a_get_says_that_a_user_has_too_many_connections_and_is_none_of_them(server: Server) -> None:
    assert server.get("/who", headers=bearer(token())).status_code == 426
    with server.websocket_connect("/who", headers=bearer(token())):
        assert server.get("/who", headers=bearer(token())).status_code == 429
