"""The real-time loop's reactions to faults, step by step on a virtual clock, and once with its real threads."""

import numpy as np
import pytest
from kinematic import DT_NS, KinematicRobot, SwingHighLevel, SwingLowLevel

from memrt.runtime.clock import NS_PER_MS, NS_PER_S, MonotonicClock, VirtualClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.protocols import LateChunkError
from memrt.runtime.loop.realtime import RealtimeLoop, warm_up
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.cancellation import Unanswered
from memrt.runtime.types import RobotMode


def settings(**changes) -> LoopSettings:
    values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 16, "cameras": ("front",)}
    return LoopSettings(**(values | changes))


class Bench:
    """A loop whose workers and supervisor are stepped by the test; 10 ms of virtual time per round."""

    def __init__(self, swings: int = 1000, end_on_hold: bool = False, **changes) -> None:
        self.clock = VirtualClock(NS_PER_S)
        self.robot = KinematicRobot(self.clock, swings)
        self.high_level, self.low_level = SwingHighLevel(), SwingLowLevel()
        self.loop = RealtimeLoop(
            self.robot,
            self.high_level,
            self.low_level,
            "swing",
            settings(**changes),
            clock=self.clock,
            end_on_hold=end_on_hold,
        )
        self.loop.start(threads=False)
        self._due = {"high": 0, "low": 0}

    def run(self, seconds: float, high_level: bool = True) -> None:
        end_ns = self.clock.now_ns() + round(seconds * NS_PER_S)
        while self.clock.now_ns() < end_ns and self.loop.record.status == "running":
            self.robot.observe()  # the world goes on
            if high_level and self.clock.now_ns() >= self._due["high"]:
                self._due["high"] = self.loop.high_level_worker.step()
            if self.clock.now_ns() >= self._due["low"]:
                self._due["low"] = self.loop.low_level_worker.step()
            self.loop.tick()
            self.clock.advance(10 * NS_PER_MS)

    @property
    def hold(self) -> str:
        return self.loop.status().hold_reason

    @property
    def counts(self):
        return self.loop.record.counts


def test_two_rates_close_the_task_and_starve_nothing():
    bench = Bench(swings=4)
    bench.run(20)
    record = bench.loop.record
    assert (record.status, record.outcome_by) == ("success", "robot")
    assert record.starved_ns == 0
    assert bench.high_level.calls == pytest.approx(record.duration_ns / (16 * DT_NS), abs=2)
    assert record.counts["chunks"] == pytest.approx(record.duration_ns / (8 * DT_NS), abs=2)


def test_a_chunk_is_tagged_with_the_subgoal_it_follows():
    bench = Bench()
    bench.run(5)
    revisions = [chunk.subgoal_revision for chunk in bench.robot.sent]
    assert revisions == sorted(revisions)
    assert revisions[-1] == bench.loop.status().subgoal.revision > 1


def test_a_slow_low_level_sends_only_what_is_still_in_time():
    bench = Bench()
    bench.low_level.clock, bench.low_level.delay_ns = bench.clock, 230 * NS_PER_MS
    sent_at = []
    send = bench.robot.send
    bench.robot.send = lambda chunk: (sent_at.append(bench.clock.now_ns()), send(chunk))
    bench.run(4)
    assert len(sent_at) > 5
    for now_ns, chunk in zip(sent_at, bench.robot.sent, strict=True):
        assert now_ns < chunk.t0_ns <= now_ns + 10 * NS_PER_MS + DT_NS
    assert bench.loop.record.starved_ns == 0


def test_a_high_level_that_hangs_holds_after_its_time_to_live():
    bench = Bench()
    bench.run(1)
    bench.run(2.0, high_level=False)
    assert bench.hold == ""
    bench.run(1.5, high_level=False)
    assert "high level has not answered for 3 s" in bench.hold
    assert bench.robot.mode is RobotMode.STOPPED


def test_a_high_level_that_nobody_answers_keeps_its_last_subgoal_for_the_time_to_live():
    bench = Bench()
    bench.run(1)
    sent = len(bench.robot.sent)

    def unanswered(*_, **__):
        raise Unanswered("no connection: refused", {"remote: no connection": 1})

    bench.high_level.call = unanswered
    bench.run(2.0)
    assert bench.hold == ""
    assert len(bench.robot.sent) >= sent + 4
    bench.run(2.0)
    assert bench.hold == "the high level has not answered for 3 s: no connection: refused"
    assert bench.counts["unanswered calls"] == bench.counts["remote: no connection"] == 3  # one per 0.8 s


