"""What an installed bundle is called: its name, its version, and the beginning of its manifest's SHA-256."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memrt.runtime.errors import MemrtError

_DIGITS = 12  # of the SHA-256, in a folder's name; the ledger holds all 64
_FOLDER = re.compile(r"[a-z0-9][a-z0-9_.-]*-[0-9]+-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class BundleId:
    """One build of a policy. `digest` is the hex SHA-256 of the manifest, which vouches for every file."""

    name: str
    version: int
    digest: str

    @property
    def folder(self) -> str:
        """Its folder's name: `am_grounded-3-0123456789ab`."""
        return f"{self.name}-{self.version}-{self.digest[:_DIGITS]}"


def check_folder(name: str) -> str:
    """`name`, when it is one that `BundleId.folder` makes; raises MemrtError otherwise."""
    if not _FOLDER.fullmatch(name):
        raise MemrtError(
            "installed bundle",
            expected="a name such as `am_grounded-3-0123456789ab`",
            found=repr(name),
            fix="choose one that `memrt flash HOST --list` names",
        )
    return name
