"""Alignment against naive code: the nearest frame by looking at all, the state by numpy's own interpolation."""

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.robot_io.cameras.alignment import align, nearest, state_at
from memrt.robot_io.rings import FrameReader
from memrt.runtime._core import FrameRing
from memrt.runtime.types import Frame

TIMES = st.lists(st.integers(0, 10**10), min_size=1, max_size=30, unique=True).map(sorted)
PIXEL = np.zeros((1, 1, 3), np.uint8)


@given(TIMES, st.integers(-(10**9), 11 * 10**9))
def test_nearest_is_the_nearest(times, t_ns):
    assert nearest(times, t_ns) == min(range(len(times)), key=lambda index: (abs(times[index] - t_ns), index))


@given(TIMES, st.integers(-(10**9), 11 * 10**9), st.integers(0, 2**32 - 1))
def test_states_are_interpolated_and_never_extrapolated(times, t_ns, seed):
    states = np.random.default_rng(seed).normal(size=(len(times), 8))
    state, gap = state_at(times, list(states), t_ns)
    expected = [np.interp(t_ns, times, states[:, joint]) for joint in range(8)]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-9)
    assert gap == max(0, times[0] - t_ns, t_ns - times[-1])


@given(st.dictionaries(st.sampled_from(["wrist", "left", "right"]), TIMES, min_size=1), TIMES, TIMES)
def test_everything_is_at_the_reference_cameras_newest_frame(others, front, state_times):
    frames = {
        name: [Frame(name, index, t, PIXEL) for index, t in enumerate(times)]
        for name, times in {"front": front, **others}.items()
    }
    states = [np.full(8, float(t)) for t in state_times]
    aligned = align("front", frames, state_times, states)
    assert aligned is not None
    now = front[-1]
    assert aligned.observation.t_ns == aligned.observation.frames["front"].t_ns == now
    for name, times in others.items():
        assert abs(aligned.skew_ns[name]) == min(abs(t - now) for t in times)
        assert aligned.observation.frames[name].t_ns == now + aligned.skew_ns[name]
    in_buffer = float(min(max(now, state_times[0]), state_times[-1]))
    assert aligned.observation.proprioception == pytest.approx(in_buffer)


@pytest.mark.parametrize(("wrist", "states"), [([], [np.zeros(8)]), ([Frame("wrist", 1, 1, PIXEL)], [])])
def test_nothing_is_made_up_while_a_buffer_is_empty(wrist, states):
    frames = {"front": [Frame("front", 1, 1, PIXEL)], "wrist": wrist}
    assert align("front", frames, list(range(len(states))), states) is None


def test_the_links_frames_are_aligned_in_their_rings_and_let_go():
    names = {camera: f"memrt-test-{camera}-{uuid.uuid4().hex[:8]}" for camera in ("front", "wrist")}
    rings = {camera: FrameRing.create(name, 4, 1, 1) for camera, name in names.items()}
    reader = FrameReader()
    reader.open(names)
    with reader.recent() as recent:
        assert recent == {"front": [], "wrist": []}
    for index, t_ns in enumerate((60, 80, 95, 130), 1):
        rings["wrist"].write(PIXEL + np.uint8(index), index, t_ns)
    rings["front"].write(PIXEL, 1, 100)
    with reader.recent() as recent:
        assert [frame.t_ns for frame in recent["wrist"]] == [80, 95, 130]
        aligned = align("front", recent, [90, 110], [np.zeros(8), np.ones(8)])
        assert aligned.skew_ns == {"wrist": -5}
        assert aligned.observation.frames["wrist"].image[0, 0, 0] == 3
        np.testing.assert_allclose(aligned.observation.proprioception, 0.5)
    assert all(rings["wrist"].write(PIXEL, index, 1000 + index) for index in range(5, 10))
    reader.close()
    for ring in rings.values():
        ring.close()
