"""Ed25519 keys (RFC 8032): a private one signs releases, its public half is pinned on the robots that may run them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64  # RFC 8032, section 5.1
_KEY_ID_BYTES = 16  # of the SHA-256 of the raw public key: enough that nobody finds a second key with the same id


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What signatures are checked with. `raw` is its 32 bytes; `name`, that of its file, is for people only."""

    raw: bytes
    name: str = field(default="", compare=False)

    @property
    def key_id(self) -> str:
        """32 hex digits that name the key in signatures."""
        return hashlib.sha256(self.raw).digest()[:_KEY_ID_BYTES].hex()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half of this key signed `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point of the curve
            return False
        return True

    def __str__(self) -> str:
        return f"`{self.name}` ({self.key_id})" if self.name else self.key_id


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs. Never leaves the computer that releases bundles."""

    secret: Ed25519PrivateKey = field(repr=False)
    name: str = field(default="", compare=False)

    @property
    def public(self) -> PublicKey:
        """The half to pin on robots."""
        return PublicKey(self.secret.public_key().public_bytes_raw(), self.name)

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same for the same message."""
        return self.secret.sign(message)
