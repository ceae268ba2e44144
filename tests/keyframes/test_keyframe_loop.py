"""The loop closed over a keyframe memory, in lock-step and step by step in real time on a virtual clock."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from kinematic import DT_NS, LEFT, REACHED, RIGHT, KinematicRobot, SwingLowLevel
from scripted_vlm import TWO_VIEWS, Asked, ScriptedVlm, reply

from memrt.runtime.clock import NS_PER_MS, NS_PER_S, VirtualClock
from memrt.runtime.config import load_policy
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.realtime import RealtimeLoop
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.step_frames import StepFrames
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.types import Frame, RobotMode

GOAL = "swing"
LEVELS_PER_RAD = 100.0


def grey(q0: float) -> int:
    return int(128 + LEVELS_PER_RAD * q0)


def shown_recently(asked: Asked) -> int:
    return len(re.findall(r"[0-9]: <image>", asked.user))


class SwingVlm(ScriptedVlm):
    """Sees the first joint as a grey; goes to the other side than the one reached last, which only keyframes show."""

    def __init__(self) -> None:
        super().__init__(self._decide)

    def _decide(self, asked: Asked) -> str:
        reached = [side for side in map(self._side, asked.greys) if side]
        recent = shown_recently(asked)
        positions = [number for number in range(1, recent + 1) if self._side(asked.greys[number - 1 - recent])]
        return reply("swing right" if reached and reached[-1] == "left" else "swing left", *positions)

    @staticmethod
    def _side(level: int) -> str:
        near = REACHED * LEVELS_PER_RAD + 2  # grey levels, and a little for rounding and JPEG
        if abs(level - grey(LEFT)) < near:
            return "left"
        return "right" if abs(level - grey(RIGHT)) < near else ""


def policy_config():
    """Two recent frames, 0.25 s apart: between the sides the VLM sees neither of them but in keyframes."""
    policy = load_policy(TWO_VIEWS)
    keyframes = msgspec.structs.replace(
        policy.memory.keyframes, views=("front",), recent=2, merge_distance=9, recent_text=" {number}: <image>"
    )
    high_level = msgspec.structs.replace(policy.high_level, image_size=(4, 4), every_steps=10)
    return msgspec.structs.replace(
        policy, memory=msgspec.structs.replace(policy.memory, keyframes=keyframes), high_level=high_level
    )


class Robot(KinematicRobot):
    """Counts how often its cameras are looked at."""

    looks = 0

    def observe(self):
        self.looks += 1
        return super().observe()


def run_episode(policy: HighLevelPolicy, swings: int = 5, **changes):
    values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 10, "cap_steps": 400}
    robot = Robot(VirtualClock(NS_PER_S), swings, refusals_raise=True)
    record = run_lockstep(robot, policy, SwingLowLevel(), GOAL, LoopSettings(**(values | changes)))
    return record, robot


def test_what_was_voted_for_is_shown_again_and_closes_the_loop():
    vlm = SwingVlm()
    policy = HighLevelPolicy.of(policy_config(), vlm)
    record, robot = run_episode(policy)
    assert (record.status, record.counts["held replies"]) == ("success", 0)
    assert [text for _, text in record.subgoals] == ["swing left", "swing right"] * 2 + ["swing left"]
    shown: dict[int, int] = {}  # content → grey, when it was first seen
    between = 0
    for asked in vlm.asked:
        keyframes = len(asked.greys) - shown_recently(asked)
        for content, level in zip(asked.contents, asked.greys, strict=True):
            assert abs(shown.setdefault(content, level) - level) <= 2
        assert all(vlm._side(level) for level in asked.greys[:keyframes])
        between += keyframes > 0 and not any(map(vlm._side, asked.greys[keyframes:]))
    assert between > 2  # without keyframes the VLM would not have known where to go
    assert len(vlm.encoded) == len(set(vlm.encoded)) == len(shown)  # each frame once
    # Looked at are the calls of both policies and the grid that the next question looks back at, nothing more.
    wanted = {s for s in range(record.steps) if s % 8 == 0 or s % 5 == 0}
    assert robot.looks == len(wanted)


def test_the_next_episode_starts_empty_and_the_same_episode_repeats():
    vlm = SwingVlm()
    policy = HighLevelPolicy.of(policy_config(), vlm)
    first, _ = run_episode(policy)
    asked = len(vlm.asked)
    again, _ = run_episode(policy)
    assert len(vlm.asked[asked].greys) == 1
    assert again.actions_sha256 == first.actions_sha256


def test_calls_wait_for_the_grid_in_lock_step():
    """Every 8 steps is not on the grid of 5: calls fall on 0, 10, 20, ..."""
    vlm = SwingVlm()
    policy = HighLevelPolicy.of(policy_config(), vlm)
    record, _ = run_episode(policy, every_steps=8)
    assert len(vlm.asked) == -(-record.steps // 10)


def test_a_high_level_that_does_not_look_back_keeps_no_frames():
    policy = HighLevelPolicy.of(load_policy("am_simple"), ScriptedVlm(lambda asked: "swing left"))
    record, robot = run_episode(policy, swings=1, every_steps=16)
    assert record.status == "success"
    assert robot.looks == len({s for s in range(record.steps) if s % 8 == 0 or s % 16 == 0})


def test_frames_of_steps_are_bounded():
    policy = HighLevelPolicy.of(load_policy(TWO_VIEWS), ScriptedVlm(lambda asked: reply("wait")))
    frames = StepFrames(policy, DT_NS, 20)
    state, call_ns, kept = replace(policy.initial(), start_ns=0), 0, []
    for step in range(0, 2_000):
        t_ns = step * DT_NS
        if t_ns == call_ns:
            looks_at = policy.looks_at_ns(state, t_ns)
            assert all(frames.at("front", wanted).t_ns == wanted for wanted in looks_at[:-1])
        if frames.wants(state, t_ns, call_ns):
            image = np.zeros((2, 2, 3), np.uint8)
            frames.add(Seen({"front": Frame("front", step, t_ns, image)}), state, call_ns)
        if t_ns == call_ns:
            call_ns = frames.next_call_ns(state, t_ns)
        kept.append(len(frames._kept))
    assert max(kept) == 8  # never more than one call shows
    assert frames.at("front", -1) is None


class Seen:
    def __init__(self, frames):
        self.frames = frames


class Past:
    """The last two seconds of a robot's only camera."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque(maxlen=40)

    def at(self, camera: str, t_ns: int):
        found = next((frame for frame in reversed(self.frames) if frame.t_ns <= t_ns), None)
        return None if found is None else Lent(found)


