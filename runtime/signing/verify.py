"""Checks a bundle before anything of it is used: the manifest by its signature, then every file by the manifest.

The order matters: no byte that a trusted key has not vouched for is parsed, except the signature itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import SIGNATURE, manifest_content
from memrt.runtime.signing.key_files import KEYS_FOLDER, KEYS_VARIABLE
from memrt.runtime.signing.keys import PublicKey
from memrt.runtime.signing.signature import is_by, read_signature

UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who vouches for a bundle. `key` is a trusted key, or None: `says` tells which of the reasons it is."""

    key: PublicKey | None
    says: str


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle of which every byte was checked. `signer.key` is None only where unsigned bundles were allowed."""

    bundle: Bundle
    signer: Signer

    @property
    def sha256(self) -> str:
        """Of the manifest: the bundle's name in caches, ledgers and folders."""
        return self.bundle.sha256

    @property
    def name(self) -> str:
        """Of the policy; versions count for one name."""
        return self.bundle.manifest.name

    @property
    def version(self) -> int:
        """The release."""
        return self.bundle.manifest.version


def verify_bundle(root: str | Path, trusted: Sequence[PublicKey], *, allow_unsigned: bool = False) -> VerifiedBundle:
    """Check signature, exact set of files, sizes and SHA-256 of the bundle in `root`; files it shares lie beside it.

    `allow_unsigned` takes a bundle without a signature, and one whose signer is unknown here; a signature that is
    malformed, or not by the key that it names, is refused all the same. Raises MemrtError for whatever is wrong.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        load_bundle(folder)  # says what is wrong
    sha256 = hashlib.sha256(manifest_content(folder)).hexdigest()
    signer = find_signer(folder, sha256, trusted)
    if not allow_unsigned:
        require_signer(folder, signer)
    bundle = load_bundle(folder)
    if bundle.sha256 != sha256:
        raise MemrtError(
            f"bundle {folder}",
            expected="a folder that nobody writes to",
            found="another manifest than a moment ago",
            fix="find out who changes it, then try again",
        )
    return VerifiedBundle(bundle, signer)


def signer_of(bundle: Bundle, trusted: Sequence[PublicKey]) -> Signer:
    """Who vouches for a bundle that was loaded, and thereby checked file by file, already.

    Raises MemrtError for a signature that is malformed, or not by the key that it names.
    """
    return find_signer(bundle.path, bundle.sha256, trusted)


def find_signer(root: Path, manifest_sha256: str, trusted: Sequence[PublicKey]) -> Signer:
    """Who vouches for the manifest with this hash, in the bundle `root`; raises as `signer_of` does."""
    signature = read_signature(root)
    if signature is None:
        return Signer(None, UNSIGNED)
    key = next((key for key in trusted if key.key_id == signature.key_id), None)
    if key is None:
        return Signer(None, f"signed by {signature.key_id}, a key that is not trusted here")
    if not is_by(signature, key, manifest_sha256):
        raise MemrtError(
            f"{root / SIGNATURE}",
            expected=f"the signature of {key} for this manifest",
            found="another: the manifest was changed after it was signed, or the signature was",
            fix="do not use this bundle; copy it again, or ask whoever released it",
        )
    return Signer(key, f"signed by {key}")


def require_signer(root: Path, signer: Signer) -> PublicKey:
    """The trusted key that vouches for the bundle in `root`. Raises MemrtError when there is none."""
    if signer.key is not None:
        return signer.key
    unsigned = signer.says == UNSIGNED
    raise MemrtError(
        f"bundle {root}",
        expected="the signature of a trusted key",
        found="none: it is unsigned" if unsigned else signer.says,
        fix="sign it with `memrt sign`, or run it with --allow-unsigned"
        if unsigned
        else f"if you trust its owner, copy their .pub to {KEYS_FOLDER}, or to the folder of --keys or {KEYS_VARIABLE}",
    )
