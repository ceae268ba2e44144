"""Action chunks of a bundle for recorded observations, each from its own fixed noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.calib.observations import observation_of, policy_wording, told_text
from memrt.runtime.bundle import Bundle
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.types import Subgoal

NOISE_SEED = 0


def recorded_actions(
    bundle: Bundle, recorded: CalibrationSet, samples: Sequence[LowLevelSample], threads: int = 1
) -> NDArray[np.float64]:
    """Absolute joint targets and gripper openings, float64 [samples, horizon, 8]."""
    policy = LowLevelPolicy(bundle, threads)
    wording = policy_wording(bundle.policy)
    try:
        return np.stack(
            [
                policy.act(
                    observation_of(recorded, sample),
                    Subgoal(told_text(sample, wording), 0, 0),
                    sample.goal,
                    policy.noise(NOISE_SEED, index),
                ).chunk.actions
                for index, sample in enumerate(samples)
            ]
        )
    finally:
        policy.close()
