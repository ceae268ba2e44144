"""Signed bundles: Ed25519 over the manifest, which vouches for the set of files, their sizes and their SHA-256."""

from memrt.runtime.signing.key_files import (
    KEYS_FOLDER,
    KEYS_VARIABLE,
    generate_key,
    load_private_key,
    load_public_key,
    load_trusted,
)
from memrt.runtime.signing.keys import PrivateKey, PublicKey
from memrt.runtime.signing.sign import sign_bundle
from memrt.runtime.signing.verify import Signer, VerifiedBundle, require_signer, signer_of, verify_bundle

__all__ = [
    "KEYS_FOLDER",
    "KEYS_VARIABLE",
    "PrivateKey",
    "PublicKey",
    "Signer",
    "VerifiedBundle",
    "generate_key",
    "load_private_key",
    "load_public_key",
    "load_trusted",
    "require_signer",
    "sign_bundle",
    "signer_of",
    "verify_bundle",
]
