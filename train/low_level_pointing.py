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

from memrt.sim.objects import BIN_HEIGHT, BUTTON_TOP, Container, Cube, SceneLayout
from memrt.sim.scene import IMAGE_SIZE, Scene
from memrt.train.low_level_data import LowLevelData
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Prefix

# Of the point that the simulator's subgoals mean, by the word before the pixel [m].
HEIGHTS = {"cube": Cube.height, "container": Container.height, "target": 0.0, "button": BUTTON_TOP, "bin": BIN_HEIGHT}
OFFSET_WEIGHT = 4.0  # beside the cell's cross-entropy
_POINTED = re.compile(r"(\w+) <(\d+), (\d+)>")


class Targets(NamedTuple):
    """Where the named thing is: fractions of the image (row, column) fp32 [n, views, 2]; whether it is in sight."""

    where: Tensor
    visible: Tensor


class SubgoalTargets:
    """The places that the grounded subgoals of a recording point at, in every view.

    The front pixel is followed to the height of the named thing, and that point is seen from the other cameras at the
    sample's joint angles. Only the image's border counts: what stands in front of the point does not hide it. A subgoal
    that names no pixel (`put down the container`) points at nothing in sight.
    """

    def __init__(self, data: LowLevelData) -> None:
        self._data = data
        self._scene = Scene(SceneLayout())
        mujoco.mj_forward(self._scene.model, self._scene.data)

    def at(self, indices: NDArray[np.int64]) -> Targets:
        """Of some samples."""
        data = self._data
        texts = [data.texts[index] for index in data.subgoal["grounded"][indices]]
        points = np.stack([_pointed_at(self._scene, text) for text in texts])
        states = data.state[indices]
        places = [_seen(self._scene, camera, points, states) for camera in data.settings.cameras]
        where = np.stack(places, axis=1) / IMAGE_SIZE
        visible = ((where >= 0.0) & (where < 1.0)).all(-1)
        return Targets(torch.from_numpy(where.astype(np.float32)), torch.from_numpy(visible))


def _pointed_at(scene: Scene, subgoal: str) -> NDArray[np.float64]:
    found = _POINTED.search(subgoal)
    if found is None:
        return np.full(3, np.nan)
    return scene.camera("front").at_height(int(found[2]), int(found[3]), HEIGHTS[found[1]])


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
