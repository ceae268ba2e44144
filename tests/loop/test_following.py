"""What the robot was told so far: chunks replace each other as in the robot's seam, bounded, and seams are measured."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import sample
from memrt.runtime.types import ActionChunk

DT = 50_000_000
SETTINGS = LoopSettings(dt_ns=DT, horizon=16, execute=8, every_steps=16)


def ramp(t0_ns: int, level: float, horizon: int = 16) -> ActionChunk:
    actions = np.full((horizon, 8), level) + np.arange(horizon)[:, None] * 0.01
    return ActionChunk(actions, t0_ns, DT, 1)


@given(st.lists(st.tuples(st.integers(1, 24 * DT), st.integers(1, 16), st.floats(-1, 1)), min_size=1, max_size=12))
def test_the_newest_chunk_wins_from_its_first_action_on_and_what_is_kept_is_bounded(chunks):
    followed, t_ns, sent = Followed(SETTINGS), 0, []
    for step_ns, horizon, level in chunks:
        t_ns += step_ns
        chunk = ramp(t_ns, level, horizon)
        known = [(t, a) for other in sent for t, a in zip(times(other), other.actions, strict=True) if t < t_ns]
        seam = followed.take(chunk)
        newest = sent[-1] if sent else None
        if newest is not None and newest.t0_ns <= t_ns <= newest.end_ns:
            old = sample(times(newest), newest.actions, np.array([t_ns]))[0]
            assert seam == np.abs(chunk.actions[0] - old).max()
        elif newest is None or t_ns > newest.end_ns:
            assert seam is None
        sent = [trimmed(other, t_ns) for other in sent if other.t0_ns < t_ns] + [chunk]
        playing = followed.playing(t_ns, 0)
        if chunk.end_ns > t_ns:
            assert playing is not None
            assert len(playing.times_ns) <= 2 * SETTINGS.horizon
            assert (np.diff(playing.times_ns) > 0).all()
            np.testing.assert_array_equal(playing.actions[playing.times_ns >= t_ns], chunk.actions)
            before = playing.times_ns < t_ns
            assert before.sum() <= 1
            assert all(any(t == k for k, _ in known) for t in playing.times_ns[before])
        else:
            assert playing is None


def times(chunk: ActionChunk) -> np.ndarray:
    return chunk.t0_ns + np.arange(len(chunk.actions)) * chunk.dt_ns


def trimmed(chunk: ActionChunk, end_ns: int) -> ActionChunk:
    return ActionChunk(chunk.actions[times(chunk) < end_ns], chunk.t0_ns, DT, 1)


def test_of_an_older_subgoals_plan_only_what_the_delay_makes_inevitable_is_continued():
    followed = Followed(SETTINGS)
    followed.take(ramp(DT, 0.0))
    t_obs_ns = 4 * DT + DT // 2  # off the grid
    whole = followed.playing(t_obs_ns, 3)
    rest = followed.playing(t_obs_ns, 3, outdated=True)
    assert whole is not None
    assert rest is not None
    assert whole.times_ns[-1] == 16 * DT
    assert rest.times_ns[-1] == t_obs_ns + 3 * DT
    np.testing.assert_allclose(rest.actions[-1], 0.01 * 6.5)
    assert followed.playing(t_obs_ns, 0, outdated=True) is None


def test_after_a_hold_nothing_is_continued():
    followed = Followed(SETTINGS)
    followed.take(ramp(DT, 0.0))
    followed.clear()
    assert followed.playing(2 * DT, 1) is None
    assert followed.take(ramp(3 * DT, 1.0)) is None


def test_targets_are_spaced_as_the_paced_run_plays_them():
    followed = Followed(LoopSettings(dt_ns=DT, horizon=16, execute=8, every_steps=16, speed=0.5))
    followed.take(ActionChunk(np.zeros((16, 8)), 2 * DT, 2 * DT, 1))
    playing = followed.playing(5 * DT, 2)
    assert playing is not None
    assert (playing.dt_ns, playing.delay_steps) == (2 * DT, 2)
    assert playing.times_ns[0] == 4 * DT  # the target before the observation is where an interpolation begins
