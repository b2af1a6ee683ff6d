"""The service with the tokens of a real identity provider: it finds the keys, and follows when they are rotated."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from .provider import Provider, make_key
from .rendering import Renders, compile_package
from .service import Service, running

ALGORITHMS = ("RS256", "ES256", "EdDSA")
OLD = [make_key(algorithm, f"{algorithm}-old") for algorithm in ALGORITHMS]
NEW = [make_key(algorithm, f"{algorithm}-new") for algorithm in ALGORITHMS]


@pytest.fixture(scope="module")
def project(renders: Renders) -> Path:
    project = renders.of(auth="jwt")
    compile_package(project)
    return project


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    provider = Provider(tmp_path_factory.mktemp("provider"))
    yield provider
    provider.stop()


@pytest.fixture
def provider(installed: Provider) -> Provider:
    installed.start(OLD)
    return installed


@pytest.fixture
def start(project: Path, provider: Provider) -> Iterator[Callable[..., Service]]:
    """Start a service that knows nothing but the name of the provider, and its own."""
    with ExitStack() as stack:
        known = {"auth_issuer": provider.issuer, "auth_audience": "chat"}
        yield lambda **settings: stack.enter_context(running(project, **(known | settings)))


def status(service: Service, token: str) -> int:
    """Return the status of a handshake with this token: 101 where it is accepted."""
    opening: Any = connect
    try:
        with opening(service.url("/ws/echo"), additional_headers={"authorization": f"Bearer {token}"}) as socket:
            socket.send('{"type":"say","text":"hi"}')
            assert '"hi"' in cast("str", socket.recv(timeout=20))
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_its_tokens_are_valid(start: Callable[..., Service], provider: Provider, algorithm: str) -> None:
    service = start()
    assert status(service, provider.token("ada", algorithm)) == 101
    assert service.wait_for("connection accepted")["user"] == "ada"


def test_they_are_for_one_audience(start: Callable[..., Service], provider: Provider) -> None:
    assert status(start(auth_audience="another"), provider.token()) == 401


def test_it_finds_the_keys_by_their_url_too(start: Callable[..., Service], provider: Provider) -> None:
    service = start(auth_jwks_url=f"{provider.issuer}/jwks", auth_issuer="", auth_audience="")
    assert status(service, provider.token()) == 101
    service.wait_for("connection accepted")
    [warning] = service.happened("tokens for any audience are accepted")
    assert "AUTH_AUDIENCE" in warning["fix"]


def test_it_follows_a_rotation(start: Callable[..., Service], provider: Provider) -> None:
    service = start()
    old = provider.token()
    assert status(service, old) == 101
    provider.start([*NEW, *OLD])
    assert status(service, provider.token()) == 101
    assert status(service, old) == 101


def test_it_starts_while_the_provider_is_down_and_stays_when_it_goes(
    start: Callable[..., Service], provider: Provider
) -> None:
    token = provider.token()
    provider.stop()
    service = start()
    service.wait_for("keys of the provider not fetched")
    assert status(service, token) == 503
    assert service.get("/health")[0] == 200
    provider.start(OLD)
    service.wait_for("keys of the provider fetched")
    assert status(service, token) == 101
    provider.stop()
    assert status(service, token) == 101
    assert service.complaints == []