class Lent:
    def __init__(self, frame: Frame) -> None:
        self.image, self.index, self.t_ns = frame.image, frame.index, frame.t_ns

    def release(self) -> None:
        pass


class Filmed(KinematicRobot):
    """Takes a picture every 50 ms, late by up to 7 ms as cameras are, and remembers them."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock, swings=1000)
        self.past = Past()

    def observe(self):
        now = super().observe()
        newest = self.past.frames[-1] if self.past.frames else None
        if newest is None or now.t_ns - newest.t_ns >= DT_NS + newest.index % 3 * 3 * NS_PER_MS:
            self.past.frames.append(now.frames["front"])
            newest = now.frames["front"]
        return replace(now, t_ns=newest.t_ns, frames={"front": newest}, history=self.past)


class Bench:
    """Workers and supervisor stepped by the test, 10 ms of virtual time per round."""

    def __init__(self) -> None:
        self.clock = VirtualClock(NS_PER_S)
        self.robot, self.vlm = Filmed(self.clock), SwingVlm()
        self.policy = HighLevelPolicy.of(policy_config(), self.vlm)
        settings = LoopSettings(dt_ns=DT_NS, horizon=16, execute=8, every_steps=20, cameras=("front",))
        self.loop = RealtimeLoop(self.robot, self.policy, SwingLowLevel(), GOAL, settings, clock=self.clock)
        self.loop.start(threads=False)
        self.called_at: list[int] = []
        self._due = {"high": 0, "low": 0}

    def run(self, seconds: float) -> None:
        end_ns = self.clock.now_ns() + round(seconds * NS_PER_S)
        while self.clock.now_ns() < end_ns:
            self.robot.observe()
            calls = len(self.vlm.asked)
            now_ns = self.clock.now_ns()
            if now_ns >= self._due["high"]:
                self._due["high"] = self.loop.high_level_worker.step()
            self.called_at += [now_ns] * (len(self.vlm.asked) - calls)
            if self.clock.now_ns() >= self._due["low"]:
                self._due["low"] = self.loop.low_level_worker.step()
            self.loop.tick()
            self.clock.advance(10 * NS_PER_MS)

    def wake(self) -> None:
        """What the workers' events do in a thread: decide again now."""
        self._due = {"high": 0, "low": 0}

    @property
    def counts(self):
        return self.loop.record.counts

    @property
    def memory(self):
        return self.loop.status().memory


