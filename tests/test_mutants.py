"""The tests are worth something: each of these mistakes, planted into a project, makes some of them fail.

A mistake counts as found when a test fails or the service refuses to start; not when the code cannot be imported.
"""

import ast
import re
import shutil
from pathlib import Path, PurePath

import pytest

from .cases import params
from .rendering import Renders, run_pytest

PACKAGE = Path("src/my_service")

Mistake = list[tuple[str, str, str]]
"""Replacements, in order: a file, what stands there, and what is planted in its place."""

USER_MUTANTS: dict[str, Mistake] = {
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
    "state that on_accept shares": [
        ("state.py", "count: int = 0", "counts: list[int] = None\n    count: int = 0"),
        ("hooks.py", "async def on_accept", "COUNTS: list[int] = []\n\n\nasync def on_accept"),
        ("hooks.py", "async def on_disconnect", "    connection.counts = COUNTS\n\n\nasync def on_disconnect"),
    ],
    "state on the listener": [
        ("listeners/rooms.py", '"""Send the message to everybody in the room."""', "self.latest = data.text"),
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
    "a clean-up that needs what on_accept has acquired": [
        ("state.py", "count: int = 0", "resource: list[int] | None = None\n    count: int = 0"),
        ("hooks.py", "async def on_disconnect", "    connection.resource = []\n\n\nasync def on_disconnect"),
        ("hooks.py", "cause: Cause) -> None:", "cause: Cause) -> None:\n    connection.resource.clear()"),
    ],
    "what clients receive is not declared": [
        ("listeners/rooms.py", "sends = Joined | Left | SaidInRoom", "sends = Joined | Left"),
    ],
    "a message that nobody sends": [
        ("messages.py", "class Left(", 'class Unused(Struct, tag="unused"):\n    pass\n\n\nclass Left('),
    ],
    "a setting that the example does not list": [
        (
            "settings.py",
            "class Settings(RealtimeSettings):",
            "class Settings(RealtimeSettings):\n    unlisted: int = 1\n",
        ),
    ],
    "another default than the example lists": [
        (
            "settings.py",
            "class Settings(RealtimeSettings):",
            "class Settings(RealtimeSettings):\n    port: int = 9000\n",
        ),
    ],
}
"""Mistakes of a user. The tests of the generated project alone have to find them."""

MUTANTS: dict[str, Mistake] = {
    "state in a cached dependency": [
        ("sessions/plugin.py", "Provide(_provide_connection,", "Provide(_provide_connection, use_cache=True,"),
    ],
    "one Connection for all": [
        (
            "sessions/plugin.py",
            "Runtime(settings, connection,",
            "Runtime(settings, lambda made=connection(): made,",
        ),
    ],
    "no clean-up": [
        ("sessions/lifespan.py", "await pair.on_disconnect(socket, session.ensure_connection(), cause)", "pass"),
    ],
    "no clean-up when the initialization fails": [
        ("sessions/lifespan.py", "                await pair.on_accept(socket, connection)\n", ""),
        (
            "sessions/lifespan.py",
            "exits.append(partial(_disconnect",
            "await pair.on_accept(socket, connection)\n                exits.append(partial(_disconnect",
        ),
    ],
    "clean-up twice": [
        (
            "sessions/lifespan.py",
            "await pair.on_disconnect(socket, session.ensure_connection(), cause)",
            "await pair.on_disconnect(socket, session.ensure_connection(), cause)\n"
            "            await pair.on_disconnect(socket, session.ensure_connection(), cause)",
        ),
    ],
    "clean-up of the wrong connection": [
        (
            "sessions/lifespan.py",
            "await pair.on_disconnect(socket, session.ensure_connection(), cause)",
            "from .plugin import Sessions\n\n"
            "            registry = socket.app.plugins.get(Sessions).registry\n"
            "            other = min(registry, key=lambda each: each.opened_at)\n"
            "            await pair.on_disconnect(socket, other.ensure_connection(), cause)",
        ),
    ],
    "the wrong cause": [
        (
            "sessions/cause.py",
            "return Cause(Reason.CLIENT_CLOSED, code)",
            "return Cause(Reason.CONNECTION_LOST, code)",
        ),
    ],
    "sockets are not forgotten": [
        ("sessions/registry.py", "        self._sessions.remove(session)\n", ""),
        ("sessions/registry.py", "while self._sessions:", "while False:"),  # and nobody waits for them
    ],
    "any origin may connect": [
        ("sessions/origin.py", "if origin != own_origin(scope):", "if False:"),
    ],
    "an origin that ends alike may connect": [
        (
            "sessions/origin.py",
            "if origin != own_origin(scope):",
            "if not origin.endswith(own_origin(scope).partition('://')[2]):",
        ),
    ],
    "a bad message ends the connection": [
        ("handlers/messages.py", "                detail = str(error)", "                raise"),
    ],
    "bad messages without end": [
        ("sessions/session.py", "if 0 < self.settings.max_bad_messages < self._bad_messages:", "if False:"),
    ],
    "a client may be silent for ever": [
        ("sessions/lifespan.py", "            self._wait(min(limits))\n", "            pass\n"),
    ],
    "a user has any number of sockets": [
        ("sessions/registry.py", "if 0 < limit <= client.sessions:", "if False:"),
    ],
    "a slow consumer is waited for without end": [
        ("server/websocket_protocol.py", "if self._settings.send_seconds:", "if False:"),
    ],
    "any proxy is trusted": [
        ("server/serve.py", "app), settings.trusted_proxies)", 'app), "*")'),
    ],
    "no content security policy": [
        ("http.py", '"content-security-policy": NOTHING', '"x-no-policy": NOTHING'),
    ],
    "the error message is not documented": [
        ("handlers/listener.py", "self.answer_types(), ErrorMessage,", "self.answer_types(), None,"),
    ],
    "answers are not documented": [
        ("handlers/listener.py", "*self.answer_types(), ErrorMessage", "ErrorMessage"),
    ],
    "a path is not documented": [
        ("asyncapi/plugin.py", "in listener_routes(app)]", 'in listener_routes(app) if route.path != "/ws/echo"]'),
    ],
    "messages are not validated": [
        (
            "handlers/messages.py",
            "msgspec.json.Decoder(data.raw, dec_hook=handler.default_deserializer).decode",
            "msgspec.json.decode",
        ),
    ],
    "a sender receives what was for the others": [
        ("fanout/dispatch.py", "(message.exclude and message.exclude == self._connection_id)", "False"),
    ],
    "who resumes receives twice": [
        ("fanout/memory.py", "message.sequence > after", "message.sequence >= after"),
        ("fanout/messages.py", "        elif message.sequence > last:", "        else:"),
        ("fanout/messages.py", "            if missed:", "            if missed > 0:"),
    ],
    "a client that resumes is told of no gap": [
        ("fanout/messages.py", "            if missed:\n", "            if False:\n"),
    ],
    "a slow consumer is told of no gap": [
        ("fanout/dispatch.py", "        if self._missed:\n", "        if False:\n"),
    ],
    "the backlog of a slow consumer has no end": [
        ("fanout/dispatch.py", "if len(self._backlog) >= self.settings.max_backlog:", "if False:"),
    ],
    "a user comes with each tab": [
        ("fanout/broker.py", "        if entry is None:", "        if True:"),
    ],
    "channels are never forgotten": [
        ("fanout/dispatch.py", "            del self._subscribers[channel]", "            pass"),
    ],
    "channels are not left at the end": [
        ("fanout/plugin.py", "exits.append(self._leave_all)", "pass"),
    ],
    "a message that is published is lost": [
        ("fanout/memory.py", "self._keep(kept", "kept.sequence % 100 and self._keep(kept"),
        ("fanout/memory.py", "self._dispatch(ch", "kept.sequence % 100 and self._dispatch(ch"),
    ],
    "no drain": [
        ("server/drain.py", "        await self.drain()\n", ""),
    ],
    "no check of lifespans": [
        ("plugin.py", "                check_lifespan(lifespan)", "                pass"),
    ],
}

AUTH_MUTANTS: dict[str, Mistake] = {
    "no token is needed": [("handshake.py", '.get("public")', '.get("public", True)')],
    "a token in the URL counts": [
        (
            "credentials.py",
            'connection.cookies.get(cookie, "")',
            'connection.query_params.get("token") or connection.cookies.get(cookie, "")',
        ),
        ("credentials.py", "by_cookie=True) if token", "by_cookie=False) if token"),
    ],
    "a cookie counts without an Origin": [("authenticator.py", "required=True", "required=False")],
    "a cookie goes before a header": [
        ("credentials.py", 'if scheme.lower() == "bearer":', "if not connection.cookies:")
    ],
    "a token needs no id": [("authenticator.py", '("sub", "exp", "iat", "jti")', '("sub", "exp", "iat")')],
    "the issuer does not count": [("authenticator.py", "self._settings.auth_issuer or None", "None")],
    "the audience does not count": [("authenticator.py", "self._settings.auth_audience or None", "None")],
    "a key verifies what it is not for": [("provider.py", 'jwk.get("alg", algorithm) == algorithm', "True")],
    "a key is as short as it likes": [
        ("authenticator.py", '                "enforce_minimum_key_length": True,\n', "")
    ],
    "a key set has any size": [("provider.py", "len(body) > MAX_BYTES", "False")],
    "keys are fetched wherever a redirect leads": [
        ("provider.py", "verify=self._tls)", "verify=self._tls, follow_redirects=True)")
    ],
    "each unknown key asks the provider": [("provider.py", "_searched_at >= RETRY_SECONDS", "_searched_at >= 0")],
    "no unknown key asks the provider": [("provider.py", "_searched_at >= RETRY_SECONDS", "_searched_at < 0")],
    "each handshake fetches the keys for itself": [("provider.py", "is None or self._fetch.done()", "is None or True")],
    "any issuer may name the keys": [("provider.py", "if discovery.issuer != issuer:", "if False:")],
    "keys come over any wire": [("settings.py", 'parts.scheme == "http" and _is_loopback(host)', "True")],
    "withdrawn keys are good for ever": [("provider.py", "> MAX_AGE_SECONDS:", '> float("inf"):')],
    "all tokens without an id are one": [("authenticator.py", 'encoded.rpartition(".")[0].encode()', 'b""')],
    "a clock that is ahead locks users out": [
        ("authenticator.py", "LEEWAY_SECONDS: Final = 30", "LEEWAY_SECONDS: Final = 0")
    ],
    "what is claimed in public is not checked": [
        ("handshake.py", "self._authenticator.has_explicit_token(connection)", "False")
    ],
    "an old cookie closes what is public": [("authenticator.py", " and not credentials.by_cookie", "")],
    "no subprotocol is answered": [("handshake.py", 'message["subprotocol"] or SUBPROTOCOL', 'message["subprotocol"]')],
    "a token is looked at once": [("handshake.py", "        self._authenticator.check(self._token)", "        pass")],
    "connections outlive their token": [("handshake.py", "seconds_left(self._token)\n", "3600\n")],
    "a renewed token does not count": [
        ("handshake.py", "            self._use(token)\n            self._await_expiry()\n", "")
    ],
    "a token of another user renews": [("handshake.py", "if token.sub != session.user:", "if False:")],
    "a listener sees the token of a renewal": [("../sessions/session.py", "await self.access.renew(text):", "False:")],
    "a role is not needed": [
        ("plugin.py", ".isdisjoint([role, *others])", ".isdisjoint([*authenticator.roles_of(token)])")
    ],
    "a token is good after its logout": [("authenticator.py", "in self.revoked:", "in ():")],
    "revoked tokens are kept for ever": [("authenticator.py", " if until > now}", "}")],
    "a logout closes nothing": [("plugin.py", 'registry.disconnect(logged_out.user, "logged out")', "registry")],
    "a logout closes everybody": [("../sessions/registry.py", ".ensure_connection().user == user", "")],
    "the log holds what is refused": [
        ("handshake.py", "error.status_code, error.detail, **hints", "error.status_code, str(session.scope), **hints")
    ],
    "a short secret is enough": [("../secrets.py", "MIN_SECRET_BYTES: Final = 32", "MIN_SECRET_BYTES: Final = 5")],
    "the secret is printed": [
        ("settings.py", 'SecretStr = Field(default=SecretStr(""), ', 'str = Field(default="", '),
        (
            "settings.py",
            "secret: SecretStr, info: ValidationInfo) -> SecretStr",
            "secret: str, info: ValidationInfo) -> str",
        ),
        ("settings.py", "secret.get_secret_value()", "secret"),
        ("settings.py", "secret.get_secret_value()", "secret"),
        ("authenticator.py", ".get_secret_value()", ""),
    ],
    "a user may have any number of connections": [("handshake.py", "limit=self._max_connections_per_user", "limit=0")],
    "a user has no name in the state": [
        ("../sessions/session.py", "self.connection.user = self.user", 'self.connection.user = ""')
    ],
}

QUICK = {
    "state in a module global",
    "state on the listener",
    "a clean-up that needs what on_accept has acquired",
    "one Connection for all",
    "clean-up twice",
    "the wrong cause",
    "any origin may connect",
    "messages are not validated",
    "no token is needed",
    "a cookie counts without an Origin",
    "a token is good after its logout",
}
"""Those that are planted in every run; the others are `exhaustive`."""

GENERATED = ("tests", "--ignore", "tests/framework")
"""The tests of a generated project, without those of the framework."""

WITHOUT_PROCESSES_OF_AUTH = ("tests/framework/auth", "--ignore", "tests/framework/auth/test_served.py")
"""Those of the authentication that start no process: seconds, and most of what there is to find."""

OPTIONS = ("-q", "-x", "-n0", "--timeout", "20", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def near(file: str) -> tuple[str, ...]:
    """The tests of the folder in which a file of the framework is."""
    return (f"tests/framework/{PurePath(file).parent}",)


def plant(mistake: Mistake, package: Path) -> dict[Path, str]:
    """Return the files of a package that a mistake changes, with their new text."""
    planted: dict[Path, str] = {}
    for name, old, new in mistake:
        text = planted.get(file := package / name) or file.read_text()
        assert old in text, f"{old!r} is not in {name}"
        planted[file] = text.replace(old, new, 1)
    return planted


def copy_with(mistake: Mistake, project: Path, target: Path, folder: str = "") -> Path:
    copied = Path(shutil.copytree(project, target))
    for file, text in plant(mistake, copied / PACKAGE / folder).items():
        file.write_text(text)
    return copied


def assert_found(project: Path, *tests: tuple[str, ...]) -> None:
    """Run some of the tests, and more as long as they find nothing."""
    status, written = 0, ""
    for some in tests:
        status, written = run_pytest(project, *OPTIONS, *some)
        if status:
            break
    assert status == 1, f"exit status {status}\n{written[-3000:]}"
    assert re.search(r"\d+ (failed|error)", written), written[-3000:]
    assert "SyntaxError" not in written


def test_what_is_planted_in_every_run_is_among_the_mistakes() -> None:
    assert {*USER_MUTANTS, *MUTANTS, *AUTH_MUTANTS} >= QUICK


@pytest.mark.parametrize(
    ("mutants", "folder", "answers"),
    [(USER_MUTANTS, "", {}), (MUTANTS, "realtime", {}), (AUTH_MUTANTS, "realtime/auth", {"auth": "jwt"})],
    ids=["user", "framework", "authentication"],
)
def test_every_mistake_can_be_planted(
    renders: Renders, subtests: pytest.Subtests, mutants: dict[str, Mistake], folder: str, answers: dict[str, str]
) -> None:
    """What it replaces is still there, and what comes of it is still Python."""
    package = renders.of(**answers) / PACKAGE / folder
    for mutant, mistake in mutants.items():
        with subtests.test(mutant):
            for file, text in plant(mistake, package).items():
                assert text != file.read_text()
                ast.parse(text)


@pytest.mark.exhaustive
@pytest.mark.parametrize("answers", [{}, {"auth": "jwt"}], ids=["default", "jwt"])
def test_without_a_mistake_nothing_is_found(renders: Renders, tmp_path: Path, answers: dict[str, str]) -> None:
    project = copy_with([], renders.compiled(**answers), tmp_path / "project")
    status, written = run_pytest(project, *OPTIONS, *GENERATED)
    assert status == 0, written[-3000:]


@pytest.mark.parametrize("mistake", params(USER_MUTANTS, QUICK))
def test_a_planted_mistake_of_a_user_is_found(renders: Renders, tmp_path: Path, mistake: Mistake) -> None:
    project = copy_with(mistake, renders.compiled(), tmp_path / "project")
    shutil.rmtree(project / "tests" / "framework")
    assert_found(project, ("tests",))


@pytest.mark.parametrize("mistake", params(MUTANTS, QUICK))
def test_a_planted_mistake_in_the_framework_is_found(renders: Renders, tmp_path: Path, mistake: Mistake) -> None:
    project = copy_with(mistake, renders.compiled(), tmp_path / "project", "realtime")
    assert_found(project, near(mistake[0][0]), GENERATED, ("tests",))


@pytest.mark.parametrize("mistake", params(AUTH_MUTANTS, QUICK))
def test_a_planted_mistake_in_the_authentication_is_found(renders: Renders, tmp_path: Path, mistake: Mistake) -> None:
    project = copy_with(mistake, renders.compiled(auth="jwt"), tmp_path / "project", "realtime/auth")
    assert_found(project, WITHOUT_PROCESSES_OF_AUTH, ("tests/framework/auth",))
