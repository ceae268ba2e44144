"""What may pass to the robot and to the policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.loop.camera_watch import CameraWatch
from memrt.runtime.loop.gates import camera_state, refuse_chunk
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


def observation(*frames: Frame, joints: float = 0.0) -> Observation:
    return Observation(9, np.full(8, joints), {frame.camera: frame for frame in frames})


def test_the_oldest_needed_frame_counts_and_a_missing_one_is_no_frame():
    seen = observation(frame(1, 5, 0), frame(1, 3, 0, "wrist"), frame(1, 1, 0, "side"))
    oldest = CameraWatch(("front", "wrist")).oldest(seen)
    assert (oldest.camera, oldest.t_ns, oldest.frozen) == ("wrist", 3, False)
    assert CameraWatch(()).oldest(seen).t_ns == 9
    missing = CameraWatch(("front", "top"))
    assert missing.oldest(seen) is None
    waited_for = missing.oldest(seen, since_ns=2)
    assert (waited_for.camera, waited_for.t_ns) == ("top", 2)


def test_a_picture_that_stays_while_the_arm_moves_is_as_old_as_it_was_first_seen():
    watch = CameraWatch(("front",))

    def seen_at(index: int, level: int, joints: float) -> int:
        return watch.oldest(observation(frame(index, 10 * index, level), joints=joints)).t_ns

    assert seen_at(1, 7, 0.0) == 10
    assert seen_at(2, 7, 0.0) == 20  # nothing moved: the same picture is right
    assert seen_at(3, 7, 0.1) == 10
    assert seen_at(3, 7, 0.0) == 10  # asked again about the same frame
    assert seen_at(2, 7, 0.0) == 10  # another thread's observation is older
    assert seen_at(4, 7, 0.0) == 10  # the arm is back, the camera is not
    assert seen_at(5, 8, 0.1) == 50  # it moves again
    assert seen_at(4, 7, 0.1) == 40


def test_each_camera_freezes_for_itself_and_is_named():
    watch = CameraWatch(("front", "wrist"))
    for index in range(1, 4):
        oldest = watch.oldest(
            observation(frame(index, index, index), frame(index, index + 5, 7, "wrist"), joints=0.1 * index)
        )
    assert (oldest.camera, oldest.frozen) == ("front", False)
    oldest = watch.oldest(observation(frame(9, 90, 9), frame(9, 90, 7, "wrist"), joints=0.5))
    assert (oldest.camera, oldest.t_ns, oldest.frozen) == ("wrist", 6, True)
    assert "camera `wrist` is frozen: the same picture for 1.0 s" in oldest.trouble(6 + 10**9)
    assert "camera `front` is lost: no new picture for 2.0 s" in CameraWatch(("front",)).oldest(
        observation(frame(1, 0, 0))
    ).trouble(2 * 10**9)


@pytest.mark.parametrize("changed", [(0, 0, 0), (17, 3, 1), (31, 31, 2)])
def test_one_changed_byte_is_another_picture(changed):
    """Wherever it lies: live pictures are told by a glance, still ones only by all of their bytes."""
    watch = CameraWatch(("front",))
    image = np.zeros((32, 32, 3), np.uint8)
    other = image.copy()
    other[changed] = 1
    watch.oldest(observation(Frame("front", 1, 10, image)))
    assert watch.oldest(observation(Frame("front", 2, 20, other), joints=0.5)).t_ns == 20
    assert watch.oldest(observation(Frame("front", 3, 30, other), joints=1.0)).t_ns == 20
