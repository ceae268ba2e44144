"""Recorded moments as the action expert reads them, and whole chunks of any implementation over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.calib.observations import Wording, observation_of, told_text
from memrt.runtime.policy.low_level import LowLevelInterface
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.runtime.policy.low_level_session import Denoised
from memrt.runtime.policy.noise import chunk_noise
from memrt.runtime.types import ARM_JOINTS, Observation

Denoise = Callable[[Sequence[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.float32]], Denoised]

CLOSED = 0.5  # gripper opening below which a command closes the hand
NOISE_SEED = 1  # the recorded chunks of gates; bundles are compared with another seed


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One recorded call: views uint8 [S, S, 3], prompt ids int64 [T], noise float32 [horizon, action_dim]."""

    observation: Observation
    images: list[NDArray[np.uint8]]
    tokens: NDArray[np.int64]
    noise: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Whole calls, one entry per sample: the arm's normalised actions {"arm": float32 [horizon, 7]}, and where the
    gripper is commanded to close, bool [horizon].
    """

    arm: list[dict[str, NDArray[np.float32]]]
    closed: list[NDArray[np.bool_]]


def moments(
    recorded: CalibrationSet,
    samples: Sequence[LowLevelSample],
    interface: LowLevelInterface,
    model: LowLevelModel,
    wordings: Sequence[Wording],
) -> Iterator[Moment]:
    """The samples through the policy's own interface, `wordings` taking turns; the n-th has the n-th noise."""
    for index, sample in enumerate(samples):
        observation = observation_of(recorded, sample)
        tokens = interface.prompt(observation, told_text(sample, wordings[index % len(wordings)]), sample.goal)
        noise = chunk_noise(NOISE_SEED, index, model.horizon, model.action_dim)
        yield Moment(observation, interface.images(observation), tokens, noise)


def chunks(denoise: Denoise, recorded: Iterable[Moment], interface: LowLevelInterface) -> Chunks:
    """What `denoise` makes of the moments."""
    found = Chunks([], [])
    for moment in recorded:
        actions = denoise(moment.images, moment.tokens, moment.noise).actions
        found.arm.append({"arm": actions[:, :ARM_JOINTS].copy()})
        opening = interface.chunk(actions, moment.observation, 0).actions[:, ARM_JOINTS]
        found.closed.append(opening < CLOSED)
    return found
