"""How good a low-level policy's samples are on held-out moments, in units a roboticist can judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.runtime.policy.preprocess import NormStats
from memrt.runtime.types import ARM_JOINTS
from memrt.train.low_level_data import STYLES, Batches
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.sampling import sample_actions

HALF_OPEN = 0.5


@torch.no_grad()
def held_out_metrics(
    model: Pi05,
    batches: Batches,
    stats: NormStats,
    indices: NDArray[np.int64],
    *,
    executed: int,
    device: torch.device,
    chunk: int = 64,
) -> dict[str, dict[str, float]]:
    """Compare sampled chunks with the recorded ones at `indices`, over the first `executed` actions.

    Per subgoal style: `relative_l2` of normalised actions, `joint_error_rad` and `motion_rad` (mean absolute error and
    mean absolute commanded motion), `gripper` (share of identical open/close commands). One fixed noise per moment.
    """
    config = model.config
    report = {}
    for style in STYLES:
        noise = torch.randn(len(indices), config.horizon, config.action_dim, generator=torch.Generator().manual_seed(0))
        sampled, recorded = [], []
        for start in range(0, len(indices), chunk):
            batch = batches.recorded(indices[start : start + chunk], style).to(device)
            prefix = model.prefix(batch.images, batch.tokens, batch.mask)
            sampled.append(sample_actions(model, prefix, noise[start : start + chunk].to(device)).cpu().numpy())
            recorded.append(batch.actions.cpu().numpy())
        report[style] = _compare(np.concatenate(sampled), np.concatenate(recorded), stats, executed)
    return report


def _compare(
    sampled: NDArray[np.float32], recorded: NDArray[np.float32], stats: NormStats, executed: int
) -> dict[str, float]:
    ours, theirs = sampled[:, :executed], recorded[:, :executed]
    relative = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    ours, theirs = stats.actions.unnormalise(ours), stats.actions.unnormalise(theirs)
    same = (ours[..., ARM_JOINTS] > HALF_OPEN) == (theirs[..., ARM_JOINTS] > HALF_OPEN)
    return {
        "relative_l2": float(relative),
        "joint_error_rad": float(np.abs(ours - theirs)[..., :ARM_JOINTS].mean()),
        "motion_rad": float(np.abs(theirs)[..., :ARM_JOINTS].mean()),
        "gripper": float(same.mean()),
    }


def rounded(report: Any) -> Any:
    """Nested metrics with five decimals, for the log."""
    if isinstance(report, dict):
        return {key: rounded(value) for key, value in report.items()}
    if isinstance(report, Sequence) and not isinstance(report, str):
        return [rounded(value) for value in report]
    return round(report, 5) if isinstance(report, float) else report
