"""An episode whose observations come from a client calls the policies as lock-step does."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))
from kinematic import DT_NS, KinematicRobot, SwingHighLevel, SwingLowLevel
from served import POLICY, SETTINGS, EchoingLowLevel, picture, robomme_request, vla_eval_observation

from memrt.robot_io.serve.arrays import pack
from memrt.robot_io.serve.episode import Episode, PolicyHost
from memrt.robot_io.serve.keys import load_keys
from memrt.robot_io.serve.serving import Serving
from memrt.runtime.clock import VirtualClock
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import Observation


@dataclass(frozen=True)
class Reply:
    state: int
    subgoal: str
    held: bool = False


@dataclass
class LookingBack:
    """Looks at every fifth control step of the last twenty, and wants its calls on that grid."""

    saw: list[list[tuple[str, int]]] = field(default_factory=list)

    def initial(self) -> int:
        return 0

    def next_call_ns(self, state: int, t_ns: int) -> int:
        return -(-t_ns // (5 * DT_NS)) * 5 * DT_NS

    def looks_at_ns(self, state: int, t_ns: int) -> tuple[int, ...]:
        newest = t_ns // DT_NS
        return tuple(step * DT_NS for step in range(newest % 5, newest + 1, 5))[-4:]

    def call(self, goal: str, observation: Observation, state: int, **_: object) -> Reply:
        found = []
        for t_ns in self.looks_at_ns(state, observation.t_ns):
            for camera in sorted(observation.frames):
                frame = observation.history.at(camera, t_ns)
                found.append((camera, frame.t_ns // DT_NS if frame else -1))
        self.saw.append(found)
        return Reply(state + 1, "swing left")


def settings(**changes):
    values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 17, "cap_steps": 90}
    return LoopSettings(**(values | changes))


@pytest.mark.parametrize("every", [16, 17, 20])
def test_a_client_that_shows_every_step_gets_what_lockstep_gives(every):
    robot, high_level, low_level = KinematicRobot(VirtualClock(), 3), SwingHighLevel(), SwingLowLevel()
    seen = []

    class Watched:
        def __getattr__(self, name):
            return getattr(robot, name)

        def advance(self, steps):
            seen.append(robot.observe())
            robot.advance(steps)

    record = run_lockstep(Watched(), high_level, low_level, "swing", settings(every_steps=every))
    again_high, again_low = SwingHighLevel(), SwingLowLevel()
    episode = Episode(PolicyHost(again_high, again_low, settings(every_steps=every)))
    for step in range(record.steps):
        observation = seen[step]
        episode.look(observation, "swing")
        if step % 8 == 0:
            episode.act(observation)
        episode.step += 1
    assert again_high.calls == high_level.calls
    assert [subgoal.text for subgoal in again_low.subgoals] == [subgoal.text for subgoal in low_level.subgoals]


def test_a_policy_that_looks_back_sees_the_frames_that_it_sees_in_lockstep():
    robot = KinematicRobot(VirtualClock(), 100)
    lockstep = LookingBack()
    run_lockstep(robot, lockstep, SwingLowLevel(), "swing", settings())
    served = LookingBack()
    both = settings(cameras=("front", "wrist"))
    conversation = Serving(POLICY, served, EchoingLowLevel(), both, load_keys("vla-eval")).server().converse()
    for seq in range(90):
        message = {"type": "observation", "payload": vla_eval_observation(), "seq": seq, "timestamp": 0.0}
        conversation.answer(conversation.read(pack(message, text_keys=True)))
    steps = [[step for camera, step in call if camera == "front"] for call in served.saw]
    assert steps == [[step for _, step in call] for call in lockstep.saw]
    assert steps[-1] == [65, 70, 75, 80]


def test_robommes_buffers_show_the_frames_between_two_requests():
    high_level = LookingBack()
    conversation = Serving(POLICY, high_level, EchoingLowLevel(), SETTINGS, load_keys("robomme")).server().converse()
    for count in (3, 16, 16):  # a demonstration of two frames and the first observation
        images, state = np.stack([picture(1)[None]] * count), np.zeros((count, 8), np.float32)
        conversation.answer({"add_buffer": True, "images": images, "state": state, "exec_start_idx": count - 1})
        conversation.answer(conversation.read(pack(robomme_request())))
    fronts = [[step for camera, step in call if camera == "front"] for call in high_level.saw]
    # Kept were 5, 10 and 15 for a call at 20, each request's own (16), and all from 20 on until the call, at 32.
    assert fronts == [[0], [16, 22, 27, 32]]
