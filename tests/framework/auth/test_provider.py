"""The tokens of an identity provider, whose keys are fetched: which are valid, and when it is asked.

The template's own tests run the same against a real provider.
"""

import asyncio
import socket
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from litestar import Litestar
from litestar.exceptions import NotAuthorizedException, ServiceUnavailableException, WebSocketDisconnect
from litestar.testing import TestClient

from my_service.realtime.auth import provider
from my_service.realtime.auth.authenticator import Authenticator
from my_service.realtime.errors import SettingsError
from my_service.realtime.settings import PREFIX
from my_service.settings import Settings

from ..recording import capture_logs
from .provider import PRIVATE, KeyServer, key_server, public, signed
from .tokens import bearer, by_hand, token

Server = TestClient[Litestar]
UNKNOWN = generate_private_key(65537, 2048)


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with key_server() as keys:
        keys.publish("/keys", {"keys": [public(each, each) for each in PRIVATE]})
        yield keys


def verifying(keys: KeyServer, check: Callable[[Authenticator], Awaitable[None]], **settings: Any) -> None:
    """Run a check with the tokens of a provider; AUTH_SECRET is not set, unless it is given."""
    given = {"auth_secret": "", "auth_jwks_url": f"{keys.url}/keys"} | settings
    authenticator = Authenticator(Settings.load(**given))

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await check(authenticator)

    asyncio.run(bounded())


async def refused(authenticator: Authenticator, encoded: str) -> str:
    with pytest.raises(NotAuthorizedException) as error:
        await authenticator.verify(encoded)
    return type(error.value.__cause__).__name__


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_of_the_provider_is_valid(keys: KeyServer, algorithm: str) -> None:
    async def check(authenticator: Authenticator) -> None:
        valid = await authenticator.verify(signed(algorithm, algorithm, user="ada", jti=None, team="red"))
        assert (valid.sub, valid.extras) == ("ada", {"team": "red"})
        await refused(authenticator, signed("RS256", "RS256", key=UNKNOWN))
        await refused(authenticator, signed(algorithm, algorithm)[:-8] + "AAAAAAAA")
        await refused(authenticator, signed(algorithm, algorithm, seconds=-1))
        authenticator.revoke(str(valid.jti), valid.exp)
        again = await authenticator.verify(signed(algorithm, algorithm, user="ada", jti=None, team="blue"))
        assert again.jti != valid.jti

    verifying(keys, check)


def test_a_clock_that_is_ahead_is_forgiven_and_an_expiry_is_not(keys: KeyServer) -> None:
    async def check(authenticator: Authenticator) -> None:
        now = int(datetime.now(UTC).timestamp())
        await authenticator.verify(signed("RS256", "RS256", iat=now + 20, nbf=now + 20))
        for claim in ("iat", "nbf"):
            await refused(authenticator, signed("RS256", "RS256", **{claim: now + 60}))
        await refused(authenticator, signed("RS256", "RS256", exp=now - 1))

    verifying(keys, check)


def test_a_key_verifies_what_it_is_made_for_and_nothing_else(keys: KeyServer) -> None:
    pem = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = by_hand(b'{"alg":"HS256","typ":"JWT","kid":"RS256"}').rpartition(".")[0]
    signature = urlsafe_b64encode(digest(pem, unsigned.encode(), sha256)).decode().rstrip("=")  # as if it were a secret

    async def check(authenticator: Authenticator) -> None:
        assert await refused(authenticator, f"{unsigned}.{signature}") == "InvalidAlgorithmError"
        assert await refused(authenticator, token()) == "InvalidAlgorithmError"
        for algorithm in ("none", "HS256", "RS384", "PS256", "ES384"):
            bad = by_hand(b'{"alg":"%s","typ":"JWT","kid":"RS256"}' % algorithm.encode())
            assert await refused(authenticator, bad) == "InvalidAlgorithmError", algorithm
        assert await refused(authenticator, signed("ES256", "RS256")) == "InvalidKeyError"
        assert await refused(authenticator, by_hand(b'{"alg":"RS256","kid":["RS256"]}')) == "InvalidTokenError"

    verifying(keys, check)


def test_a_token_of_ones_own_is_valid_beside_those_of_the_provider(keys: KeyServer) -> None:
    async def check(authenticator: Authenticator) -> None:
        assert (await authenticator.verify(token("own", secret="s" * 32))).sub == "own"
        assert (await authenticator.verify(signed("RS256", "RS256", user="theirs"))).sub == "theirs"
        assert await refused(authenticator, token("own", secret="t" * 32)) == "InvalidSignatureError"
        assert await refused(authenticator, token("own", secret="s" * 32, jti=None)) == "MissingRequiredClaimError"

    verifying(keys, check, auth_secret="s" * 32)


