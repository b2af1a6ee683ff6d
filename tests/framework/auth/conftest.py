"""A service that is nothing but sessions, authentication and two handlers."""

from collections.abc import Iterator

import pytest
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.testing import TestClient

from my_service.realtime import ConnectionInfo, Fanout, Socket, listener
from my_service.realtime.auth.plugin import Auth, logout
from my_service.realtime.sessions.plugin import Sessions
from my_service.settings import Settings

from ..recording import Hooks


@listener("/who")
async def who(data: str, socket: Socket, connection: NamedDependency[ConnectionInfo]) -> str:
    return f"{connection.user} {socket.user} {socket.auth.extras}"


@listener("/public", opt={"public": True})
async def public(data: str, connection: NamedDependency[ConnectionInfo]) -> str:
    return connection.user or "anonymous"


@pytest.fixture
def auth(request: pytest.FixtureRequest) -> Auth:
    """The authentication; a test sets other settings by parametrizing it."""
    return Auth(Settings.load(**getattr(request, "param", {})))


@pytest.fixture
def server(hooks: Hooks, auth: Auth) -> Iterator[TestClient[Litestar]]:
    """A client without any credentials of its own."""
    settings = Settings(max_messages_per_second=0)
    sessions = Sessions(settings, ConnectionInfo, hooks)
    app = Litestar([who, public, logout], plugins=[Fanout(settings), auth, sessions], openapi_config=None)
    with TestClient(app, base_url="http://service.test") as client:
        yield client
