"""A real identity provider, `oidc-provider` of npm, in a process of its own; it is restarted with other keys."""

import json
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from socket import create_server
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from .npm import install
from .rendering import ROOT

TIMEOUT = 20


def make_key(algorithm: str, key_id: str) -> dict[str, Any]:
    """Make a private key as a JSON Web Key."""
    jwk: dict[str, Any]
    if algorithm == "RS256":
        jwk = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)
    elif algorithm == "ES256":
        jwk = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk | {"kid": key_id, "alg": algorithm, "use": "sig"}


class Provider:
    """The provider, at an address that stays the same; it is not running yet."""

    def __init__(self, folder: Path) -> None:
        install(folder, "oidc-provider")
        shutil.copy(ROOT / "tests" / "provider.mjs", folder)
        with create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self, keys: Sequence[dict[str, Any]]) -> None:
        """Start it, or start it again, with these private keys; it signs with the first that fits."""
        self.stop()
        (self._folder / "keys.json").write_text(json.dumps(keys))
        self._process = subprocess.Popen(
            ["node", "provider.mjs", str(self._port), "keys.json"],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert any(line == "listening\n" for line in self._process.stdout)  # pytest-timeout bounds it

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=TIMEOUT)
            self._process = None

    def token(self, user: str = "ada", algorithm: str = "RS256") -> str:
        """Ask for an access token, as a client of this name (RFC 6749, section 4.4)."""
        fields = {"grant_type": "client_credentials", "resource": f"urn:chat:{algorithm}"}
        basic = b64encode(f"{user}:only-for-this-test".encode()).decode()
        request = Request(
            f"{self.issuer}/token", urlencode(fields).encode(), headers={"authorization": f"Basic {basic}"}
        )
        with urlopen(request, timeout=TIMEOUT) as answer:
            issued: str = json.load(answer)["access_token"]
        return issued
