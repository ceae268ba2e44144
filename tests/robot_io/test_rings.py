"""Frames over time out of a node's shared-memory rings: in place, pinned until released, gone when overwritten."""

import os
from pathlib import Path

import numpy as np
import pytest

from memrt.robot_io.rings import FrameReader
from memrt.runtime._core import FrameRing
from memrt.runtime.config import load_policy
from memrt.runtime.memory.sampling import Sampling
from memrt.sim.driver import FRAME_PERIOD_NS, RING_SLOTS


@pytest.fixture
def ring():
    made = FrameRing.create(f"memrt-test-{os.getpid()}-past", 8, 4, 6, 3)
    yield made
    made.close()


@pytest.fixture
def reader(ring):
    made = FrameReader()
    made.open({"front": ring.name})
    yield made
    made.close()


def write(ring, index: int) -> None:
    assert ring.write(np.full((4, 6, 3), index, np.uint8), index, index * 100)


def test_the_past_is_what_the_camera_showed_then(ring, reader):
    for index in range(1, 6):
        write(ring, index)
    for t_ns, shown in ((100, 1), (199, 1), (200, 2), (420, 4), (9_000, 5)):
        frame = reader.at("front", t_ns)
        assert (frame.index, frame.t_ns) == (shown, shown * 100)
        assert (frame.image == shown).all()
        frame.release()
    assert reader.at("front", 99) is None
    assert reader.at("wrist", 500) is None
    assert reader.latest()["front"].index == 5


def test_a_borrowed_frame_stays_while_others_pass_and_then_is_gone(ring, reader):
    write(ring, 1)
    held = reader.at("front", 100)
    for index in range(2, 40):
        write(ring, index)
    assert (held.image == 1).all()
    held.release()
    for index in range(40, 60):
        write(ring, index)
    assert reader.at("front", 150) is None
    assert reader.at("front", 5_500).index == 55


def test_a_closed_reader_has_no_past(ring, reader):
    write(ring, 1)
    reader.close()
    assert reader.at("front", 100) is None


def test_the_simulators_rings_reach_as_far_back_as_memer_looks():
    policy = load_policy(Path(__file__).parents[1] / "keyframes" / "two_views.yaml")
    sampling = Sampling.of(policy.memory.keyframes)
    window_ns = sampling.t_ns(0, (policy.memory.keyframes.recent - 1) * policy.memory.keyframes.stride + 1)
    deadline_ns = round(policy.high_level.time_to_live_s * 1e9)
    assert window_ns + deadline_ns < RING_SLOTS * FRAME_PERIOD_NS
