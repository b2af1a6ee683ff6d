"""The keys of an identity provider, and a server that publishes them and counts how often it is asked."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from .tokens import claims

PRIVATE: dict[str, Any] = {
    "RS256": generate_rsa_key(65537, 2048),
    "ES256": generate_private_key(SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}
TO_JWK: dict[str, Any] = {
    "RS256": RSAAlgorithm.to_jwk,
    "ES256": ECAlgorithm.to_jwk,
    "EdDSA": OKPAlgorithm.to_jwk,
}


def public(algorithm: str, key_id: str, *, key: Any = None, **fields: Any) -> dict[str, Any]:
    """A key as it is published."""
    own = (key or PRIVATE[algorithm]).public_key()
    jwk: dict[str, Any] = TO_JWK[algorithm](own, as_dict=True)
    return jwk | {"kid": key_id, "use": "sig"} | fields


def signed(algorithm: str, key_id: str | None, *, key: Any = None, **others: Any) -> str:
    """A token that the provider issues."""
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**others), key or PRIVATE[algorithm], algorithm, headers=headers)


class KeyServer:
    """Publishes documents by their path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.documents: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def publish(self, path: str, document: Any, status: int = 200, **headers: str) -> None:
        self.documents[path] = (
            status,
            headers,
            document if isinstance(document, bytes) else json.dumps(document).encode(),
        )


@contextmanager
def key_server() -> Generator[KeyServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.asked.append(self.path)
            status, headers, body = keys.documents.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        keys = KeyServer(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield keys
        finally:
            server.shutdown()
            thread.join()
