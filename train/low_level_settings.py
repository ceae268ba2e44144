"""How a low level is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from memrt.train.low_level_data import Augmentation


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train. The learning rate follows the clock, so that any time budget ends with a cooled-down network."""

    minutes: float = 120.0  # of training, over all resumed runs; on a CPU those that this process was given
    batch: int = 32
    draws: int = 4  # (flow time, noise) pairs per sample; they share the prefix, which is most of the work
    # Share of batches without any view, and their size. Grounded coordinates and the state determine most of a motion;
    # without images the prefix is a quarter as long, so that this part is learnt several times as fast.
    without_views: float = 0.3
    batch_without_views: int = 96
    # Share of batches whose chunks begin with actions that are decided already (SPECS 3), 0 to `decided_actions` of
    # them: the same weights then run with and without real-time chunking.
    continued: float = 0.25
    decided_actions: int = 8
    learning_rate: float = 1e-3
    warm_up: float = 0.02  # share of the time
    weight_decay: float = 0.01
    clip: float = 1.0
    averaging: float = 0.998  # decay of the averaged weights per step
    executed_weight: float = 3.0  # of the actions that will be executed, relative to those that are replaced before
    # The gripper jumps between -1 and 1 while a joint's early deltas span a tenth of that: unweighted, it is most of
    # the loss, and the arm stays a centimetre off.
    gripper_weight: float = 0.15
    pointing_weight: float = 0.03  # of the pointing loss, which begins at about 5 where the flow loss is below 0.1
    seed: int = 0
    threads: int = 1
    checkpoint_s: float = 180.0
    metrics_s: float = 240.0  # of training, between measurements; what was recorded meanwhile is read then
    log_steps: int = 50
    held_out: int = 32  # moments of each task in the metric
    augmentation: Augmentation = field(default_factory=Augmentation)


def learning_rate(progress: float, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to one percent; `progress` is the share of the time used."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(0.01, progress / settings.warm_up)
    rest = min(1.0, (progress - settings.warm_up) / (1.0 - settings.warm_up))
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * rest)))
