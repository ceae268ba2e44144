"""A recorded low-level sample as the observation that the runtime would have had."""

from __future__ import annotations

from typing import Literal

import numpy as np

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.runtime.config import PolicyConfig
from memrt.runtime.types import Frame, Observation

Wording = Literal["simple", "grounded", "goal"]
WORDINGS: tuple[Wording, ...] = ("simple", "grounded", "goal")


def observation_of(recorded: CalibrationSet, sample: LowLevelSample) -> Observation:
    """Proprioception and every camera's frame; all times are 0."""
    frames = {camera: Frame(camera, 0, 0, recorded.images[file]) for camera, file in sample.images.items()}
    return Observation(0, np.array(sample.proprioception, np.float64), frames)


def policy_wording(policy: PolicyConfig) -> Wording:
    """How the policy words what its action expert is told: its style of subgoals, or the goal where it has none."""
    return "goal" if policy.high_level.source == "none" else policy.memory.subgoal_style


def told_text(sample: LowLevelSample, wording: Wording) -> str:
    """What the action expert is told in this wording."""
    return {"simple": sample.subgoal_simple, "grounded": sample.subgoal_grounded, "goal": sample.goal}[wording]
