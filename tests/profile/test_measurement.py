"""The windows, measured on a kinematic robot whose task ends every second or so."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from kinematic import KinematicRobot, SwingHighLevel, SwingLowLevel

from memrt.runtime.clock import NS_PER_S, MonotonicClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.measurement import Subject, measure
from memrt.runtime.profile.protocol import MIN_REST, OFF, ON, ProfileProtocol

PROTOCOL = ProfileProtocol(seconds=0.6, warm_up_calls=2, settle_s=0.15)
# Patient: a busy test machine must not look like a lost camera.
SETTINGS = LoopSettings(
    dt_ns=50_000_000, horizon=16, execute=4, every_steps=4, cameras=("front",), seed=7, camera_lost_ns=10 * NS_PER_S
)


@dataclass
class Timed:
    """A reply with a stage and a token count, as a VLM's."""

    state: object
    subgoal: str
    held: bool = False
    decode_ns: int = 1_000_000
    new_tokens: int = 5


class TimedHighLevel(SwingHighLevel):
    def call(self, goal, observation, state, *, cancelled=None):
        reply = super().call(goal, observation, state, cancelled=cancelled)
        return Timed(reply.state, reply.subgoal)


class Robots:
    """Opens a robot per episode; `broken` ones cannot be armed."""

    def __init__(self, swings: int = 100, broken: bool = False) -> None:
        self.swings, self.broken, self.seeds = swings, broken, []

    @contextmanager
    def __call__(self, seed):
        self.seeds.append(seed)
        robot = KinematicRobot(MonotonicClock(), swings=self.swings)
        if self.broken:
            robot.arm = robot.close
        yield robot, "swing"


def subject(robots: Robots) -> Subject:
    return Subject(high_level=TimedHighLevel(), low_level=SwingLowLevel(), settings=SETTINGS, open_robot=robots)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def windows(told):
    return measure(subject(Robots()), PROTOCOL, told.append, lambda: told.append("warm"))


def test_conditions_alternate_and_each_is_measured_twice(windows, told):
    assert [(window.condition, window.repetition) for window in windows] == [(ON, 1), (OFF, 1), (ON, 2), (OFF, 2)]
    assert told.count("warm") == sum(len(window.episodes) for window in windows)
    assert sum(line.startswith("window") for line in told) == 4


def test_every_window_is_filled_without_its_settling(windows):
    """A busy computer may need a second episode for it."""
    for window in windows:
        assert (1 - MIN_REST) * PROTOCOL.seconds <= window.duration_ns / NS_PER_S < PROTOCOL.seconds + 2
        names = [event.name for event in window.trace.events() if event.track == "profile"]
        assert names == ["settling", "measured"] * len(window.episodes)


def test_the_high_level_is_measured_only_where_it_thinks(windows):
    on, off = windows[0], windows[1]
    assert {"high level", "high level: decode", "low level", "observation to chunk"} <= set(on.latencies)
    assert on.amounts["high level: new tokens"].max == 5
    assert on.silence_ns > 0
    assert not [stage for stage in off.latencies if stage.startswith("high level")]
    assert off.latencies["low level"].count > 0
    assert off.counts["subgoals"] == 0  # the fixed one was named before the measurement began
    assert on.first_subgoal == off.first_subgoal == "swing left"


def test_a_task_that_ends_early_is_followed_by_the_next_seed():
    robots = Robots(swings=1)
    windows = measure(
        subject(robots), ProfileProtocol(seconds=1.2, warm_up_calls=1, settle_s=0.05), lambda _: None, int
    )
    first = windows[0]
    assert [episode.seed for episode in first.episodes] == list(range(7, 7 + len(first.episodes)))
    assert first.episodes[0].ended == "success"
    assert sum(e.seconds for e in first.episodes) * NS_PER_S == pytest.approx(first.duration_ns, abs=10)


def test_a_robot_that_keeps_stopping_is_refused_with_its_reason():
    robots = Robots(broken=True)
    with pytest.raises(MemrtError, match="went to disarmed by itself") as refusal:
        measure(subject(robots), PROTOCOL, lambda _: None, int)
    assert "memrt run" in str(refusal.value)
    assert robots.seeds == [7, 8, 9]
