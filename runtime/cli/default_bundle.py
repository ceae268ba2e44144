"""Which bundle a command runs when none is named: the one committed for the policy, beside the reference weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from memrt.runtime.bundle import load_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError

DEFAULT_POLICY = "am_grounded"


def find_bundle(bundle: Path | None, policy: str | None, precision: str) -> Path:
    """The folder of the bundle to run: `bundle` if given, else the reference bundle of `policy`.

    Raises MemrtError for an unknown policy, for a reference bundle that is not there, and when `bundle` was exported
    from another policy than the one asked for.
    """
    if bundle is not None:
        held = load_bundle(bundle, verify=False).policy.name
        if policy is not None and (wanted := load_policy(policy).name) != held:
            raise MemrtError(
                f"bundle {bundle}",
                expected=f"policy `{wanted}`, as asked for",
                found=f"policy `{held}`",
                fix="leave out --policy, or name another bundle",
            )
        return bundle
    name = load_policy(policy or DEFAULT_POLICY).name
    folder = reference_bundles() / f"{name}-{precision}"
    if not folder.is_dir():
        raise MemrtError(
            f"no {precision} bundle for policy `{name}`",
            expected=f"a bundle in {folder}",
            found="nothing there",
            fix=f"run `memrt export {policy or name} --precision {precision} -o {folder}`, or name one with --bundle",
        )
    return folder


def reference_bundles() -> Path:
    """Where the committed bundles lie; found without importing `memrt.train`, which a robot need not have."""
    spec = importlib.util.find_spec("memrt.train")
    if spec is None or not spec.submodule_search_locations:
        return Path("bundles")
    return Path(next(iter(spec.submodule_search_locations))) / "reference" / "bundles"