def test_keys_that_verify_nothing_here_are_left_out(keys: KeyServer) -> None:
    weak = generate_private_key(65537, 1024)  # noqa: S505
    keys.publish(
        "/keys",
        {
            "keys": [
                public("RS256", "encrypts", use="enc"),
                public("RS256", "stronger", alg="RS512"),
                public("RS256", "weak", key=weak),
                {"kty": "oct", "kid": "secret", "k": "c2VjcmV0" * 8},
                {"kty": ["RSA"], "kid": {}},
                {},
                public("ES256", "good"),
            ]
        },
    )

    async def check(authenticator: Authenticator) -> None:
        await authenticator.verify(signed("ES256", "good"))
        for key_id in ("encrypts", "stronger"):
            await refused(authenticator, signed("RS256", key_id))
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            bad = signed("RS256", "weak", key=weak)
        assert await refused(authenticator, bad) == "InvalidKeyError"

    verifying(keys, check)


def test_a_token_without_a_key_id_takes_the_only_key_that_fits(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "RETRY_SECONDS", 0)

    async def check(authenticator: Authenticator) -> None:
        await authenticator.verify(signed("RS256", None))
        keys.publish("/keys", {"keys": [public("RS256", "a"), public("RS256", "b")]})
        await refused(authenticator, signed("RS256", "another"))  # fetches
        await refused(authenticator, signed("RS256", None))

    verifying(keys, check)


