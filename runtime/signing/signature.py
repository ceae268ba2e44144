"""`signature.json`: who vouches for a bundle's manifest, which vouches for every file.

What is signed is not the manifest but `MESSAGE` and the manifest's SHA-256: a signature made for anything else, or by
another program with the same key, is none here. The file has exactly one spelling; any other byte is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import SIGNATURE
from memrt.runtime.signing.keys import SIGNATURE_BYTES, PrivateKey, PublicKey

MESSAGE = b"memrt bundle signature 1\0"  # before the 32 bytes of the hash
_MAX_BYTES = 4096  # the file has 213


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `signature.json`. `signature` is 64 bytes in base64."""

    algorithm: Literal["ed25519"]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    signature: str

    def raw(self) -> bytes:
        """The signature's 64 bytes. Raises ValueError when it has not as many, or they are spelt in another way."""
        raw = base64.b64decode(self.signature, validate=True)
        if len(raw) != SIGNATURE_BYTES or _base64(raw) != self.signature:  # the last digit has four bits to spare
            raise ValueError(f"a signature of {len(raw)} bytes, or not as base64 is written")
        return raw


def message(manifest_sha256: str) -> bytes:
    """The bytes that are signed."""
    return MESSAGE + bytes.fromhex(manifest_sha256)


def make_signature(manifest_sha256: str, key: PrivateKey) -> Signature:
    """The signature of `key` for the manifest with this hash."""
    raw = key.sign(message(manifest_sha256))
    return Signature(algorithm="ed25519", key_id=key.public.key_id, signature=_base64(raw))


def is_by(signature: Signature, key: PublicKey, manifest_sha256: str) -> bool:
    """Whether `key` signed the manifest with this hash."""
    return key.verifies(signature.raw(), message(manifest_sha256))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def signature_bytes(signature: Signature) -> bytes:
    """The file's content: sorted keys, two spaces, one final newline."""
    return (json.dumps(msgspec.to_builtins(signature), sort_keys=True, indent=2) + "\n").encode("ascii")


def read_signature(root: Path) -> Signature | None:
    """The signature of the bundle in `root`, None for an unsigned one. Raises MemrtError when it is malformed."""
    path = root / SIGNATURE
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file():
        raise _malformed(path, "a link or device")
    with path.open("rb") as file:
        return parse_signature(file.read(_MAX_BYTES + 1), path)


def parse_signature(content: bytes, path: Path) -> Signature:
    """The signature that `content`, read from `path`, holds. Raises MemrtError when it is malformed."""
    try:
        signature = msgspec.json.decode(content, type=Signature)
        signature.raw()
        same = signature_bytes(signature) == content
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise _malformed(path, error) from error
    if not same:
        raise _malformed(path, "the same, spelt otherwise")
    return signature


def _malformed(path: Path, found: object) -> MemrtError:
    return MemrtError(
        f"{path}",
        expected="a signature as `memrt sign` writes it",
        found=found,
        fix="do not use this bundle; copy it again, or ask whoever released it",
    )
