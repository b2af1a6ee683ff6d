"""`ProviderKeys`: the public keys of an identity provider, from its JSON Web Key Set (RFC 7517, section 5)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import httpx
import msgspec
import structlog
from jwt import InvalidKeyError, PyJWK
from litestar import Litestar
from litestar.exceptions import ServiceUnavailableException
from msgspec import Struct

from ..settings import PREFIX
from .settings import AuthSettings, check_provider_url

log = structlog.get_logger(__name__)

ALGORITHMS: Final = {"RS256": ("RSA", ""), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms that are accepted, each with the type and the curve of its keys. No other key verifies it, whatever
the header of a token says (RFC 8725, section 3.1)."""

REFRESH_SECONDS: Final = 300
"""Seconds until the keys are fetched again, so that one that the provider has withdrawn is good no longer."""
RETRY_SECONDS: Final = 10
"""Seconds until the keys are fetched again after a failure, and between two fetches for a key that is not known."""
FETCH_SECONDS: Final = 5
"""Seconds that a fetch may take as a whole."""
MAX_AGE_SECONDS: Final = 24 * 3600
"""Seconds for which keys are used while their provider is unavailable."""
MAX_BYTES: Final = 1024 * 1024
"""Bytes in one answer of the provider."""


class KeySet(Struct):
    """A JSON Web Key Set."""

    keys: list[dict[str, Any]]


class Discovery(Struct):
    """What a provider publishes about itself (OpenID Connect Discovery, section 3)."""

    issuer: str
    jwks_uri: str


class ProviderKeys:
    """The keys of the provider: fetched in the background, kept while it is unavailable, and found by their id.

    Args:
        settings: The URL of the key set, or the issuer whose discovery document names it.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self._keys: dict[tuple[str, str], dict[str, Any]] = {}
        """The usable keys, by id and algorithm. They are parsed when a token needs them."""
        self._fetched_at = self._searched_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None
        self._tls = httpx.create_ssl_context()  # once: it reads a file

    @asynccontextmanager
    async def refreshed(self, _: Litestar) -> AsyncGenerator[None, None]:
        """Fetch the keys, and again in intervals. The service also starts while the provider is unavailable."""

        async def refresh() -> None:
            while True:
                await self._fetch_once()
                age = monotonic() - self._fetched_at
                await asyncio.sleep(REFRESH_SECONDS if age < REFRESH_SECONDS else RETRY_SECONDS)

        if not self._settings.auth_audience:
            log.warning("tokens for any audience are accepted", fix=f"set {PREFIX}AUTH_AUDIENCE")
        refreshing = asyncio.create_task(refresh())
        try:
            yield
        finally:
            refreshing.cancel()
            if self._fetch is not None:
                self._fetch.cancel()

    async def find(self, key_id: str, algorithm: str) -> PyJWK:
        """Return a key. The first id that is not known fetches the keys at once, others only RETRY_SECONDS later.

        Args:
            key_id: The `kid` in the header of a token, or "" for the only key that there is.
            algorithm: One of `ALGORITHMS`.

        Raises:
            InvalidKeyError: The provider has no such key.
            ServiceUnavailableException: The provider could not be asked yet (503).
        """
        jwk = self._look_up(key_id, algorithm)
        if jwk is None:
            if self._fetch is not None and not self._fetch.done():
                await self._fetch_once()
            elif monotonic() - self._searched_at >= RETRY_SECONDS:
                self._searched_at = monotonic()
                await self._fetch_once()
            jwk = self._look_up(key_id, algorithm)
        if jwk is not None:
            return PyJWK(jwk, algorithm)
        if not self._keys:
            raise ServiceUnavailableException("the identity provider is unavailable")
        raise InvalidKeyError("the provider has no such key")

    def _look_up(self, key_id: str, algorithm: str) -> dict[str, Any] | None:
        if key_id:
            return self._keys.get((key_id, algorithm))
        fitting = [jwk for (_, each), jwk in self._keys.items() if each == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _fetch_once(self) -> None:
        """Fetch the keys, or wait for the fetch that is under way. Who waits does not end it by giving up."""
        if self._fetch is None or self._fetch.done():
            self._fetch = asyncio.create_task(self._replace_keys())
        await asyncio.shield(self._fetch)

    async def _replace_keys(self) -> None:
        url = self._settings.auth_jwks_url
        try:
            async with asyncio.timeout(FETCH_SECONDS), httpx.AsyncClient(verify=self._tls) as client:
                if not url:
                    issuer = self._settings.auth_issuer
                    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                    discovery = msgspec.json.decode(await _get(client, url), type=Discovery)
                    if discovery.issuer != issuer:
                        raise ValueError(f"it is the issuer {discovery.issuer!r}, and AUTH_ISSUER is {issuer!r}")  # noqa: TRY301
                    url = check_provider_url(discovery.jwks_uri)
                keys = _usable(msgspec.json.decode(await _get(client, url), type=KeySet))
            if not keys:
                raise ValueError(f"it has no key for {', '.join(ALGORITHMS)}")  # noqa: TRY301
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, OSError, ValueError, RecursionError) as error:
            log.warning("keys of the provider not fetched", url=url, error=str(error) or type(error).__name__)
            if monotonic() - self._fetched_at > MAX_AGE_SECONDS:
                self._keys = {}
        else:
            if not self._keys:
                log.info("keys of the provider fetched", url=url, keys=len(keys))
            self._keys, self._fetched_at = keys, monotonic()


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """Read a document of at most MAX_BYTES. A redirect is an error, and so may lead nowhere else."""
    body = b""
    async with client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
        if response.status_code != HTTPStatus.OK:
            raise ValueError(f"it answers {response.status_code}")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError(f"it answers with more than {MAX_BYTES} bytes")
    return body


def _usable(key_set: KeySet) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the keys that sign with one of the `ALGORITHMS`, by id and algorithm."""
    keys: dict[tuple[str, str], dict[str, Any]] = {}
    for jwk in key_set.keys:
        for algorithm, kind in ALGORITHMS.items():
            is_kind = (jwk.get("kty"), jwk.get("crv", "")) == kind
            if is_kind and jwk.get("use", "sig") == "sig" and jwk.get("alg", algorithm) == algorithm:
                keys[str(jwk.get("kid", "")), algorithm] = jwk
    return keys
