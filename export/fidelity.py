"""How much of a policy's behaviour a quantised bundle keeps, on recorded moments it was not calibrated with.

Both bundles get the same inputs, the recorded memory included, so one different answer does not derail the ones after
it. High level: greedy answers, compared as text. Low level: action chunks from the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, load_calibration_set, reference_set
from memrt.calib.chats import Chat, chats
from memrt.export.recorded_actions import recorded_actions
from memrt.export.recorded_chunks import CLOSED
from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.parser import parse_reply
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import ARM_JOINTS


def compare_bundles(
    bundle: str | Path, against: str | Path, *, calibration: str | Path | None = None, threads: int = 1
) -> dict[str, Any]:
    """Compare `bundle` with `against` (the one that counts as right) on the set's gate samples.

    Returns {"policy", "bundle", "against", "high_level": {...} | None, "low_level": {...}}; joint figures in rad.
    Raises `MemrtError` when the bundles are not of one policy.
    """
    candidate, reference = load_bundle(bundle), load_bundle(against)
    if candidate.policy != reference.policy:
        raise MemrtError(
            "cannot compare these bundles",
            expected=f"two bundles of one policy, {reference.policy.name}",
            found=f"{candidate.policy.name}, with other settings",
            fix="export both from the same policy YAML",
        )
    recorded = load_calibration_set(calibration or reference_set())
    has_vlm = candidate.policy.high_level.source == "vlm"
    return {
        "policy": candidate.policy.name,
        "bundle": {"path": str(candidate.path), "precision": candidate.manifest.precision},
        "against": {"path": str(reference.path), "precision": reference.manifest.precision},
        "high_level": _high_level(candidate, reference, recorded, threads) if has_vlm else None,
        "low_level": _low_level(candidate, reference, recorded, threads),
    }


def compare_answers(reference: Sequence[str], candidate: Sequence[str]) -> dict[str, Any]:
    """Shares (0..1) of answers that are the same text, name the same subgoal, and write the same memory."""
    pairs = [(parse_reply(a), parse_reply(b)) for a, b in zip(reference, candidate, strict=True)]
    return {
        "answers": len(pairs),
        "identical": _share([a == b for a, b in zip(reference, candidate, strict=True)]),
        "identical_subgoal": _share([a.subgoal == b.subgoal for a, b in pairs]),
        "identical_memory": _share(
            [(a.action_memory, a.spatial_memory) == (b.action_memory, b.spatial_memory) for a, b in pairs]
        ),
    }


def compare_actions(
    reference: NDArray[np.float64], candidate: NDArray[np.float64], measured: NDArray[np.float64]
) -> dict[str, Any]:
    """Compare chunks [samples, horizon, 8] computed at proprioception `measured` [samples, 8].

    The relative L2 error is that of the commanded *motion* (joint targets minus measured joints): beside the joint
    angles themselves, a radian or two each, any error would look small.
    """
    motion = (reference - measured[:, None])[..., :ARM_JOINTS]
    error = (candidate - reference)[..., :ARM_JOINTS]
    norm = np.linalg.norm(motion.reshape(len(motion), -1), axis=1)
    relative = np.linalg.norm(error.reshape(len(error), -1), axis=1) / np.maximum(norm, 1e-9)
    grip = (reference[..., ARM_JOINTS] < CLOSED) == (candidate[..., ARM_JOINTS] < CLOSED)
    return {
        "chunks": len(reference),
        "relative_l2_mean": float(relative.mean()),
        "relative_l2_worst": float(relative.max()),
        "joint_error_rms_rad": float(np.sqrt(np.square(error).mean())),
        "joint_error_worst_rad": float(np.abs(error).max()),
        "identical_gripper": float(grip.mean()),
    }


def _high_level(candidate: Bundle, reference: Bundle, recorded: CalibrationSet, threads: int) -> dict[str, Any]:
    samples = chats(recorded, candidate.policy, "gate")
    budget = candidate.policy.high_level.max_new_tokens
    return compare_answers(_answers(reference, samples, budget, threads), _answers(candidate, samples, budget, threads))


def _answers(bundle: Bundle, samples: Sequence[Chat], budget: int, threads: int) -> list[str]:
    session = VlmSession.open(bundle, threads)
    try:
        return [session.generate(chat.system, chat.user, chat.images, budget).text for chat in samples]
    finally:
        session.close()


def _low_level(candidate: Bundle, reference: Bundle, recorded: CalibrationSet, threads: int) -> dict[str, Any]:
    samples = recorded.low_level("gate")
    measured = np.array([sample.proprioception for sample in samples])
    return compare_actions(
        recorded_actions(reference, recorded, samples, threads),
        recorded_actions(candidate, recorded, samples, threads),
        measured,
    )


def _share(equal: Sequence[bool]) -> float:
    return float(np.mean(equal)) if equal else 1.0
