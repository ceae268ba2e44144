"""Vision features of recorded frames, computed once: the vision tower stays frozen while adapters train."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.sim.frames import Frames
from memrt.train.high_level_forward import TrainingForward, VisionFeatures
from memrt.train.high_level_model import VISUAL_TOKENS

_BATCH = 32


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """fp16 [frames, 1 + deepstack layers, 64, width] on disk: merged tokens first, then the deepstack features."""

    features: NDArray[np.float16]

    def select(self, indices: NDArray[np.int64]) -> VisionFeatures:
        """fp32 features of some frames."""
        rows = torch.from_numpy(np.stack([self.features[i] for i in indices])).float()
        tokens, *deepstack = rows.unbind(1)
        return VisionFeatures(tokens, tuple(deepstack))


def compute_features(forward: TrainingForward, images: Frames | NDArray[np.uint8], path: Path) -> FeatureCache:
    """Features of `images` uint8 [n, 256, 256, 3] at `path`; reused if the same tower made them of as many frames."""
    digest = hashlib.sha256(str(len(images)).encode())
    for parameter in forward.model.model.visual.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    identity = digest.hexdigest()
    done = path.with_suffix(".txt")
    if not (done.exists() and done.read_text() == identity):
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = forward.model.config.vision_config
        shape = (len(images), 1 + len(settings.deepstack_visual_indexes), VISUAL_TOKENS, settings.out_hidden_size)
        written = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        with torch.no_grad():
            for first in range(0, len(images), _BATCH):
                vision = forward.vision(torch.from_numpy(np.ascontiguousarray(images[first : first + _BATCH])))
                stacked = torch.stack([vision.tokens, *vision.deepstack], dim=1)
                written[first : first + _BATCH] = stacked.half().cpu().numpy()
        written.flush()
        done.write_text(identity)
    features: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return FeatureCache(features)
