"""Signatures of what nodes tell each other: whoever else can write to the engine cannot speak for a node."""

import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

SIGNATURE_BYTES: Final = 24
"""Bytes of a signature, which is base64 of the first 144 bits of an HMAC with SHA-256 (RFC 2104, section 5)."""
NON_ASCII: Final = re.compile("[^\0-\x7f]+")


class Signer:
    """Signs and verifies messages with a secret of the service.

    Args:
        secrets: The first one signs, all of them verify. Without one, nothing is signed or verified.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys = [hmac.digest(secret.encode(), b"fan-out", "sha256") for secret in secrets]
        self.rejected = 0
        """Messages without a valid signature."""

    def sign(self, channel: str, data: bytes, exclude: str = "") -> bytes:
        """Return a message with its signature in front."""
        return _signature(self._keys[0], channel, data, exclude) + data if self._keys else data

    def open(self, channel: str, data: bytes, exclude: str = "") -> bytes:
        """Return a message without its signature, or b"" where it is not a node's, like a message that is lost."""
        if not (self._keys and data):
            return data
        signature, data = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        expected = [_signature(key, channel, data, exclude) for key in self._keys]
        if any(hmac.compare_digest(signature, each) for each in expected):
            return data
        self.rejected += 1
        return b""


def _signature(key: bytes, channel: str, data: bytes, exclude: str) -> bytes:
    name = channel.encode()
    signed = b"%d:%b%b:%b" % (len(name), name, exclude.encode(), escape(data))
    return urlsafe_b64encode(hmac.digest(key, signed, "sha256")[: SIGNATURE_BYTES * 3 // 4])


def escape(data: bytes) -> bytes:
    """Return JSON in ASCII: some databases have no other characters, and what they keep has the same signature."""
    if data.isascii():
        return data
    text = data.decode(errors="replace")
    return NON_ASCII.sub(lambda characters: json.dumps(characters[0])[1:-1], text).encode()
