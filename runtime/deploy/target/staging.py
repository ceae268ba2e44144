"""Takes in a bundle that arrives in pieces, keeps what arrived over a cut connection, and lets in only what is whole.

A transfer's folder is named by its manifest's SHA-256, so its files can only be continued by the same bundle. How long
a file is says where to go on; whether its bytes are right is decided once, at the end, from the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from memrt.runtime.deploy.identity import BundleId
from memrt.runtime.deploy.messages import Offer
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.prune import remove_folder
from memrt.runtime.durable_file import sync_file, sync_folder
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest
from memrt.runtime.signing import PublicKey, VerifiedBundle, verify_bundle
from memrt.runtime.signing.verify import find_signer, require_signer


class Staging:
    """One bundle on its way. Raises MemrtError for an offer that must not come here."""

    def __init__(self, layout: Layout, offer: Offer, trusted: Sequence[PublicKey]) -> None:
        self._layout, self._offer, self._trusted = layout, offer, trusted
        digest = hashlib.sha256(offer.manifest).hexdigest()
        self.folder = layout.staging / digest
        with room():
            self.folder.mkdir(exist_ok=True)
            (self.folder / MANIFEST).write_bytes(offer.manifest)
            if offer.signature is not None:
                (self.folder / SIGNATURE).write_bytes(offer.signature)
        try:
            signer = find_signer(self.folder, digest, trusted)
            if not offer.allow_unsigned:
                require_signer(self.folder, signer)
            self.manifest: Manifest = parse_manifest(offer.manifest, Path(MANIFEST))  # vouched for: may be parsed
            _check_sizes(self.manifest, offer.sizes)
        except MemrtError:
            self.discard()
            raise
        self.id = BundleId(self.manifest.name, self.manifest.version, digest)
        self.final = layout.bundle(self.id.folder)

    @property
    def size(self) -> int:
        """Bytes of the whole bundle."""
        return sum(self._offer.sizes.values())

    @property
    def installed(self) -> bool:
        """Whether this very bundle lies in its final place already. It is verified again all the same."""
        return self.final.is_dir()

    def sizes(self) -> dict[str, int]:
        """Bytes of every file that are here. A file that is longer than it should be begins anew."""
        if self.installed:
            return dict(self._offer.sizes)
        found = {}
        for relative, size in self._offer.sizes.items():
            path = self.folder / relative
            here = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
            found[relative] = here if here <= size else 0
        return found

    def receive(self, relative: str, offset: int, pieces: Iterator[bytes]) -> None:
        """Write one file from `offset` to its end. Raises MemrtError when the disk is full: then nothing stays."""
        if relative not in self._offer.sizes or not 0 <= offset <= self.sizes()[relative]:
            raise MemrtError("transfer", expected="a file of the manifest", found=repr(relative), fix="flash again")
        path, left = self.folder / relative, self._offer.sizes[relative] - offset
        try:
            with room():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
                    file.truncate(offset)
                    file.seek(offset)
                    while left > 0:
                        piece = next(pieces)
                        if len(piece) > left or not piece:
                            raise MemrtError(
                                f"transfer of `{relative}`",
                                expected=f"{left} more bytes",
                                found=f"a piece of {len(piece)}",
                                fix="flash again: the file changes while it is read",
                            )
                        _write(file.fileno(), piece)
                        left -= len(piece)
        except DiskFullError:
            self.discard()
            raise

    def install(self) -> VerifiedBundle:
        """Verify everything from the disk, bring it there, and give the folder its final name.

        Raises MemrtError for a wrong byte, a missing or extra file or a wrong signature; then it is thrown away, unless
        it is the bundle that runs.
        """
        place = self.final if self.installed else self.folder
        try:
            verified = verify_bundle(place, self._trusted, allow_unsigned=self._offer.allow_unsigned)
        except MemrtError:
            if place.resolve() != self._layout.current.resolve():
                remove_folder(self._layout, place)
            raise
        if place == self.folder:
            with room():
                _sync_tree(self.folder)
                self.folder.rename(self.final)
                sync_folder(self._layout.bundles)
                sync_folder(self._layout.staging)
        return verified

    def discard(self) -> None:
        """Throw away what has arrived."""
        shutil.rmtree(self.folder, ignore_errors=True)


class DiskFullError(MemrtError):
    """There is no room for the bundle."""


@contextmanager
def room() -> Iterator[None]:
    """Turn a full disk, and any other failure of it, into a MemrtError."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        kind = DiskFullError if full else MemrtError
        raise kind(
            "the disk of the robot's computer",
            expected="to take the bundle",
            found="it is full" if full else error,
            fix="remove recordings, or what else fills it" if full else "look at `dmesg` there",
        ) from error


def _check_sizes(manifest: Manifest, sizes: dict[str, int]) -> None:
    wrong = sorted(manifest.files.keys() ^ sizes.keys()) or [
        relative
        for relative, record in manifest.files.items()
        if sizes[relative] < 0 or record.size not in (None, sizes[relative])
    ]
    if wrong:
        raise MemrtError(
            f"offer of bundle `{manifest.name}`",
            expected="the files of its manifest, with their sizes",
            found=f"`{wrong[0]}` missing, added or of another size",
            fix="copy the bundle again, or export the policy again",
        )


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)  # the service runs as another user
        for name in files:
            path = Path(folder) / name
            path.chmod(0o644)
            sync_file(path)
        sync_folder(Path(folder))
