"""Pictures that no cache has seen, the same for the same seed, and their past."""

import numpy as np
import pytest

from memrt.runtime.clock import NS_PER_S, VirtualClock
from memrt.runtime.profile.synthetic_robot import SyntheticRobot

PERIOD_NS = NS_PER_S // 20


def robot(clock: VirtualClock, seed: int = 3) -> SyntheticRobot:
    return SyntheticRobot(("front", "wrist"), (12, 16), seed=seed, frame_hz=20.0, clock=clock)


@pytest.fixture
def clock():
    return VirtualClock(5 * NS_PER_S)


def test_every_camera_gives_a_new_picture_each_period_and_the_same_one_in_between(clock):
    made = robot(clock)
    first = made.observe()
    clock.advance(PERIOD_NS - 1)
    assert made.observe() is first
    clock.advance(1)
    second = made.observe()
    assert second.t_ns - first.t_ns == PERIOD_NS
    for camera in ("front", "wrist"):
        old, new = first.frames[camera], second.frames[camera]
        assert (old.image.shape, new.index - old.index) == ((12, 16, 3), 1)
        assert (old.image != new.image).any()
    assert (first.frames["front"].image != first.frames["wrist"].image).any()


def test_the_joints_sway_within_reach_and_the_gripper_is_open(clock):
    made, seen = robot(clock), []
    for _ in range(200):
        clock.advance(PERIOD_NS)
        seen.append(made.observe().proprioception)
    moved = np.ptp(np.array(seen), axis=0)
    assert (moved[:-1] > 0.3).all()
    assert (np.array(seen)[:, -1] == 1.0).all()


def test_the_past_is_what_was_shown(clock):
    made, shown = robot(clock), []
    for _ in range(5):
        shown.append(made.observe().frames["wrist"])
        clock.advance(PERIOD_NS)
    history = made.observe().history
    for frame in shown:
        past = history.at("wrist", frame.t_ns + PERIOD_NS - 1)
        assert (past.index, past.t_ns) == (frame.index, frame.t_ns)
        assert (past.image == frame.image).all()
    assert history.at("wrist", shown[0].t_ns - 1) is None
    assert history.at("ceiling", shown[0].t_ns) is None


def test_the_same_seed_shows_the_same(clock):
    assert (robot(clock).observe().frames["front"].image == robot(clock).observe().frames["front"].image).all()
    assert (robot(clock, 4).observe().frames["front"].image != robot(clock).observe().frames["front"].image).any()
