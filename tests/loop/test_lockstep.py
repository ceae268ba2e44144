"""The lock-step loop: the reference's cadence, the same actions for the same seed, an honest end."""

import numpy as np
import pytest
from kinematic import DT_NS, KinematicRobot, SwingHighLevel, SwingLowLevel

from memrt.runtime.clock import VirtualClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.trace import Trace
from memrt.runtime.types import RobotMode


def settings(**changes) -> LoopSettings:
    values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 16, "cap_steps": 400}
    return LoopSettings(**(values | changes))


def swing(swings: int = 3, low_level=None, **changes):
    robot, high_level = KinematicRobot(VirtualClock(), swings, refusals_raise=True), SwingHighLevel()
    record = run_lockstep(robot, high_level, low_level or SwingLowLevel(), "swing", settings(**changes))
    return record, robot, high_level


def test_the_loop_closes_a_task_that_needs_memory():
    record, _, high_level = swing(swings=3)
    assert (record.status, record.reason, record.outcome_by) == ("success", "swung as often as asked", "robot")
    assert [text for _, text in record.subgoals] == ["swing left", "swing right", "swing left"]
    assert high_level.calls == -(-record.steps // 16)
    assert record.counts["chunks"] == -(-record.steps // 8)
    assert record.duration_ns == record.steps * DT_NS


def test_the_same_seed_gives_the_same_actions_bit_for_bit_and_another_seed_others():
    first, _, _ = swing(seed=4)
    again, _, _ = swing(seed=4)
    other, _, _ = swing(seed=5)
    assert first.actions_sha256 == again.actions_sha256
    assert first.actions_sha256 != other.actions_sha256


def test_without_a_high_level_the_goal_is_the_subgoal():
    low_level = SwingLowLevel()
    robot = KinematicRobot(VirtualClock(), swings=1)
    record = run_lockstep(robot, None, low_level, "swing left", settings())
    assert record.status == "success"
    assert {(subgoal.text, subgoal.revision) for subgoal in low_level.subgoals} == {("swing left", 1)}


def test_the_cap_ends_a_run_undecided():
    record, _, _ = swing(swings=1000, cap_steps=50)
    assert (record.status, record.steps) == ("time_over", 50)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "non-finite"), (40.0, "limits")])
def test_three_bad_chunks_in_a_row_stop_the_robot(value, words):
    record, robot, _ = swing(low_level=SwingLowLevel(spoil=value))
    assert record.status == "held"
    assert words in record.reason
    assert (record.counts["rejected chunks"], record.counts["chunks"]) == (3, 0)
    assert robot.mode is RobotMode.STOPPED


def test_a_slow_run_sends_the_same_path_stretched_in_time():
    fast, slow = swing(swings=1)[1], swing(swings=1, speed=0.5)[1]
    assert slow.sent[0].dt_ns == 2 * fast.sent[0].dt_ns
    assert np.array_equal(slow.sent[0].actions, fast.sent[0].actions)
    with pytest.raises(MemrtError, match="speed"):
        settings(speed=1.5)


def test_every_control_step_is_shown_and_traced():
    seen, trace = [], Trace()
    robot = KinematicRobot(VirtualClock(), swings=1)
    record = run_lockstep(
        robot,
        SwingHighLevel(),
        SwingLowLevel(),
        "swing",
        settings(),
        on_step=lambda view: seen.append(view.step),
        trace=trace,
    )
    assert seen == list(range(1, record.steps + 1))
    names = [(event.track, event.name) for event in trace.events()]
    assert names.count(("low level", "call")) == record.counts["chunks"]
    assert ("high level", "call") in names
