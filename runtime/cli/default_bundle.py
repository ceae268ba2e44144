"""Which bundle a command runs when none is named: the one committed for the policy, beside the reference weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from memrt.runtime.bundle import load_bundle
from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.errors import MemrtError

DEFAULT_POLICY = "am_grounded"


def find_bundle(bundle: Path | None, policy: str | None, precision: str) -> Path:
    """The folder of the bundle to run: `bundle` if given, else the reference bundle of `policy`.

    Raises MemrtError for an unknown policy, for a reference bundle that is not there, and when `bundle` was exported
    from another policy than the one asked for.
    """
    if bundle is not None:
        if policy is not None:
            _check_policy(bundle, load_policy(policy).name, "leave out --policy, or name another bundle")
        return bundle
    settings = load_policy(policy or DEFAULT_POLICY)
    remote = settings.high_level.remote
    if remote is not None and not remote.holds:
        raise MemrtError(
            f"policy `{settings.name}`, whose VLM is served elsewhere",
            expected="a policy with a bundle of its own",
            found=f"one that runs on the bundle of `{remote.on_board}`",
            fix=f"use it with `memrt run`, or choose `{remote.on_board}`",
        )
    name, folder = settings.name, reference_bundles() / f"{settings.name}-{precision}"
    if folder.is_dir():
        _check_policy(folder, name, "export the policy again: this folder holds another's bundle")
        return folder
    if not (folder.parents[1] / "weights").is_dir():
        raise MemrtError(
            f"no {precision} bundle for policy `{name}`",
            expected=f"a bundle in {folder}, or the reference weights to export it from",
            found=f"an installation from a wheel, which comes with the int8 bundle of `{DEFAULT_POLICY}` alone",
            fix=f"in a copy of the repository run `memrt export {policy or name} --precision {precision} -o BUNDLE`, "
            "then name BUNDLE with --bundle",
        )
    untrained = [part for part in _weights(settings) if not (folder.parents[1] / "weights" / part).is_dir()]
    if untrained:
        raise MemrtError(
            f"policy `{name}` has not been trained yet",
            expected=f"its bundle in {folder}, or to make it: `{untrained[0]}` in {folder.parents[1] / 'weights'}",
            found="neither",
            fix=f"train it (train/README.md), then run `memrt export {policy or name} -o {folder}`; or name a bundle "
            "with --bundle",
        )
    raise MemrtError(
        f"no {precision} bundle for policy `{name}`",
        expected=f"a bundle in {folder}",
        found="nothing there",
        fix=f"run `memrt export {policy or name} --precision {precision} -o {folder}`, or name one with --bundle",
    )


def reference_bundles() -> Path:
    """Where the committed bundles lie; found without importing `memrt.train`, which a robot need not have."""
    spec = importlib.util.find_spec("memrt.train")
    if spec is None or not spec.submodule_search_locations:
        return Path("bundles")
    return Path(next(iter(spec.submodule_search_locations))) / "reference" / "bundles"


def _check_policy(bundle: Path, wanted: str, fix: str) -> None:
    """No policy runs with another's weights: prompts, memory and adapter belong together."""
    held = load_bundle(bundle, verify=False).policy.name
    if held != wanted:
        raise MemrtError(
            f"bundle {bundle}", expected=f"policy `{wanted}`, as asked for", found=f"policy `{held}`", fix=fix
        )


def _weights(policy: PolicyConfig) -> list[str]:
    """The bare names of the weights that a policy needs; those given as paths are its owner's affair."""
    named = (policy.high_level.weights, policy.high_level.adapter, policy.low_level.weights)
    return [name for name in named if name and "/" not in name and not name.startswith("~")]
