"""Keys as files: PEM, private ones as PKCS8 (with a passphrase, if wanted), public ones as SubjectPublicKeyInfo.

`openssl pkey -in lab -pubout` prints the same public file. A robot trusts every `*.pub` in one folder; to trust a key
no longer, remove its file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from memrt.runtime.errors import MemrtError
from memrt.runtime.signing.keys import PrivateKey, PublicKey

KEYS_FOLDER = Path("/etc/memrt/keys")
KEYS_VARIABLE = "MEMRT_KEYS"
PUBLIC_SUFFIX = ".pub"
_MAX_KEY_BYTES = 4096  # a PEM file of an Ed25519 key has 113 to 300
_MAX_KEYS = 256  # that one robot trusts
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"  # RFC 7468, section 11


def generate_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Write a new private key to `path`, readable by its owner only, and its public half to `path` + `.pub`.

    Raises MemrtError when there is something at either place already, or the folder cannot be written.
    """
    secret = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    private = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = secret.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = public_path(path)
    for taken in (path, beside):
        if taken.exists() or taken.is_symlink():
            raise MemrtError(
                f"key {path}",
                expected="a new file: a key that was lost cannot be made again",
                found=f"{taken} is there already",
                fix="choose another name, or remove it yourself",
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, private, 0o600)
        _write_new(beside, public, 0o644)
    except OSError as error:
        raise MemrtError(
            f"key {path}", expected="a folder that can be written", found=error, fix="choose another"
        ) from error
    return PrivateKey(secret, path.name)


def public_path(path: Path) -> Path:
    """Where the public half of the private key at `path` lies."""
    return path.with_name(f"{path.name}{PUBLIC_SUFFIX}")


def is_encrypted(path: Path) -> bool:
    """Whether the private key at `path` asks for a passphrase. Raises MemrtError when it cannot be read."""
    return _read(path, "a private key").lstrip().startswith(_ENCRYPTED)


def load_private_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """The private key at `path`.

    Raises MemrtError for another kind of key, a wrong passphrase, and a file that others can read.
    """
    content = _read(path, "a private key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise MemrtError(
            f"private key {path}",
            expected="a file that only its owner can read",
            found=f"mode {mode:04o}",
            fix=f"chmod 600 {path}; if others may have read it, make a new key",
        )
    encrypted = is_encrypted(path)
    try:
        key = serialization.load_pem_private_key(content, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MemrtError(
            f"private key {path}",
            expected="a PEM file of `memrt keygen`" + (" and its passphrase" if encrypted else ""),
            found="no passphrase" if encrypted and not passphrase else "something that cannot be read as one",
            fix="give the right passphrase" if encrypted else "make a key with `memrt keygen`",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(path, "private", key)
    return PrivateKey(key, path.name)


def load_public_key(path: Path) -> PublicKey:
    """The public key at `path`. Raises MemrtError for anything else, a private key above all."""
    content = _read(path, "a public key")
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        private = b"PRIVATE KEY" in content
        raise MemrtError(
            f"public key {path}",
            expected="the PEM file NAME.pub that `memrt keygen NAME` wrote",
            found="a private key, which belongs on no robot" if private else "something that cannot be read as one",
            fix="remove it, and make a new key" if private else "copy it again",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _other_kind(path, "public", key)
    return PublicKey(key.public_bytes_raw(), path.name.removesuffix(PUBLIC_SUFFIX))


def load_trusted(folder: Path | None = None) -> tuple[PublicKey, ...]:
    """All keys `*.pub` in `folder`, by default in $MEMRT_KEYS or /etc/memrt/keys: who may say what this robot runs.

    The default folder may be missing; then nobody is trusted. Raises MemrtError for a folder that was named and is not
    there, one that cannot be read, a file that is no public key, and a folder or file that everybody may write.
    """
    named = folder or (Path(found) if (found := os.environ.get(KEYS_VARIABLE)) else None)
    folder = (named or KEYS_FOLDER).expanduser()
    try:
        names = os.listdir(folder)
    except OSError as error:
        if named is None and isinstance(error, FileNotFoundError):
            return ()
        raise MemrtError(
            f"trusted keys {folder}",
            expected="a folder with *.pub files, which this user can read",
            found=error.strerror,
            fix="correct the path, or let this user read it",
        ) from error
    paths = [folder / name for name in sorted(names) if name.endswith(PUBLIC_SUFFIX)]
    if len(paths) > _MAX_KEYS:
        raise MemrtError(f"trusted keys {folder}", expected=f"at most {_MAX_KEYS}", found=len(paths), fix="remove some")
    keys = tuple(load_public_key(path) for path in paths)
    for path in (folder, *paths):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & stat.S_IWOTH:
            raise MemrtError(
                f"trusted keys {folder}",
                expected="a folder and files that not everybody can write",
                found=f"{path} with mode {mode:04o}",
                fix=f"chmod o-w {path}, after a look at what is in it",
            )
    return keys


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise MemrtError(
            f"key {path}", expected=what, found=error.strerror, fix="make one with `memrt keygen`"
        ) from error
    if len(content) > _MAX_KEY_BYTES:
        raise MemrtError(
            f"key {path}", expected=f"{what} of at most {_MAX_KEY_BYTES} bytes", found="more", fix="name another file"
        )
    return content


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _other_kind(path: Path, half: str, key: object) -> MemrtError:
    return MemrtError(
        f"{half} key {path}", expected="an Ed25519 key", found=type(key).__name__, fix="make one with `memrt keygen`"
    )
