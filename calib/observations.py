"""A recorded low-level sample as the observation that the runtime would have had."""

from __future__ import annotations

import numpy as np

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.runtime.types import Frame, Observation


def observation_of(recorded: CalibrationSet, sample: LowLevelSample) -> Observation:
    """Proprioception and every camera's frame; all times are 0."""
    frames = {camera: Frame(camera, 0, 0, recorded.images[file]) for camera, file in sample.images.items()}
    return Observation(0, np.array(sample.proprioception, np.float64), frames)


def subgoal_text(sample: LowLevelSample, style: str) -> str:
    """The subgoal in the policy's phrasing, "simple" or "grounded"."""
    return sample.subgoal_grounded if style == "grounded" else sample.subgoal_simple
