"""A robot never goes back to an older release unasked: an old signature stays valid, its bundle's faults too."""

from __future__ import annotations

from collections.abc import Collection

from memrt.runtime.errors import MemrtError
from memrt.runtime.signing.verify import VerifiedBundle


def require_newer(verified: VerifiedBundle, highest: int, known: Collection[str] = ()) -> None:
    """Raises MemrtError unless the bundle may be installed where `highest` is the newest version of its name so far.

    `known` are the manifests (SHA-256) installed as that version: the same bundle again is fine, another one of the
    same version is not. 0 stands for a name that was never installed. Going back on purpose is a rollback, which does
    not ask this: it takes what was installed, verified and healthy before.
    """
    if verified.version > highest or (verified.version == highest and verified.sha256 in known):
        return
    older = verified.version < highest
    raise MemrtError(
        f"bundle {verified.bundle.path}, {verified.name} version {verified.version}",
        expected=f"a version above {highest}, the highest that was installed here",
        found=f"the older {verified.version}" if older else "another bundle of the same version",
        fix=f"sign it anew with `memrt sign --version {highest + 1}`"
        + (", or go back with `memrt flash HOST --rollback`" if older else ""),
    )
