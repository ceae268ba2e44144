"""Signs a bundle: the last step of a release, on the computer that holds the private key."""

from __future__ import annotations

from pathlib import Path

import msgspec

from memrt.runtime.bundle import load_bundle, rewrite_manifest
from memrt.runtime.durable_file import write_durably
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MAX_VERSION, SIGNATURE
from memrt.runtime.signing.keys import PrivateKey
from memrt.runtime.signing.signature import make_signature, signature_bytes
from memrt.runtime.signing.verify import VerifiedBundle, signer_of


def sign_bundle(root: str | Path, key: PrivateKey, *, version: int | None = None) -> VerifiedBundle:
    """Sign the bundle in `root`, after every file of it was checked; an older signature is replaced.

    `version` sets the release anew, by default it stays. A manifest of schema 1 becomes one of the present schema. Both
    change the manifest and so the bundle's hash: proofs and engines made before are of another bundle. Interrupted,
    this leaves an unsigned bundle. Raises MemrtError for a bundle that is not whole, for a version that is none, and
    where nothing can be written.
    """
    if version is not None and not 1 <= version <= MAX_VERSION:
        raise MemrtError(
            f"version of bundle {root}", expected=f"1 to {MAX_VERSION}", found=version, fix="count releases from 1"
        )
    bundle = load_bundle(root)
    manifest = bundle.manifest
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    try:
        bundle = rewrite_manifest(bundle, manifest)
        content = signature_bytes(make_signature(bundle.sha256, key))
        write_durably(bundle.path / SIGNATURE, content, folder=bundle.path.resolve().parent)
    except OSError as error:
        raise MemrtError(
            f"bundle {root}",
            expected="a folder that can be written, and the one that it lies in",
            found=error,
            fix="copy it with `memrt bundle copy`, and sign the copy",
        ) from error
    return VerifiedBundle(bundle, signer_of(bundle, [key.public]))