def test_a_stale_camera_starts_no_inference_and_a_lost_one_holds_until_resumed():
    bench = Bench()
    bench.run(1)
    bench.robot.camera_works = False
    calls = len(bench.low_level.subgoals)
    bench.run(0.12)
    calls_when_stale = len(bench.low_level.subgoals)
    assert calls_when_stale <= calls + 1
    bench.run(0.3)
    assert len(bench.low_level.subgoals) == calls_when_stale
    assert bench.hold == ""
    bench.run(0.3)
    assert "camera `front` is lost" in bench.hold
    bench.robot.camera_works = True
    bench.run(1)
    assert "camera `front` is lost" in bench.hold  # nothing resumes by itself
    assert bench.loop.resume()
    bench.run(1)
    assert bench.hold == ""
    assert len(bench.low_level.subgoals) > calls_when_stale


@pytest.mark.parametrize(
    ("spoil", "words", "rejected"),
    [(np.nan, "3 chunks in a row rejected", 3), (40.0, "the robot refused 3 chunks in a row", 0)],
)
def test_three_bad_chunks_in_a_row_hold(spoil, words, rejected):
    bench = Bench()
    bench.low_level.spoil = spoil
    bench.run(3)
    assert words in bench.hold
    assert bench.counts["rejected chunks"] == rejected


def test_a_low_level_elsewhere_that_gives_no_chunk_in_time_is_late_and_the_robot_stops_before_its_last_action():
    bench = Bench()
    bench.run(1)
    bench.low_level.act = out_of_reach
    sent, end_ns = len(bench.robot.sent), bench.robot.sent[-1].end_ns
    bench.run(2)
    assert "5 chunks in a row came too late to be played: policy server" in bench.hold
    assert bench.counts["late chunks"] == 5
    assert len(bench.robot.sent) == sent
    assert bench.clock.now_ns() > end_ns
    assert np.abs(bench.robot.seam.step(bench.clock.now_ns())[1]).max() < 1e-6  # at rest
    del bench.low_level.act
    assert bench.loop.resume()
    bench.run(1)
    assert bench.hold == ""
    assert len(bench.robot.sent) > sent


def test_a_low_level_that_hangs_holds_after_as_long_as_five_late_chunks_would_take():
    """Here the supervisor looks during the call, as its thread would."""
    bench = Bench(camera_lost_ns=60 * NS_PER_S, subgoal_time_to_live_ns=60 * NS_PER_S)
    bench.run(1)
    act, held_after_ns = bench.low_level.act, []

    def hang(*arguments, **more):
        began_ns = bench.clock.now_ns()
        while not held_after_ns:
            bench.clock.advance(20 * NS_PER_MS)
            bench.loop.tick()
            if bench.hold:
                held_after_ns.append(bench.clock.now_ns() - began_ns)
        return act(*arguments, **more)

    bench.low_level.act = hang
    bench.run(0.5)
    assert bench.hold == "the low level has not answered for 4 s"
    assert 0 < held_after_ns[0] - 5 * 16 * DT_NS <= 20 * NS_PER_MS
    assert bench.robot.mode is RobotMode.STOPPED
    assert bench.counts["chunks dropped at a hold"] == 1


def out_of_reach(*_: object, **__: object):
    raise LateChunkError("policy server", expected="a chunk within 300 ms", found="no connection", fix="wait")


def test_five_chunks_that_came_too_late_hold():
    bench = Bench(camera_stale_ns=10 * NS_PER_S, camera_lost_ns=20 * NS_PER_S, subgoal_time_to_live_ns=60 * NS_PER_S)
    bench.low_level.clock, bench.low_level.delay_ns = bench.clock, NS_PER_S
    bench.run(8)
    assert "5 chunks in a row came too late" in bench.hold
    assert bench.counts["late chunks"] == 5
    assert bench.counts["calls too slow for the horizon"] == 5
    assert bench.robot.sent == []


def test_no_chunk_thought_of_before_a_stop_leaves_after_it():
    bench = Bench()
    bench.run(1)
    act = bench.low_level.act

    def stopped_while_thinking(*arguments, **more):
        bench.loop.stop()
        bench.loop.resume()  # even a resume does not bring the old chunk back
        return act(*arguments, **more)

    bench.low_level.act = stopped_while_thinking
    sent = len(bench.robot.sent)
    bench.run(0.5)
    assert bench.counts["chunks dropped at a hold"] >= 1
    assert len(bench.robot.sent) == sent


