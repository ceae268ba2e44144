"""How tasks move containers: nothing touches anything, nothing passes through the hand, and the cube comes along."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.sim.objects import CONTAINER_HALF, Container, Cube, Placement, SceneLayout
from memrt.sim.scene import Scene
from memrt.sim.tasks.containers import (
    APART,
    CONTAINERS_X,
    CONTAINERS_Y,
    LANE,
    LOWERING_STEPS,
    SWAP_STEPS,
    Lowering,
    Swap,
    Swapping,
    draw_swaps,
    passing,
    smooth,
)

LEFT, RIGHT = Placement(0.55, 0.10, 0.1), Placement(0.55, -0.10, -0.1)
POINTS = st.tuples(st.floats(0.45, 0.67), st.floats(-0.24, 0.24)).map(np.array)


@pytest.fixture
def scene():
    """Two containers, a red cube under the first; the hand, far away, is where `scene.hand` says."""
    scene = Scene(
        SceneLayout(
            (
                Cube("red_cube", "red", Placement(0.553, 0.098)),
                Container("container_1", LEFT),
                Container("container_2", RIGHT),
            )
        )
    )
    scene.hand = np.array([0.35, 0.0, 0.2])
    scene.tcp_position = scene.hand.copy
    mujoco.mj_forward(scene.model, scene.data)
    return scene


def lowering(scene: Scene) -> Lowering:
    lowering = Lowering({"container_1": LEFT, "container_2": RIGHT})
    lowering.begin(scene)
    return lowering


def test_containers_come_down_from_above_the_picture_onto_their_places(scene):
    camera, down = scene.camera("front"), lowering(scene)
    assert all(camera.project(scene.position(name) - [0, 0, 0.03])[0] < 0 for name in ("container_1", "container_2"))
    heights = []
    for _ in range(LOWERING_STEPS):
        assert not down.done
        down.advance(scene)
        heights.append(scene.position("container_1")[2])
    assert down.done
    assert heights == sorted(heights, reverse=True)
    height = scene.layout["container_1"].height
    assert np.allclose(scene.position("container_1"), [LEFT.x, LEFT.y, height])
    assert np.allclose(scene.position("container_2"), [RIGHT.x, RIGHT.y, height])


def test_a_container_waits_while_the_hand_is_below_it(scene):
    down = lowering(scene)
    scene.hand[:] = [0.55, 0.12, 0.2]
    for _ in range(LOWERING_STEPS):
        down.advance(scene)
    assert scene.position("container_1")[2] > 0.5
    assert scene.position("container_2")[2] < 0.05
    assert not down.done
    scene.hand[:] = [0.35, 0.0, 0.1]
    for _ in range(LOWERING_STEPS):
        down.advance(scene)
    assert down.done


@settings(max_examples=200)
@given(a=POINTS, b=POINTS, share=st.floats(0, 1), side=st.sampled_from([-1, 1]))
def test_the_two_that_swap_keep_their_distance(a, b, share, side):
    if np.hypot(*(a - b)) < APART:
        return
    one, other = passing(a, b, share, side), passing(b, a, share, side)
    assert np.hypot(*(one - other)) >= min(np.hypot(*(a - b)), 2 * LANE) - 1e-9
    assert np.allclose(passing(a, b, 0.0, side), a)
    assert np.allclose(passing(a, b, 1.0, side), b)


def test_a_swap_takes_the_cube_along_and_exchanges_the_places(scene):
    offset = scene.position("red_cube") - scene.position("container_1")
    swapping = Swapping([Swap("container_1", "container_2", 1)], {"container_1": "red_cube"})
    for _ in range(SWAP_STEPS):
        assert not swapping.done
        swapping.advance(scene)
        assert np.allclose(scene.position("red_cube") - scene.position("container_1"), offset, atol=1e-9)
    assert swapping.done
    assert np.allclose(scene.position("container_1")[:2], [RIGHT.x, RIGHT.y])
    assert np.allclose(scene.position("container_2")[:2], [LEFT.x, LEFT.y])
    before = scene.data.qpos.copy()
    swapping.advance(scene)
    assert np.array_equal(scene.data.qpos, before)


def test_a_swap_stands_still_while_the_hand_is_down_among_the_containers(scene):
    swapping = Swapping([Swap("container_1", "container_2", -1)], {})
    for _ in range(SWAP_STEPS // 2):
        swapping.advance(scene)
    before = scene.data.qpos.copy()
    scene.hand[:] = [0.55, 0.0, 0.05]
    swapping.advance(scene)
    assert np.array_equal(scene.data.qpos, before)
    scene.hand[:] = [0.34, 0.0, 0.03]  # on a button
    swapping.advance(scene)
    assert not np.array_equal(scene.data.qpos, before)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 3))
def test_drawn_swaps_touch_nothing_and_move_the_first_container(seed, count):
    rng = np.random.Generator(np.random.PCG64(seed))
    corners = np.array([(0.50, -0.15), (0.50, 0.15), (0.62, -0.12), (0.62, 0.10)])
    places = [Placement(float(x), float(y)) for x, y in corners + rng.normal(0, 0.005, (4, 2))]
    swaps = draw_swaps(rng, places, count)
    if swaps is None:
        return
    where = [np.array([at.x, at.y]) for at in places]
    assert len(swaps) == count
    assert all(one[:2] != other[:2] for one, other in pairwise(swaps))
    for i, j, side in swaps:
        for step in range(SWAP_STEPS + 1):
            share = smooth(step / SWAP_STEPS)
            now = list(where)
            now[i], now[j] = passing(where[i], where[j], share, side), passing(where[j], where[i], share, side)
            for k, point in enumerate(now):
                assert CONTAINERS_X[0] <= point[0] <= CONTAINERS_X[1]
                assert CONTAINERS_Y[0] <= point[1] <= CONTAINERS_Y[1]
                assert all(np.hypot(*(point - other)) > 2 * np.sqrt(2) * CONTAINER_HALF for other in now[:k])
        where[i], where[j] = where[j], where[i]
    assert np.hypot(where[0][0] - places[0].x, where[0][1] - places[0].y) > APART
