"""Which bundle plays a policy at a precision, and why none does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.bundle import Bundle, load_bundle, require_halves
from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST
from memrt.runtime.ready_engines import ReadyEngines
from memrt.sim.episode_player import EpisodePlayer
from memrt.sim.scripted import SCRIPTED
from memrt.sim.suite.cells import Cell, Mode, Settings

HASH_DIGITS = 12  # of a bundle's hash beside each episode


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy at a precision with what plays it: a bundle's folder, or a script where that is None.

    `lent` is the policy's own configuration when the bundle is another policy's, of which only the low level is used.
    """

    policy: str
    precision: str
    folder: Path | None = None
    bundle_sha256: str | None = None
    lent: PolicyConfig | None = None

    @property
    def bundle_digits(self) -> str | None:
        """The beginning of the bundle's hash."""
        return self.bundle_sha256[:HASH_DIGITS] if self.bundle_sha256 else None

    def settings(self, cell: Cell, cap_steps: int) -> Settings:
        """What decides the outcomes of `cell`."""
        return Settings(
            **msgspec.structs.asdict(cell),
            bundle=self.folder.name if self.folder else None,
            bundle_sha256=self.bundle_sha256,
            borrowed=_own(self.lent) if self.lent else None,
            cap_steps=cap_steps,
        )

    def open(self) -> EpisodePlayer:
        """Open the policy. Raises MemrtError when the bundle is no longer the one that was found."""
        if self.folder is None:
            return EpisodePlayer.of_script(SCRIPTED[self.policy])
        bundle = load_bundle(self.folder)
        if (found := bundle.sha256) != self.bundle_sha256:
            raise MemrtError(
                f"bundle {self.folder}",
                expected=f"the one that the evaluation began with, {self.bundle_sha256}",
                found=found,
                fix="do not replace bundles while they are evaluated; on a cluster, put the same one on every computer",
            )
        engines = ReadyEngines.of(bundle)
        if self.lent is not None:
            bundle = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, policy=self.lent))
        return EpisodePlayer.of_engines(bundle, engines=engines)


def find_candidate(policy: str, precision: str, mode: Mode, bundles: Path) -> Candidate | str:
    """What plays `policy` out of the folder `bundles`, or in a few words why nothing does.

    A policy without a VLM (the oracles, flat) may use the low level of another policy's bundle. Raises MemrtError for
    a policy that neither memrt nor the folder knows.
    """
    if policy in SCRIPTED:
        return Candidate(policy, precision)
    folder = bundles / f"{policy}-{precision}"
    bundle = load_bundle(folder, verify=False) if (folder / MANIFEST).is_file() else None
    config = bundle.policy if bundle else load_policy(policy)
    if mode == "realtime" and config.high_level.source == "oracle":
        return "the oracle knows the simulator's state, which only lock-step can ask"
    if bundle is not None:
        require_halves(bundle)
        return Candidate(policy, precision, folder, bundle.sha256)
    if not config.high_level.asks_vlm and mode == "lockstep" and (lender := _lender(config, precision, bundles)):
        return Candidate(policy, precision, lender.path, lender.sha256, config)
    return f"no bundle: {folder} is not there"


def _lender(config: PolicyConfig, precision: str, bundles: Path) -> Bundle | None:
    """The first bundle with the low level that `config` asks for; prompts may differ, networks may not.

    One without a VLM is asked first: what was played with it stays valid when a VLM is trained again.
    """
    lenders = []
    for folder in sorted(bundles.glob(f"*-{precision}")):
        if not (folder / MANIFEST).is_file():
            continue
        bundle = load_bundle(folder, verify=False)
        theirs = msgspec.structs.replace(bundle.policy.low_level, prompt=config.low_level.prompt)
        if theirs == config.low_level and any(name.startswith("ll/") for name in bundle.manifest.engines):
            lenders.append(bundle)
    return min(lenders, key=lambda bundle: bundle.policy.high_level.asks_vlm, default=None)


def _own(config: PolicyConfig) -> dict[str, Any]:
    """What a policy adds to a lent low level."""
    return {
        "high_level": config.high_level.source,
        "subgoal_style": config.memory.subgoal_style,
        "every_steps": config.high_level.every_steps,
        "prompt": config.low_level.prompt,
    }
