"""StopCube's rules: where the cube is at which time, and which presses count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.sim.objects import TARGET_RADIUS
from memrt.sim.record import HIGH_LEVEL_EVERY
from memrt.sim.tasks import make_task
from memrt.sim.tasks.stop_cube import PERIODS, REACH, START_AFTER


@pytest.fixture
def stop(puppet):
    return next(p for seed in range(40) if (p := puppet("StopCube", seed=seed)).task.repetitions == 3)


def until(puppet, visit: float) -> None:
    """Wait until the cube has made `visit` passes less the half one that leads to the target's middle."""
    puppet.wait(round(START_AFTER + (visit - 0.5) * puppet.task.period) - puppet.task.control_steps)


def distance(puppet) -> float:
    return float(np.linalg.norm(puppet.scene.position(puppet.task.cube)[:2] - puppet.scene.position("target")[:2]))


@given(seed=st.integers(0, 2**31 - 1))
def test_visits_and_periods(seed):
    task = make_task("StopCube", seed)
    assert 2 <= task.repetitions <= 5
    assert task.period in PERIODS


def test_the_cube_is_on_the_target_once_per_period_and_turns_in_between(stop):
    for visit in range(1, stop.task.repetitions + 1):
        until(stop, visit)
        assert distance(stop) < 1e-6
        if visit < stop.task.repetitions:
            until(stop, visit + 0.5)
            assert distance(stop) == pytest.approx(REACH)


def test_stopping_at_the_stated_visit_succeeds_and_the_cube_stays(stop):
    until(stop, 3)
    stop.press()
    assert stop.status == "success"
    before = distance(stop)
    stop.wait(20)
    assert distance(stop) == before


@pytest.mark.parametrize("visit", [1, 2])
def test_stopping_at_an_earlier_visit_fails(stop, visit):
    until(stop, visit)
    stop.press()
    assert stop.status == "failure"
    assert f"visit {visit} instead of 3" in stop.reason


def test_stopping_beside_the_target_fails(stop):
    until(stop, 2.6)
    stop.press()
    assert stop.status == "failure"
    assert "beside the target" in stop.reason


def test_letting_the_visit_pass_fails(stop):
    until(stop, 3)
    margin = TARGET_RADIUS / (2 * REACH) * stop.task.period
    stop.wait(int(margin) - 1)
    assert stop.status == "running"
    stop.wait(3)
    assert stop.status == "failure"
    assert "pass" in stop.reason


@pytest.mark.parametrize("takes", [6, 8, 10])  # control steps from the hover to the press
@pytest.mark.parametrize("period", PERIODS)
def test_a_press_at_the_first_call_of_those_that_say_so_stops_the_cube_on_the_target(puppet, period, takes):
    seed = next(seed for seed in range(40) if make_task("StopCube", seed).period == period)
    for first_call in range(0, HIGH_LEVEL_EVERY, 3):
        stop = puppet("StopCube", seed=seed)
        stop.wait(first_call)
        while stop.task.step.skill != "press":
            stop.wait(HIGH_LEVEL_EVERY)
        assert stop.status == "running"
        stop.wait(takes - 1)
        stop.press()
        assert stop.status == "success", stop.reason


def test_subgoals_count_the_visits(stop):
    scene, task = stop.scene, stop.task
    assert task.subgoal(scene, "simple") == "move to the top of the button to prepare"
    x, y, _ = scene.position("button")
    stop.hand[:] = [x, y, 0.11]
    said, segments = [], []
    while task.control_steps < START_AFTER + 2.5 * task.period:
        stop.wait()
        said.append(task.subgoal(scene, "simple"))
        segments.append(task.segment)
    distinct = [text for i, text in enumerate(said) if i == 0 or text != said[i - 1]]
    assert distinct == [
        "remain static for the first visit",
        "remain static for the second visit",
        "remain static for the third visit",
        "press the button to stop the cube on the target",
    ]
    assert sorted(set(segments)) == [1, 2, 3, 4]
    assert task.goal == "press the button to stop the cube just as it reaches the target for the third time"
