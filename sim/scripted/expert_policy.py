"""The scripted expert as a low level for any robot: it knows the seeded table and feels with its own joints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.loop.protocols import NoiseArray
from memrt.runtime.types import (
    ARM_JOINTS,
    PROPRIOCEPTION_DIM,
    ActionChunk,
    ActionSpace,
    Observation,
    PlayingChunk,
    Subgoal,
)
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import CLOSED, OPEN, Expert
from memrt.sim.scripted.belief import Belief

HORIZON = 16


@dataclass(frozen=True, slots=True, eq=False)
class ScriptedReply:
    """A chunk, timed from its observation."""

    chunk: ActionChunk


class ExpertLowLevel:
    """Implements the loop's `LowLevel`. It goes by what is due in the task, whatever the subgoal says.

    The simulator's hand is quicker than a real one, and the expert counts on that. So the arm waits where the hand is
    to close or to open, until a measurement shows that it has.
    """

    def __init__(self, task: str, seed: int, space: ActionSpace = ActionSpace.JOINT_POSITION) -> None:
        """`space`: what its chunks say; the way is the same in all."""
        self._space = space
        self._belief = Belief(task, seed)
        self._expert = Expert(cast(TabletopEnv, self._belief), HORIZON)  # it asks for task, scene and proprioception

    def noise(self, seed: int, call_index: int) -> NoiseArray:
        """Nothing here is drawn: zeros."""
        return np.zeros((HORIZON, PROPRIOCEPTION_DIM), np.float32)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NoiseArray,
        *,
        playing: PlayingChunk | None = None,
    ) -> ScriptedReply:
        """The expert's chunk from what is believed now."""
        belief = self._belief
        belief.update(observation.proprioception, observation.t_ns)
        step = belief.task.step
        actions = self._expert.chunk(step)
        _wait_for_the_hand(actions, closes=step.skill == "pick", holding=bool(belief.scene.held))
        said = said_in(self._space, actions, observation.proprioception)
        t0_ns = observation.t_ns + CONTROL_DT_NS
        return ScriptedReply(ActionChunk(said, t0_ns, CONTROL_DT_NS, subgoal.revision, self._space))

    def close(self) -> None:
        """Nothing is held."""


def said_in(space: ActionSpace, targets: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint targets [horizon, 8], a control step apart, in the numbers of another space.

    `measured` float64 [8] is all that a policy knows of where the arm is: its velocities begin there.
    """
    if space is ActionSpace.JOINT_POSITION:
        return targets
    joints = targets[:, :ARM_JOINTS]
    if space is ActionSpace.JOINT_VELOCITY:
        own = np.diff(np.vstack([measured[:ARM_JOINTS], joints]), axis=0) * (NS_PER_S / CONTROL_DT_NS)
    else:
        own = franka_with_hand().forward(np.ascontiguousarray(joints))
    return np.column_stack([own, targets[:, ARM_JOINTS]])


def _wait_for_the_hand(actions: NDArray[np.float64], *, closes: bool, holding: bool) -> None:
    """Let the arm stay from the first action on that changes what the hand does to a thing. In place, [horizon, 8]."""
    grip = actions[:, 7]
    waits = (grip == OPEN) if holding else (grip == CLOSED) & closes
    if waits.any():
        first = int(waits.argmax())
        actions[first:] = actions[first]