def test_the_first_unknown_key_is_fetched_at_once_and_the_next_only_later(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(authenticator: Authenticator) -> None:
        many = [authenticator.verify(signed("RS256", "RS256")) for _ in range(20)]
        await asyncio.gather(*many)
        assert keys.asked == ["/keys"]
        keys.publish("/keys", {"keys": [public("RS256", "rotated")]})
        for _ in range(20):
            await refused(authenticator, signed("RS256", "rotated"))
        assert keys.asked == ["/keys"]
        monkeypatch.setattr(provider, "RETRY_SECONDS", 0)
        await authenticator.verify(signed("RS256", "rotated"))
        await refused(authenticator, signed("RS256", "RS256"))  # the old one is withdrawn
        assert keys.asked == ["/keys"] * 3

    verifying(keys, check)


def test_while_the_provider_is_unavailable_its_known_keys_stay_good(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "RETRY_SECONDS", 0)
    working = keys.documents.pop("/keys")

    async def check(authenticator: Authenticator) -> None:
        with capture_logs() as logs, pytest.raises(ServiceUnavailableException):
            await authenticator.verify(signed("RS256", "RS256"))
        [line] = logs
        assert (line["event"], line["error"]) == ("keys of the provider not fetched", "it answers 404")
        keys.documents["/keys"] = working
        await authenticator.verify(signed("RS256", "RS256"))
        del keys.documents["/keys"]
        await refused(authenticator, signed("RS256", "another"))
        await authenticator.verify(signed("RS256", "RS256"))
        monkeypatch.setattr(provider, "MAX_AGE_SECONDS", 0)
        with pytest.raises(ServiceUnavailableException):
            await authenticator.verify(signed("RS256", "another"))

    verifying(keys, check)


BAD_DOCUMENTS: dict[str, tuple[Any, int, dict[str, str]]] = {
    "no JSON": (b"<html>", 200, {}),
    "no key set": ({"keys": "none"}, 200, {}),
    "nested too deeply": (b'{"keys":' + b"[" * 100_000, 200, {}),
    "no key": ({"keys": []}, 200, {}),
    "only others": ({"keys": [{"kty": "oct"}]}, 200, {}),
    "too large": ({"keys": [public("ES256", str(number)) for number in range(8000)]}, 200, {}),
    "a redirect": (b"", 302, {"location": "/moved"}),
    "an error": (b"", 500, {}),
    "cut off": (b"{", 200, {"content-length": "100"}),
}


@pytest.mark.parametrize("bad", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_what_is_no_key_set_is_logged_and_changes_nothing(
    keys: KeyServer, bad: tuple[Any, int, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "RETRY_SECONDS", 0)
    monkeypatch.setattr(provider, "FETCH_SECONDS", 2)
    document, status, headers = bad
    keys.publish("/moved", {"keys": [public("RS256", "moved")]})

    async def check(authenticator: Authenticator) -> None:
        await authenticator.verify(signed("RS256", "RS256"))
        keys.publish("/keys", document, status, **headers)
        with capture_logs() as logs:
            await refused(authenticator, signed("RS256", "moved"))
        assert [(line["event"], line["url"]) for line in logs if line["log_level"] == "warning"] == [
            ("keys of the provider not fetched", f"{keys.url}/keys")
        ]
        await authenticator.verify(signed("RS256", "RS256"))

    verifying(keys, check)


def test_a_large_key_set_is_parsed_only_where_a_token_needs_it(keys: KeyServer) -> None:
    many = [public("ES256", str(number)) for number in range(4000)]
    many[1]["x"] = "no number"
    keys.publish("/keys", {"keys": many})

    async def check(authenticator: Authenticator) -> None:
        assert (await authenticator.verify(signed("ES256", "3999"))).sub == "ada"
        await refused(authenticator, signed("ES256", "1"))

    verifying(keys, check)


def test_a_provider_that_does_not_answer_holds_up_nobody_else(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "FETCH_SECONDS", 1)

    async def check(authenticator: Authenticator) -> None:
        waiting = asyncio.create_task(authenticator.verify(signed("RS256", "RS256")))
        assert (await authenticator.verify(token("own", secret="s" * 32))).sub == "own"
        assert not waiting.done()
        with pytest.raises(ServiceUnavailableException):
            await waiting

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        verifying(keys, check, auth_jwks_url=url, auth_secret="s" * 32)


def test_the_issuer_names_its_keys(keys: KeyServer) -> None:
    document = {"issuer": f"{keys.url}/tenant/", "jwks_uri": f"{keys.url}/keys", "token_endpoint": "…"}
    keys.publish("/tenant/.well-known/openid-configuration", document)

    async def check(authenticator: Authenticator) -> None:
        issuer = f"{keys.url}/tenant/"
        assert (await authenticator.verify(signed("RS256", "RS256", iss=issuer))).iss == issuer
        for wrong in (None, "https://another.example"):
            await refused(authenticator, signed("RS256", "RS256", iss=wrong))

    verifying(keys, check, auth_jwks_url="", auth_issuer=f"{keys.url}/tenant/")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"issuer": "https://another.example", "jwks_uri": "{url}/keys"}, "it is the issuer 'https://another.example'"),
        ({"issuer": "{url}", "jwks_uri": "http://another.example/keys"}, "is not an https URL"),
        ({"issuer": "{url}"}, "missing required field `jwks_uri`"),
    ],
)
def test_a_discovery_that_leads_astray_is_not_followed(keys: KeyServer, document: dict[str, str], problem: str) -> None:
    filled = {name: value.format(url=keys.url) for name, value in document.items()}
    keys.publish("/.well-known/openid-configuration", filled)

    async def check(authenticator: Authenticator) -> None:
        with capture_logs() as logs, pytest.raises(ServiceUnavailableException):
            await authenticator.verify(signed("RS256", "RS256", iss=keys.url))
        assert problem in logs[0]["error"]
        assert "/keys" not in keys.asked

    verifying(keys, check, auth_jwks_url="", auth_issuer=keys.url)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"auth_jwks_url": "http://login.example/keys"}, "AUTH_JWKS_URL: 'http://login.example/keys' is not an https"),
        ({"auth_jwks_url": "login.example/keys"}, "AUTH_JWKS_URL: 'login.example/keys' is not an https URL"),
        ({"auth_jwks_url": "file:///keys"}, "AUTH_JWKS_URL: 'file:///keys' is not an https URL"),
        ({"auth_jwks_url": "http://127.0.0.1.example/"}, "AUTH_JWKS_URL: 'http://127.0.0.1.example/' is not an https"),
        (
            {"auth_issuer": "us"},
            "AUTH_SECRET: the secret is missing, and AUTH_ISSUER cannot be used to find keys: 'us' is not an",
        ),
        ({}, "AUTH_SECRET: the secret is missing; generate one with: python -c"),
        (
            {"auth_jwks_url": "https://login.example/keys", "auth_secret": "short"},
            "AUTH_SECRET: the secret has 5 bytes",
        ),
    ],
)
def test_a_mistake_in_the_settings_stops_the_start(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load(**({"auth_secret": ""} | settings))
    assert str(error.value).startswith(f"{PREFIX}{problem}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["https://login.example/keys", "http://localhost:8080/keys", "http://[::1]/keys"])
def test_a_secret_is_not_needed_beside_a_provider(url: str) -> None:
    assert Settings.load(auth_secret="", auth_jwks_url=url).has_provider
    assert Settings.load(auth_secret="", auth_issuer=url).has_provider
    assert not Settings.load(auth_issuer=url).has_provider


@pytest.mark.parametrize("auth", [{"auth_jwks_url": "http://127.0.0.1:9/keys"}], indirect=True)
def test_a_handshake_that_cannot_be_verified_is_a_503(server: Server) -> None:
    with server.websocket_connect("/who", headers=bearer()):
        pass
    theirs = bearer(signed("RS256", "RS256"))
    assert server.post("/logout", headers=theirs).status_code == 503
    handshake = server.websocket_connect("/who", headers=theirs)
    with pytest.raises(WebSocketDisconnect, match="the identity provider is unavailable"), handshake:
        pass