def test_real_time_calls_fall_on_the_grid_and_show_its_frames():
    bench = Bench()
    bench.run(12)
    start_ns = bench.memory.start_ns
    assert len(bench.called_at) == pytest.approx(12, abs=1)
    for called_ns in bench.called_at[1:]:
        assert (called_ns - start_ns) % (5 * DT_NS) <= DT_NS + 20 * NS_PER_MS  # the first frame at or after the moment
    assert bench.counts["recent frames missing"] == 0
    assert bench.counts["cancelled calls"] == bench.counts["calls past their deadline"] == 0
    assert len(bench.vlm.encoded) == len(set(bench.vlm.encoded))
    assert len(bench.policy._images.store) > 3


def test_a_call_is_read_ahead_up_to_its_newest_frame():
    bench = Bench()
    bench.run(12)
    assert len(bench.vlm.asked) > 10
    for asked in bench.vlm.asked[1:]:  # before the first call nothing is known
        assert asked.contents[:-1] in bench.vlm.ahead
    assert bench.loop.record.latencies["high level: read ahead"].summary().count == len(bench.vlm.ahead)


def test_reading_ahead_ends_when_the_call_is_due():
    bench = Bench()
    bench.run(3.2)
    asked, called_at = [], len(bench.called_at)

    def slow(system, user, images, *, cancelled):
        while not cancelled():
            asked.append(bench.clock.now_ns())
            bench.clock.advance(20 * NS_PER_MS)
        raise Cancelled

    bench.vlm.read_ahead = slow
    bench.run(2)
    assert asked
    assert bench.called_at[called_at] - asked[-1] <= 2 * DT_NS
    assert bench.counts["cancelled calls"] == 0  # nobody had asked yet


def test_a_changed_goal_cancels_the_call_and_is_asked_about_at_once():
    bench = Bench()
    bench.run(3.2)
    before = bench.memory

    def change() -> None:
        bench.vlm.while_answering = lambda: None
        bench.loop.set_goal("swing wider")
        bench.wake()

    bench.vlm.while_answering = change
    calls = len(bench.vlm.asked)
    bench.run(1.1)
    assert bench.counts["cancelled calls"] == 1
    assert "swing wider" not in bench.vlm.asked[calls].user
    assert "swing wider" in bench.vlm.asked[calls + 1].user
    assert bench.called_at[calls + 1] - bench.called_at[calls] <= 6 * DT_NS  # the next moment of the grid, not a second
    assert bench.memory.goal == bench.loop.status().goal == "swing wider"
    assert before.votes.held()[0] in bench.memory.votes.held()  # `on_new_goal: keep`
    with pytest.raises(Exception, match="goal"):
        bench.loop.set_goal(" ")


def test_a_hold_cancels_the_call_and_changes_no_memory():
    bench = Bench()
    bench.run(3.2)
    memory, kept = bench.memory, len(bench.policy._images.store)

    def stop() -> None:
        bench.vlm.while_answering = lambda: None
        bench.loop.stop()

    bench.vlm.while_answering = stop
    bench.run(1.1)
    assert bench.robot.mode is RobotMode.STOPPED
    assert bench.counts["cancelled calls"] == 1
    assert (bench.memory, len(bench.policy._images.store)) == (memory, kept)
    calls = len(bench.vlm.asked)
    bench.run(2)
    assert len(bench.vlm.asked) == calls  # nothing is asked while the robot is held
    assert bench.loop.resume()
    bench.wake()
    bench.run(0.5)
    assert len(bench.vlm.asked) == calls + 1
    assert memory.votes.held()[0] in bench.memory.votes.held()


def test_an_answer_that_came_too_late_to_be_cancelled_is_remembered_but_not_followed():
    """The store has followed it already, so the memory must; the subgoal answers the old goal, and is not taken."""
    bench = Bench()
    bench.run(3.2)
    rule, subgoal = bench.vlm.rule, bench.loop.status().subgoal

    def late(asked: Asked) -> str:
        bench.vlm.rule = rule
        bench.loop.set_goal("swing wider")
        return reply("jump", 2)

    bench.vlm.rule = late
    before = bench.memory
    while bench.vlm.rule is late:
        bench.run(0.01)
    assert bench.loop.status().subgoal == subgoal
    assert bench.memory.votes != before.votes
    assert len(bench.policy._images.store) == len(bench.memory.votes.held())


def test_a_call_that_its_deadline_overtook_is_counted():
    bench = Bench()
    bench.run(2.2)
    bench.vlm.while_answering = lambda: (bench.clock.advance(4 * NS_PER_S), bench.loop.tick())
    bench.run(2)
    assert bench.counts["calls past their deadline"] == 1
    assert bench.counts["cancelled calls"] == 1  # the supervisor held the robot meanwhile
    assert "high level has not answered" in bench.loop.status().hold_reason
