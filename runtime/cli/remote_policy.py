"""A bundle whose VLM is asked elsewhere: where is said by the policy's YAML, or by --remote.

An address belongs to a place and not to a policy, so it is laid over a bundle when a run begins; the bundle stays as it
was exported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.remote_config import RemoteConfig
from memrt.runtime.strict_config import convert


def find_remote_bundle(bundle: Path | None, policy: str | None, precision: str, remote: str | None) -> Bundle:
    """The bundle to run, as `find_bundle` finds it, with its VLM asked at `remote` or where the YAML of `policy` says.

    Raises MemrtError when they do not belong together.
    """
    asked_for = None if policy is None else load_policy(policy)
    settings = None if asked_for is None else asked_for.high_level.remote
    if asked_for is None or settings is None or (settings.holds and bundle is None):
        found = load_bundle(find_bundle(bundle, policy, precision))
    else:
        found = _laid_over(load_bundle(_engines(bundle, settings, precision)), asked_for)
    return found if remote is None else _asked_at(found, remote)


def _engines(bundle: Path | None, settings: RemoteConfig, precision: str) -> Path:
    return bundle if bundle is not None else find_bundle(None, settings.on_board, precision)


def _laid_over(bundle: Bundle, policy: PolicyConfig) -> Bundle:
    """`bundle` with the settings of `policy`, which must ask the same questions and act as it does."""
    ours, theirs = policy.high_level, bundle.policy.high_level
    for part, wanted, found in (
        ("memory", policy.memory, bundle.policy.memory),
        ("low_level", policy.low_level, bundle.policy.low_level),
        ("high_level.image_size", ours.frame_size, theirs.frame_size),
    ):
        if wanted != found:
            raise MemrtError(
                f"bundle {bundle.path} for policy `{policy.name}`",
                expected=f"the same `{part}`: who answers in another's place is asked the same",
                found=f"another one, of policy `{bundle.policy.name}`",
                fix="write `based_on:` the policy of the bundle, or name another bundle",
            )
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, policy=policy))


def _asked_at(bundle: Bundle, url: str) -> Bundle:
    policy = bundle.policy
    if not policy.high_level.asks_vlm:
        raise MemrtError(
            f"--remote with policy `{policy.name}`",
            expected="a policy that asks a VLM",
            found=f"`high_level.source: {policy.high_level.source}`",
            fix="leave --remote out, or choose another policy",
        )
    values: dict[str, Any] = {"on_board": policy.name}
    if policy.high_level.remote is not None:
        values = msgspec.to_builtins(policy.high_level.remote)
    remote: RemoteConfig = convert(values | {"endpoint": url}, RemoteConfig, "--remote")
    high_level = msgspec.structs.replace(policy.high_level, source="remote", weights="", adapter=None, remote=remote)
    asked = msgspec.structs.replace(policy, high_level=high_level)
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, policy=asked))
