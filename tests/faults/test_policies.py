"""Rows: the high level hangs; the low level overruns, is later than its prefix, or gives what is no chunk."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from arm_driver import eventually
from chain import Watched
from fault_policies import DT_NS, Names, promised

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.loop import realtime
from memrt.runtime.types import RobotMode

pytestmark = pytest.mark.real_time

SHORT = {"horizon": 4, "execute": 2}  # so that five late chunks are over in a second


def test_a_high_level_that_hangs_is_waited_for_for_3_s_on_the_last_subgoal_then_the_robot_holds(chain):
    run = chain(**promised("subgoal_time_to_live_ns")).settle()
    assert run.settings.subgoal_time_to_live_ns == 3 * NS_PER_S
    run.high_level.hang()
    held_ns = run.held("the high level has not answered for 3 s")
    assert eventually(lambda: run.notes.high[-1].cancelled)  # the call that hung, by the hold
    answered_ns = held_ns - run.loop._shared.board.silence_ns(held_ns)
    assert held_ns - answered_ns > 3 * NS_PER_S
    assert len(run.looks(answered_ns + 3 * NS_PER_S, held_ns)) == 1
    late = [chunk for t_ns, chunk in run.notes.chunks if t_ns > answered_ns + NS_PER_S]
    assert len(late) > 2
    assert {chunk.subgoal_revision for chunk in late} == {1}
    run.rested()
    run.high_level.hanging.clear()
    run.settle()


def test_a_high_level_that_is_deaf_too_delays_neither_stop_nor_end(chain, monkeypatch):
    monkeypatch.setattr(realtime, "JOIN_S", 0.1)
    run = chain(high_level=Names(deaf=True)).settle()
    run.high_level.hang()
    asked = len(run.notes.high)
    run.loop.stop()
    assert (run.robot.mode, run.driver.at_rest()) == (RobotMode.STOPPED, True)
    run.loop.resume()
    run.settle()
    run.loop.quit()
    assert run.ended() == "quit by the operator"
    assert run.driver.at_rest()
    assert len(run.notes.high) <= asked + 1  # it hangs to this moment
    assert run.counts["threads left behind"] == 1


def test_a_slow_low_level_is_played_from_the_first_action_that_is_in_time(chain):
    run = chain().settle()
    run.low_level.delay = lambda *_: time.sleep(0.3)
    assert eventually(lambda: run.notes.chunks and len(run.notes.chunks[-1][1].actions) <= 10)
    for sent_ns, chunk in run.notes.chunks:
        assert chunk.t0_ns >= sent_ns + run.settings.send_lead_ns
    assert run.hold == ""


def test_a_low_level_that_overruns_lets_the_arm_stop_on_the_last_point_and_goes_on_when_it_answers(chain):
    run = chain().swinging()
    answer = threading.Event()
    run.low_level.delay = lambda *_: answer.wait()
    with Watched(run.driver) as watched:
        assert eventually(run.driver.at_rest)
    _, chunk = run.notes.chunks[-1]
    last, direction = chunk.actions[-1, 0], np.sign(chunk.actions[-1, 0] - chunk.actions[0, 0])
    _, joints = watched.path
    assert ((joints[:, 0] - last) * direction).max() < 0.005
    assert abs(run.first_joint() - last) < 0.001
    assert eventually(lambda: time.monotonic_ns() > chunk.end_ns + chunk.end_ns - chunk.t0_ns)  # nothing is in time now
    answer.set()
    assert eventually(lambda: run.counts["late chunks"] == 1)
    assert eventually(lambda: not run.driver.at_rest())
    assert run.hold == ""


def test_five_chunks_in_a_row_that_are_too_late_hold(chain):
    run = chain(**SHORT, **promised("late_before_hold")).settle()
    before = run.counts["late chunks"]
    run.low_level.delay = lambda *_: time.sleep(0.25)  # the chunk spans 0.2 s
    run.held("5 chunks in a row came too late to be played")
    run.rested()
    assert run.counts["late chunks"] >= before + 5
    run.low_level.delay = lambda *_: None
    run.settle()


def test_five_chunks_in_a_row_later_than_their_prefix_are_discarded_and_hold(chain):
    run = chain(chunking="prefix", warm_up_calls=0, horizon=40, execute=2, **promised("late_before_hold")).settle()

    def overrun(observation, playing) -> None:
        """Take half a step longer than was reckoned with, every time."""
        if playing is not None:
            until_ns = observation.t_ns + (playing.delay_steps + 1) * DT_NS + DT_NS // 2
            time.sleep(max(0, until_ns - time.monotonic_ns()) / NS_PER_S)

    run.low_level.delay = overrun
    run.held("5 chunks in a row came too late to be played")
    assert run.counts["chunks later than their prefix"] >= 5
    begun = run.notes.low[-1].t_ns
    assert all(t_ns < begun for t_ns, _ in run.notes.chunks)
    run.rested()


def test_a_low_level_that_never_answers_holds_after_the_time_of_five_late_chunks(chain):
    run = chain(**SHORT, **promised("late_before_hold")).settle()
    answer = threading.Event()
    run.low_level.delay = lambda *_: answer.wait()
    held_ns = run.held("the low level has not answered for 1 s")
    run.rested()
    assert held_ns - run.notes.low[-1].t_ns > NS_PER_S
    run.loop.resume()  # it still does not answer
    assert eventually(lambda: len(run.notes.when("hold")) >= 2)
    run.rested()
    answer.set()
    run.settle()
    assert run.counts["chunks dropped at a hold"] >= 1


def spoilt(value: float):
    def spoil(chunk):
        chunk.actions[3, 2] = value
        return chunk

    return spoil


def cut(chunk):
    return replace(chunk, actions=chunk.actions[:, :7])


BAD = {"NaN": spoilt(np.nan), "Inf": spoilt(np.inf), "wrong shape": cut}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_one_bad_chunk_is_rejected_whole_and_the_third_in_a_row_holds(chain, spoil):
    run = chain().settle()
    good = run.low_level.spoil
    left = iter([True])
    run.low_level.spoil = lambda chunk: spoil(chunk) if next(left, False) else chunk
    assert eventually(lambda: run.counts["rejected chunks"] == 1)
    sent = len(run.notes.chunks)
    assert eventually(lambda: len(run.notes.chunks) > sent)
    assert run.hold == ""
    run.low_level.spoil = spoil
    run.held("3 chunks in a row rejected")
    run.rested()
    assert run.counts["rejected chunks"] == 4
    assert all(chunk.actions.shape[1] == 8 and np.isfinite(chunk.actions).all() for _, chunk in run.notes.chunks)
    assert run.robot.statistics.get("chunks refused", 0) == 0  # none of them had reached the node
    run.low_level.spoil = good
    run.settle()


@pytest.mark.parametrize("spoil", [BAD["NaN"], BAD["Inf"]], ids=["NaN", "Inf"])
def test_the_node_refuses_a_bad_chunk_of_any_client(chain, spoil):
    run = chain(start=False)
    run.robot.arm()
    chunk = run.low_level.act(run.robot.observe(), _Subgoal, "", None).chunk
    for count in (1, 2, 3):
        run.robot.send(spoil(replace(chunk, t0_ns=time.monotonic_ns() + DT_NS)))
        assert eventually(lambda count=count: run.robot.refused_in_a_row == count)
    assert run.driver.at_rest()
    assert run.driver.control.stats()["accepted"] == 0


class _Subgoal:
    revision = 1