def test_a_stop_that_comes_in_during_a_resume_wins():
    bench = Bench()
    bench.run(0.5)
    bench.loop.stop()
    resume = bench.robot.resume

    def resume_slowly():
        resume()
        bench.loop.stop("operator")

    bench.robot.resume = resume_slowly
    assert not bench.loop.resume()
    assert bench.robot.mode is RobotMode.STOPPED
    assert bench.hold == "operator"
    bench.run(1)
    assert bench.robot.mode is RobotMode.STOPPED


def test_discard_drops_the_chunk_of_an_older_subgoal_and_asks_again():
    def chunks_of_an_older_subgoal(policy: str) -> int:
        bench = Bench(on_new_subgoal=policy)
        bench.run(0.5)
        act = bench.low_level.act

        def overtaken(*arguments, **more):
            reply = act(*arguments, **more)
            board = bench.loop._shared.board
            board.answer(f"swing left {board.subgoal.revision}", bench.clock.now_ns(), bench.clock.now_ns())
            return reply

        bench.low_level.act = overtaken
        bench.run(1)
        return bench.counts["chunks of an older subgoal"]

    assert chunks_of_an_older_subgoal("finish") == 0
    assert chunks_of_an_older_subgoal("discard") > 0


def test_a_robot_in_fault_ends_the_run_and_says_why():
    bench = Bench()
    bench.run(0.5)
    bench.robot.mode, bench.robot.fault_reason = RobotMode.FAULT, "reflex"
    bench.run(0.1)
    assert (bench.loop.record.status, bench.loop.record.reason) == ("fault", "reflex")
    assert bench.loop.record.outcome_by == "run"


@pytest.mark.parametrize(("success", "status"), [(True, "success"), (False, "failure")])
def test_an_operator_ends_the_run_with_a_word_on_its_outcome(success, status):
    bench = Bench()
    bench.run(0.5)
    bench.loop.judge(success=success)
    bench.loop.judge(success=not success)  # the first word stands
    bench.run(0.1)
    values = bench.loop.record.to_dict()
    assert (values["outcome"], values["success"], values["outcome_by"]) == (status, success, "operator")
    assert values["reason"] == f"{status}, says the operator"


def test_a_robot_that_stops_by_itself_is_not_followed_any_more():
    bench = Bench(end_on_hold=True)
    bench.run(0.5)
    bench.robot.mode = RobotMode.STOPPED
    bench.run(0.1)
    assert bench.loop.record.status == "held"
    assert "by itself" in bench.loop.record.reason


def test_a_stop_that_is_not_acknowledged_is_a_fault_and_never_called_a_stop():
    bench = Bench()
    bench.run(0.5)

    def silent():
        raise MemrtError("robot command `stop`", expected="an answer", found="none", fix="use the emergency stop")

    bench.robot.stop = silent
    bench.robot.camera_works = False
    bench.run(1)
    assert bench.loop.record.status == "fault"
    assert "emergency stop" in bench.loop.record.reason


def test_threads_close_the_task_on_the_real_clock():
    robot = KinematicRobot(MonotonicClock(), swings=2)
    ticks = []
    loop = RealtimeLoop(robot, SwingHighLevel(), SwingLowLevel(), "swing", settings(camera_lost_ns=10 * NS_PER_S))
    record = loop.run(duration_s=60, on_tick=lambda running: ticks.append(running.status().mode))
    assert record.status == "success", record.reason
    assert RobotMode.RUNNING in ticks
    assert robot.mode is RobotMode.STOPPED


def test_a_policy_that_raises_stops_the_robot_and_the_error_reaches_the_caller():
    robot, low_level = KinematicRobot(MonotonicClock(), swings=2), SwingLowLevel()

    def broken(*arguments, **more):
        raise MemrtError("engine", expected="numbers", found="none", fix="export again")

    low_level.act = broken
    loop = RealtimeLoop(robot, SwingHighLevel(), low_level, "swing", settings())
    with pytest.raises(MemrtError, match="export again"):
        loop.run(duration_s=60)
    assert robot.mode is RobotMode.STOPPED
    assert loop.record.status == "fault"


def test_warming_up_calls_both_policies_and_moves_nothing():
    clock = VirtualClock()
    robot, high_level, low_level = KinematicRobot(clock), SwingHighLevel(), SwingLowLevel()
    warm_up(high_level, low_level, "swing", robot.observe(), settings())
    assert high_level.calls == len(low_level.subgoals) == 2
    assert (robot.mode, robot.sent) == (RobotMode.DISARMED, [])
