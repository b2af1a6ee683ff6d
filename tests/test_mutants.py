"""The tests of a generated service are worth something: each of these mistakes, planted into it, makes them fail.

A mistake counts as found when a test fails or the service refuses to start; not when the code cannot be imported.
"""

import shutil
from pathlib import Path, PurePath

import pytest

from .rendering import Renders, replace, run

PACKAGE = Path("src/my_service")

MUTANTS: dict[str, list[tuple[str, str, str]]] = {
    "state in a module global": [
        ("listeners/echo.py", "@listener(", 'counts = {"count": 0}\n\n\n@listener('),
        ("listeners/echo.py", "connection.count += 1", 'counts["count"] += 1'),
        ("listeners/echo.py", "count=connection.count", 'count=counts["count"]'),
    ],
    "state in a mutable default": [
        ("listeners/echo.py", "NamedDependency[Connection])", "NamedDependency[Connection], counts: list[int] = [])"),
        ("listeners/echo.py", "connection.count += 1", "counts.append(1)"),
        ("listeners/echo.py", "count=connection.count", "count=len(counts)"),
    ],
    "state in a mutable default of the Connection": [
        ("state.py", "count: int = 0", "counts: list[int] = SHARED\n    count: int = 0"),
        (
            "state.py",
            "@dataclass",
            "class Shared(list[int]):\n    __hash__ = object.__hash__\n\n\nSHARED = Shared()\n\n\n@dataclass",
        ),
    ],
    "state on the listener": [
        ("listeners/rooms.py", '"""Tell everybody in the room."""', "self.latest = data.text"),
    ],
    "state on the class of the listener": [
        ("listeners/rooms.py", 'path = "/ws', 'history: list[str] = []\n    path = "/ws'),
    ],
    "state in the state of the application": [
        ("listeners/echo.py", "from litestar.di", "from litestar.datastructures import State\nfrom litestar.di"),
        ("listeners/echo.py", "NamedDependency[Connection])", "NamedDependency[Connection], state: State)"),
    ],
    "state of the application through the socket": [
        ("listeners/echo.py", "import listener", "import Socket, listener"),
        ("listeners/echo.py", "(data: Say,", "(data: Say, socket: Socket,"),
        ("listeners/echo.py", "connection.count += 1", "socket.app.state.count = socket.app.state.get('count', 0) + 1"),
        ("listeners/echo.py", "count=connection.count", "count=socket.app.state.count"),
    ],
    "state in a cached dependency": [
        ("connections/plugin.py", "Provide(_provide_connection,", "Provide(_provide_connection, use_cache=True,"),
    ],
    "one Connection for all": [
        (
            "connections/plugin.py",
            "self.make_connection = connection",
            "self.make_connection = lambda c=connection(): c",
        ),
    ],
    "no clean-up": [
        ("connections/lifespan.py", "await stage.on_disconnect(socket, connection, cause)", "pass"),
    ],
    "no clean-up when the initialization fails": [
        ("connections/lifespan.py", "await stage.on_accept(socket, connection)", "pass"),
        (
            "connections/lifespan.py",
            "            life.push_async_exit(partial(_clean_up",
            "            await stage.on_accept(socket, connection)\n            life.push_async_exit(partial(_clean_up",
        ),
    ],
    "clean-up twice": [
        (
            "connections/lifespan.py",
            "await stage.on_disconnect(socket, connection, cause)",
            "await stage.on_disconnect(socket, connection, cause)\n"
            "            await stage.on_disconnect(socket, connection, cause)",
        ),
    ],
    "clean-up of the wrong connection": [
        (
            "connections/lifespan.py",
            "await stage.on_disconnect(socket, connection, cause)",
            "other = next(iter(entry.connections.registry)).connection or connection\n"
            "            await stage.on_disconnect(socket, other, cause)",
        ),
        (
            "connections/registry.py",
            "return iter(tuple(self._open))",
            "return iter(sorted(self._open, key=lambda e: e.since))",
        ),
    ],
    "the wrong cause": [
        (
            "connections/registry.py",
            "return Cause(Reason.CLIENT_CLOSED, code)",
            "return Cause(Reason.CONNECTION_LOST, code)",
        ),
    ],
    "sockets are not forgotten": [
        ("connections/gate.py", "self._connections.registry.remove(entry)", "pass"),
    ],
    "any origin may connect": [
        ("connections/origin.py", "return origin in allowed or origin == own_origin(scope)", "return True"),
    ],
    "an origin that ends alike may connect": [
        (
            "connections/origin.py",
            "origin == own_origin(scope)",
            "origin.endswith(own_origin(scope).partition('://')[2])",
        ),
    ],
    "a bad message ends the connection": [
        ("connections/listener.py", "await _answer_bad_message(socket, error)", "raise"),
    ],
    "bad messages without end": [
        ("connections/listener.py", "if not entry.bad_messages.allows_another(entry.messages_in):", "if False:"),
    ],
    "a client may be silent for ever": [
        ("connections/lifespan.py", "        silence.start()\n", ""),
    ],
    "a user has any number of sockets": [
        ("connections/registry.py", "if 0 < most <= len(claimed):", "if False:"),
    ],
    "a slow reader is waited for without end": [
        ("connections/protocol.py", "if self._settings.send_seconds:", "if False:"),
    ],
    "any proxy is trusted": [
        ("server.py", "forwarded_allow_ips=settings.trusted_proxies", 'forwarded_allow_ips="*"'),
    ],
    "no content security policy": [
        ("headers.py", "{**policy, **HEADERS}", "HEADERS"),
    ],
    "what clients hear is not documented": [
        ("listeners/rooms.py", "sends = Joined | Left | SaidInRoom", "sends = Joined | Left"),
    ],
    "a message that nobody says or hears": [
        ("messages.py", "class Left(", 'class Unused(Struct, tag="unused"):\n    pass\n\n\nclass Left('),
    ],
    "the error message is not documented": [
        ("asyncapi/channels.py", "(handler.sends, ErrorMessage, Pong", "(handler.sends, None, Pong"),
    ],
    "answers are not documented": [
        ("asyncapi/channels.py", "fields = [handler.parsed_return_field]", "fields: list[FieldDefinition | None] = []"),
    ],
    "a path is not documented": [
        ("asyncapi/channels.py", "isinstance(handler, ListenerRouteHandler) and", 'route.path != "/ws/echo" and'),
    ],
    "messages are not validated": [
        (
            "connections/listener.py",
            "msgspec.json.Decoder(field.raw, dec_hook=self.default_deserializer).decode",
            "msgspec.json.decode",
        ),
    ],
    "a sender hears what was for the others": [
        ("fanout/reader.py", "message.sequence <= self._floor or message.skipped == self._id", "False"),
    ],
    "who comes back hears twice": [
        ("fanout/reader.py", "if isinstance(each, Hole) or each.sequence > history.sequence]", "]"),
        ("fanout/memory.py", "each.sequence > after", "each.sequence >= after"),
    ],
    "a client that comes back is told of no gap": [
        ("fanout/reader.py", "gap.append(Hole.of(self.channel, missed))", "pass"),
    ],
    "a slow reader is told of no gap": [
        ("fanout/reader.py", "        if self._missed:\n", "        if False:\n"),
    ],
    "the backlog of a slow reader has no end": [
        ("fanout/reader.py", "if len(self._backlog) >= self._most:", "if False:"),
    ],
    "a user comes with each tab": [
        ("fanout/engine.py", "        if presence is None:", "        if True:"),
        ("fanout/memory.py", "if member not in members:", "if True:"),
    ],
    "channels are never forgotten": [
        ("fanout/plugin.py", "            del self._here[channel.name]", "            return await reader.stop()"),
    ],
    "channels are not left at the end": [
        ("fanout/plugin.py", "life.push_async_callback(self._leave_all, readers)", "pass"),
    ],
    "a message that is published is lost": [
        (
            "fanout/memory.py",
            "        kept.messages.append(published)\n",
            "        if kept.sequence % 100 == 0:\n            return 0\n",
        ),
    ],
    "no drain": [
        ("connections/drain.py", "self._registry.draining = True", "return await super().shutdown(sockets)"),
    ],
    "no check of lifespans": [
        ("connections/checks.py", "        check_lifespan(lifespan)", "        pass"),
    ],
}

