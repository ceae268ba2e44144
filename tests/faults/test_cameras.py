"""Row: camera stale > 100 ms / lost > 500 ms / frozen image with rising id."""

import pytest
from arm_driver import eventually
from fault_policies import PROMISED, promised

from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import RobotMode

pytestmark = pytest.mark.real_time

STALE_NS, LOST_NS = 100 * NS_PER_MS, 500 * NS_PER_MS


def shown(call) -> int:
    """When the picture was taken that a call was shown."""
    return call.observation.frames["front"].t_ns


def newest_picture(chain) -> int:
    return chain.robot.observe().frames["front"].t_ns


def test_the_promised_ages_are_the_defaults():
    assert (PROMISED["camera_stale_ns"], PROMISED["camera_lost_ns"]) == (STALE_NS, LOST_NS)


def test_a_stale_camera_starts_no_inference_and_the_arm_finishes_its_chunk_and_rests(chain):
    """And goes on by itself when pictures come again: only a lost camera holds."""
    run = chain(**promised("camera_stale_ns")).settle()
    run.camera.dead.set()
    last_ns = newest_picture(run)
    assert eventually(run.driver.at_rest)
    _, chunk = run.notes.chunks[-1]
    assert abs(run.first_joint() - chunk.actions[-1, 0]) < 1e-3  # it went to the end of what it had been told
    for call in run.notes.high + run.notes.low:
        assert call.t_ns - shown(call) <= STALE_NS
    assert max(call.t_ns for call in run.notes.high) - last_ns <= STALE_NS
    assert (run.hold, run.robot.mode) == ("", RobotMode.RUNNING)
    run.camera.dead.clear()
    assert eventually(lambda: not run.driver.at_rest())
    assert run.hold == ""


def test_a_lost_camera_holds_at_the_first_look_after_500_ms_until_an_operator_resumes(chain):
    run = chain(**promised("camera_stale_ns", "camera_lost_ns")).settle()
    run.camera.dead.set()
    held_ns = run.held("camera `front` is lost")
    last_ns = newest_picture(run)
    assert held_ns - last_ns > LOST_NS
    assert len(run.looks(last_ns + LOST_NS, held_ns)) == 1

    stood_at, sent = run.rested(), len(run.notes.chunks)
    run.loop.resume()  # too early: the camera is still away
    assert eventually(lambda: len(run.notes.when("hold")) >= 2)
    assert (run.rested(), len(run.notes.chunks)) == (stood_at, sent)

    run.camera.dead.clear()
    looked_at = len(run.notes.ticks)
    assert eventually(lambda: len(run.notes.ticks) > looked_at + 20)
    assert "is lost" in run.hold  # nothing resumes by itself
    assert run.first_joint() == stood_at
    run.settle()  # resumes


def test_a_frozen_picture_counts_from_when_it_was_first_seen(chain):
    """Its index and time rise, so only the pixels tell: they stay although the arm moves."""
    run = chain(**promised("camera_stale_ns", "camera_lost_ns")).swinging()
    run.camera.frozen.set()
    held_ns = run.held("camera `front` is frozen")
    assert held_ns - run.camera.frozen_since_ns > LOST_NS
    assert len(run.looks(run.camera.frozen_since_ns + LOST_NS, held_ns)) == 1
    assert newest_picture(run) > run.camera.frozen_since_ns + LOST_NS  # by its stamps it lives
    first = next(o for _, _, o in run.notes.ticks if o.frames["front"].t_ns == run.camera.frozen_since_ns)
    for call in run.notes.high + run.notes.low:
        if shown(call) > run.camera.frozen_since_ns:
            moved = abs(call.observation.proprioception - first.proprioception)[:-1].max()
            assert moved <= 0.02 or call.t_ns - run.camera.frozen_since_ns <= STALE_NS
    run.rested()
    run.loop.resume()
    assert eventually(lambda: len(run.notes.when("hold")) >= 2)  # it is still frozen, though the arm stands still now
    run.camera.frozen.clear()
    run.settle()


def test_a_picture_that_stays_while_the_arm_stands_still_is_true(chain):
    run = chain(**promised("camera_stale_ns", "camera_lost_ns"))
    run.low_level.spoil = stand_still
    run.camera.frozen.set()
    assert eventually(lambda: len(run.notes.chunks) >= 4)
    assert not any("frozen" in arguments.get("reason", "") for _, _, arguments in run.notes.events)


def stand_still(chunk):
    chunk.actions[:] = [0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7, 1.0]
    return chunk
