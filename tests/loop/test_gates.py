"""What may pass to the robot and to the policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.loop.gates import FrozenImageDetector, camera_state, oldest_frame_ns, refuse_chunk
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import ActionChunk, Frame, Observation

SETTINGS = LoopSettings(dt_ns=50_000_000, horizon=16, execute=8, every_steps=16)
MS = 1_000_000


def frame(index: int, t_ns: int, level: int, camera: str = "front") -> Frame:
    return Frame(camera, index, t_ns, np.full((4, 4, 3), level, np.uint8))


@given(st.integers(0, 15), st.integers(0, 7), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_non_finite_number_refuses_the_whole_chunk(row, column, value):
    actions = np.zeros((16, 8))
    assert refuse_chunk(ActionChunk(actions, 0, MS, 1), 16) == ""
    actions[row, column] = value
    assert refuse_chunk(ActionChunk(actions, 0, MS, 1), 16) == "non-finite action"


@pytest.mark.parametrize("shape", [(15, 8), (16, 7), (16,), (0, 8), (16, 8, 1)])
def test_a_wrong_shape_is_refused_and_named(shape):
    assert refuse_chunk(ActionChunk(np.zeros(shape), 0, MS, 1), 16) == f"shape {list(shape)} instead of [16, 8]"


def test_a_chunk_without_duration_is_refused():
    assert refuse_chunk(ActionChunk(np.zeros((16, 8)), 0, 0, 1), 16) == "dt of 0 ns"


@pytest.mark.parametrize(
    ("age_ms", "state"), [(0, "fresh"), (100, "fresh"), (101, "stale"), (500, "stale"), (501, "lost")]
)
def test_a_camera_is_stale_after_100_ms_and_lost_after_500(age_ms, state):
    assert camera_state(1_000 * MS, (1_000 - age_ms) * MS, SETTINGS) == state


def test_the_oldest_needed_frame_counts_and_a_missing_one_is_no_frame():
    observation = Observation(
        9, np.zeros(8), {"front": frame(1, 5, 0), "wrist": frame(1, 3, 0), "side": frame(1, 1, 0)}
    )
    assert oldest_frame_ns(observation, ("front", "wrist")) == 3
    assert oldest_frame_ns(observation, ("front", "top")) is None
    assert oldest_frame_ns(observation, ()) == 9


def test_a_picture_that_stays_while_the_arm_moves_is_as_old_as_it_was_first_seen():
    detector = FrozenImageDetector()
    still, moved = np.zeros(8), np.full(8, 0.1)
    assert detector.effective_ns(frame(1, 10, 7), still) == 10
    assert detector.effective_ns(frame(2, 20, 7), still) == 20  # nothing moved: the same picture is right
    assert detector.effective_ns(frame(3, 30, 7), moved) == 10
    assert detector.effective_ns(frame(3, 30, 7), still) == 10  # asked again about the same frame
    assert detector.effective_ns(frame(4, 40, 8), moved) == 40  # it moves again
    assert detector.effective_ns(frame(9, 90, 7, "wrist"), moved) == 90  # each camera for itself