AUTH_MUTANTS: dict[str, list[tuple[str, str, str]]] = {
    "no token is needed": [("handshake.py", '.get("public")', '.get("public", True)')],
    "a token in the URL counts": [
        (
            "credentials.py",
            'connection.cookies.get(cookie, "")',
            'connection.query_params.get("token") or connection.cookies.get(cookie, "")',
        ),
        ("credentials.py", "by_cookie=True) if token", "by_cookie=False) if token"),
    ],
    "a cookie counts without an Origin": [("plugin.py", "required=True", "required=False")],
    "a cookie goes before a header": [
        ("credentials.py", 'if scheme.lower() == "bearer":', "if not connection.cookies:")
    ],
    "a token needs no id": [("plugin.py", '("sub", "exp", "iat", "jti")', '("sub", "exp", "iat")')],
    "the issuer does not count": [("plugin.py", "self._settings.issuer or None", "None")],
    "the audience does not count": [("plugin.py", "self._settings.audience or None", "None")],
    "what is claimed in public is not checked": [("handshake.py", "self._auth.is_claimed(connection)", "False")],
    "an old cookie closes what is public": [("plugin.py", " and not credentials.by_cookie", "")],
    "no subprotocol is answered": [("handshake.py", 'message["subprotocol"] or SUBPROTOCOL', 'message["subprotocol"]')],
    "a token is looked at once": [("handshake.py", "            self._auth.check(token)", "            pass")],
    "connections outlive their token": [
        ("handshake.py", "expiry = self._auth.close_when_expired(entry, token)", "expiry = None")
    ],
    "the end of one token closes every connection": [
        (
            "plugin.py",
            "self._close, entry,",
            "lambda *_: [self._close(each, '') for each in entry.connections.registry],",
        )
    ],
    "a token is good after its logout": [("plugin.py", "in self.revoked:", "in ():")],
    "revoked tokens are kept for ever": [("plugin.py", " if exp > now}", "}")],
    "a logout closes nothing": [("plugin.py", 'self._close(entry, "logged out")', "pass")],
    "a logout closes everybody": [("plugin.py", "registry.by_user.get(logout.user, ())", "registry")],
    "the log holds what is refused": [("handshake.py", "detail=error.detail,", "detail=str(connection.headers),")],
    "a short secret is enough": [("settings.py", "MIN_SECRET_BYTES = 32", "MIN_SECRET_BYTES = 5")],
    "the secret is printed": [
        ("settings.py", 'SecretStr = Field(default=SecretStr(""), ', 'str = Field(default="", '),
        ("settings.py", "secret.get_secret_value()", "secret"),
        ("plugin.py", ".get_secret_value()", ""),
    ],
    "a user may have any number of connections": [("handshake.py", "self._auth.max_connections_per_user", "0")],
    "a user has no name in the state": [
        ("../connections/lifespan.py", "entry.connection.user = entry.user", 'entry.connection.user = ""')
    ],
}


