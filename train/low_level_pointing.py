"""Dense supervision of what the action expert reads: where, in each view, is the thing that the subgoal names?

The released π0.5 brings eyes from its pre-training. The reference policy would have to learn seeing from the flow loss
alone, which tells it late and faintly. So a throw-away head looks for the named thing in the prefix's values at every
visual token: exactly what the expert attends to, and nothing else. It never leaves training.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import mujoco
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.sim.objects import BUTTON_TOP, CUBE_HALF, SceneLayout
from memrt.sim.scene import IMAGE_SIZE, Scene
from memrt.train.low_level_data import LowLevelData
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Prefix

HEIGHTS = {"pick": CUBE_HALF, "place": 0.0, "press": BUTTON_TOP}  # of what a subgoal's first word points at [m]
OFFSET_WEIGHT = 4.0  # beside the cell's cross-entropy
_PIXEL = re.compile(r"<(\d+), (\d+)>")


class Targets(NamedTuple):
    """Where the named thing is: fractions of the image (row, column) fp32 [n, views, 2]; whether it is in sight."""

    where: Tensor
    visible: Tensor


def subgoal_targets(data: LowLevelData) -> Targets:
    """The place a grounded subgoal points at, in every view of every sample.

    The front pixel is followed to the height of the named thing, and that point is seen from the other cameras at the
    sample's joint angles. Only the image's border counts: what stands in front of the point does not hide it.
    """
    scene = Scene(SceneLayout())
    mujoco.mj_forward(scene.model, scene.data)
    used, which = np.unique(data.subgoal["grounded"], return_inverse=True)
    points = np.stack([_pointed_at(scene, data.texts[index]) for index in used])[which]
    places = [_seen(scene, camera, points, data.state) for camera in data.settings.cameras]
    where = np.stack(places, axis=1) / IMAGE_SIZE
    visible = ((where >= 0.0) & (where < 1.0)).all(-1)
    return Targets(torch.from_numpy(where.astype(np.float32)), torch.from_numpy(visible))


def _pointed_at(scene: Scene, subgoal: str) -> NDArray[np.float64]:
    found = _PIXEL.search(subgoal)
    if found is None:
        raise ValueError(f"not a grounded subgoal: {subgoal!r}")
    return scene.camera("front").at_height(int(found[1]), int(found[2]), HEIGHTS[subgoal.split(maxsplit=1)[0]])


def _seen(scene: Scene, camera: str, points: NDArray[np.float64], states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (row, column) of points [n, 3] at postures [n, 8]; NaN behind the camera."""
    pixels = np.empty((len(points), 2))
    for number, (point, state) in enumerate(zip(points, states, strict=True)):
        scene.data.qpos[scene.q_index] = state[:7]
        mujoco.mj_kinematics(scene.model, scene.data)
        mujoco.mj_camlight(scene.model, scene.data)
        pixels[number] = scene.camera(camera).project(point)
    return pixels


class SubgoalPointing(nn.Module):
    """Linear read-outs of the prefix's values at the visual tokens, layer by layer beside each other."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        width = config.prefix.depth * config.prefix.kv_heads * config.prefix.head_dim
        self.side = config.vision.image_size // config.vision.patch_size
        self.norm = nn.LayerNorm(width)
        self.cell = nn.Linear(width, 1)
        self.offset = nn.Linear(width, 2)

    def loss(self, prefix: Prefix, targets: Targets) -> tuple[Tensor, Tensor]:
        """The mean loss over views in sight, and the mean distance between pointed and true place [image sides]."""
        batch, views = targets.visible.shape
        tokens = self.side * self.side
        values = torch.cat([layer.values.transpose(1, 2).flatten(2) for layer in prefix.cache], dim=-1)
        x = self.norm(values[:, : views * tokens]).reshape(batch, views, tokens, -1)[targets.visible]
        place = targets.where[targets.visible] * self.side
        corner = place.floor().clamp(0, self.side - 1)
        true = (corner[:, 0] * self.side + corner[:, 1]).long()
        rows = torch.arange(len(true), device=true.device)
        logits, offsets = self.cell(x)[..., 0], self.offset(x)
        loss = F.cross_entropy(logits, true)
        loss = loss + OFFSET_WEIGHT * F.smooth_l1_loss(offsets[rows, true], place - corner, beta=0.05)
        with torch.no_grad():
            guess = logits.argmax(-1)
            found = torch.stack([guess // self.side, guess % self.side], dim=-1) + offsets[rows, guess]
            error = (found - place).norm(dim=-1).mean() / self.side
        return loss, error
