"""Where a grounded subgoal points at in every view: the geometry against the simulator's own projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memrt.runtime.config import load_policy
from memrt.sim.env import TabletopEnv
from memrt.sim.scene import IMAGE_SIZE
from memrt.train.low_level_pointing import SubgoalPointing, SubgoalTargets, Targets
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05


class OneMoment:
    """As much of a `LowLevelData` as targets are made of."""

    def __init__(self, state: np.ndarray, texts: list[str]) -> None:
        self.settings = load_policy("am_grounded").low_level
        self.state, self.texts = state, texts
        self.subgoal = {"grounded": np.arange(len(texts))}


@pytest.mark.parametrize(
    ("task", "seed"),
    [("PickXtimes", 3), ("PickXtimes", 4), ("BinFill", 5), ("SwingXtimes", 6), ("StopCube", 7), ("ButtonUnmask", 8)],
)
def test_the_wrist_camera_sees_the_thing_where_the_front_pixel_says(task: str, seed: int) -> None:
    with TabletopEnv(task, seed) as env:
        step = env.task.step
        moment = OneMoment(env.proprioception()[None], [env.oracle_subgoal("grounded")])
        targets = SubgoalTargets(moment).at(np.array([0]))  # type: ignore[arg-type]
        cube = env.scene.position(step.to or step.thing)
        seen = [env.scene.pixel(cube, camera) for camera in ("front", "wrist")]
    distance = np.linalg.norm(targets.where[0].numpy() * IMAGE_SIZE - np.array(seen), axis=1)
    assert distance[0] <= 1.0  # the subgoal's whole pixels
    inside = 0 < seen[1][0] < IMAGE_SIZE - 1 and 0 < seen[1][1] < IMAGE_SIZE - 1
    assert bool(targets.visible[0, 1]) == inside
    if inside:
        assert distance[1] < 5.0  # the wrist camera is closer: a front pixel is several of its own


@pytest.mark.parametrize(
    ("subgoal", "in_sight"),
    [
        ("pick up the second highlighted cube <90, 120>, which is red", True),
        ("put it into the bin <90, 120>", True),
        ("move to the top of the left-side target <90, 120> for the first time", True),
        ("press the first button <90, 120>", True),
        ("pick up the container <90, 120> that hides the blue cube", True),
        ("put down the container", False),
        ("remain static for the first visit", False),
    ],
)
def test_a_subgoal_points_at_its_thing_or_at_nothing(subgoal: str, in_sight: bool) -> None:
    moment = OneMoment(np.zeros((1, 8)), [subgoal])
    where, visible = SubgoalTargets(moment).at(np.array([0]))  # type: ignore[arg-type]
    assert bool(visible[0, 0]) == in_sight
    if in_sight:
        assert np.allclose(where[0, 0] * IMAGE_SIZE, [90, 120], atol=1e-3)


def test_the_head_learns_to_point_and_ignores_views_that_do_not_see() -> None:
    torch.manual_seed(0)
    config = tiny()
    model, head = Pi05(config), SubgoalPointing(config)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 32, 32, 3, generator=generator)
    tokens, mask = torch.randint(0, 300, (6, 5), generator=generator), torch.ones(6, 5, dtype=torch.bool)
    prefix = model.prefix(images, tokens, mask)
    where = torch.rand(6, 2, 2, generator=generator)
    visible = torch.tensor([[True, False]]).expand(6, 2)
    spoiled = where.clone()
    spoiled[:, 1] = float("nan")
    loss, _ = head.loss(prefix, Targets(where, visible))
    torch.testing.assert_close(loss, head.loss(prefix, Targets(spoiled, visible))[0])
    optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(150):
        loss, error = head.loss(
            model.prefix(images, tokens, torch.ones(6, 5, dtype=torch.bool)), Targets(where, visible)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(error) < 0.1