WITHOUT_PROCESSES_OF_AUTH = ("tests/auth/test_handshake.py", "tests/auth/test_logout.py")

TEST = (
    "pytest",
    "-q",
    "-x",
    "-n0",
    "--timeout",
    "20",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faker",
    "-p",
    "no:hypothesispytest",
)


def near(project: Path, file: str) -> tuple[str, ...]:
    """The tests of a file, or of its folder, where there are some."""
    path = PurePath(file)
    places = [f"tests/{path.parent}/test_{path.stem}.py", *([f"tests/{path.parent}"] if path.parent.name else [])]
    return next(((place,) for place in places if (project / place).exists()), ("tests/listeners", "tests/asyncapi"))


def plant(project: Path, *mistake: tuple[str, str, str]) -> None:
    for file, old, new in mistake:
        replace(project / PACKAGE / file, old, new)


def assert_found(project: Path, *tests: tuple[str, ...]) -> None:
    """Run some of the tests, and more as long as they find nothing."""
    for some in tests:
        result = run(project, *TEST, *some)
        if result.returncode:
            break
    assert result.returncode == 1, f"exit status {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr}"
    assert "SyntaxError" not in result.stdout


@pytest.mark.parametrize("mutant", AUTH_MUTANTS)
def test_a_planted_mistake_in_the_authentication_is_found(renders: Renders, tmp_path: Path, mutant: str) -> None:
    project = Path(shutil.copytree(renders.compiled(auth="jwt"), tmp_path / "project"))
    plant(project, *((f"auth/{file}", old, new) for file, old, new in AUTH_MUTANTS[mutant]))
    assert_found(project, WITHOUT_PROCESSES_OF_AUTH, ("tests/auth",))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_is_found(renders: Renders, tmp_path: Path, mutant: str) -> None:
    project = Path(shutil.copytree(renders.compiled(), tmp_path / "project"))
    plant(project, *MUTANTS[mutant])
    assert_found(project, near(project, MUTANTS[mutant][0][0]), WITHOUT_PROCESSES, ())
