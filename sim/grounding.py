"""Random still scenes with their descriptions: what a small VLM learns pointing from, before it learns the task.

A released VLM brings pointing along from its own pre-training; the reference policy has to acquire it here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3
from memrt.sim.frames import SUFFIX, write_frames
from memrt.sim.kinematics import Kinematics
from memrt.sim.objects import CUBE_HALF, Container, Cube, Marker
from memrt.sim.render import SceneRenderer
from memrt.sim.scene import Scene
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import Task
from memrt.sim.tasks.layout import WORKSPACE_X, WORKSPACE_Y

POSES_PER_SCENE = 4  # compiling a scene costs more than rendering it
HOLDING_SHARE = 0.3
NEAR_OBJECT_SHARE = 0.5
STANDING_SHARE = 0.7  # of the pictures with containers that show them over their cubes, not yet above the picture
SQUEEZE = 0.001  # so that both pads touch a held cube [m]


def record_grounding(
    folder: Path,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda count: None,
    tasks: Sequence[str] = ("PickXtimes",),
) -> None:
    """Write `front.frames` (256 x 256) and `scenes.jsonl`; the arm hovers over objects or holds a cube.

    The scenes are those with which episodes of `tasks` begin, task by task in turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_frames(folder / f"front{SUFFIX}", _scenes(folder / "scenes.jsonl", count, seed, progress, tasks))
    (folder / "DONE").write_text(f"{count}\n")


def _scenes(
    descriptions: Path, count: int, seed: int, progress: Callable[[int], None], tasks: Sequence[str]
) -> Iterator[NDArray[np.uint8]]:
    """The pictures, one by one; each one's description is written as it is drawn."""
    with descriptions.open("w") as lines:
        for first in range(0, count, POSES_PER_SCENE):
            rng = np.random.Generator(np.random.PCG64([seed, first]))
            task = make_task(tasks[first // POSES_PER_SCENE % len(tasks)], int(rng.integers(2**31)))
            scene = Scene(task.layout)
            with SceneRenderer(scene) as renderer:
                for _ in range(first, min(first + POSES_PER_SCENE, count)):
                    _pose_arm(scene, task, rng)
                    lines.write(json.dumps({"scene": task.describe(scene)}) + "\n")
                    yield renderer.render("front")
            progress(min(first + POSES_PER_SCENE, count))


def _pose_arm(scene: Scene, task: Task, rng: np.random.Generator) -> None:
    """Put the hand somewhere plausible: over an object, anywhere above the table, or holding a cube."""
    if rng.random() < NEAR_OBJECT_SHARE:
        movable = [thing.at for thing in scene.layout.objects if isinstance(thing, Cube | Container)]
        fixed = [thing.at for thing in scene.layout.objects if not isinstance(thing, Cube | Container | Marker)]
        over = [*fixed, *movable]
        at = over[int(rng.integers(len(over)))]
        xy = np.array([at.x, at.y]) + rng.normal(0, 0.01, 2)
    else:
        xy = np.array([rng.uniform(*WORKSPACE_X), rng.uniform(*WORKSPACE_Y)])
    height = float(rng.uniform(0.06, 0.22))
    opening = float(rng.choice([1.0, 0.0, rng.uniform()], p=[0.6, 0.2, 0.2]))
    q = Kinematics(scene).solve(np.array(fr3.HOME_Q), np.array([*xy, height]), iterations=40)
    data = scene.data
    mujoco.mj_resetData(scene.model, data)
    task.begin(scene)
    boxes = list(scene.layout.of(Container))
    if boxes and rng.random() < STANDING_SHARE:
        for box in boxes:
            scene.put(box.name, (box.at.x, box.at.y, box.height), box.at.yaw)
    data.qpos[scene.q_index] = q
    free = [cube.name for cube in scene.layout.of(Cube) if not cube.on_rails]
    if rng.random() < HOLDING_SHARE and free:
        opening = (CUBE_HALF * 2 - SQUEEZE) / fr3.HAND_OPEN_WIDTH
        cube = data.joint(task.step.thing if task.step.thing in free else free[0]).qpos
        cube[:3] = [*xy, max(height - 0.003, CUBE_HALF)]
        cube[3:] = [1, 0, 0, 0]
    data.qpos[scene.finger_index] = opening * fr3.HAND_OPEN_WIDTH / 2
    mujoco.mj_forward(scene.model, data)
