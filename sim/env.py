"""The simulated robot: MuJoCo physics behind the same `Robot` protocol as a real arm.

In lock-step (`send` and `advance`) the seam library turns chunks into joint commands at exact physics times, so that
a policy learns the dynamics it will meet on a robot. `physics_step` is the single step that a real-time node drives.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.robot_io.action_spaces import ActionSpaces, RefusedChunkError
from memrt.runtime._core import Seam, SeamLimits
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ActionChunk, Frame, Observation, RobotMode
from memrt.sim import fr3
from memrt.sim.render import SceneRenderer
from memrt.sim.scene import PHYSICS_DT_NS, Scene
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import Difficulty, Outcome, SubgoalStyle

CONTROL_HZ = 20.0
CONTROL_DT_NS = round(NS_PER_S / CONTROL_HZ)
PHYSICS_STEPS_PER_CONTROL = CONTROL_DT_NS // PHYSICS_DT_NS
CAMERAS = ("front", "wrist")
START_JITTER = 0.03  # spread of the arm's start posture [rad]
GRIPPER_TRAVEL = fr3.HAND_SPEED / fr3.HAND_OPEN_WIDTH * PHYSICS_DT_NS * 1e-9  # per physics step, of the opening


class TabletopEnv:
    """One seeded episode of a memory task: the same seed and chunks give the same states, bit for bit.

    A control step of `advance` is `1 / control_hz` long, rounded to physics steps: a policy's own rate. Tasks count
    control steps.
    """

    def __init__(
        self,
        task: str,
        seed: int,
        difficulty: Difficulty | None = None,
        speed: float = 1.0,
        control_hz: float = CONTROL_HZ,
    ) -> None:
        self.task = make_task(task, seed, difficulty)
        self.scene = Scene(self.task.layout)
        self.step_index = 0
        self._mode = RobotMode.DISARMED
        self._renderer: SceneRenderer | None = None
        self._rendered: dict[str, Frame] = {}
        self._physics_steps = 0
        self._steps_per_control = max(1, round(NS_PER_S / control_hz / PHYSICS_DT_NS))
        self._grip = 1.0
        limits = SeamLimits.fr3()
        self._seam = Seam(limits, speed=speed)
        self._spaces = ActionSpaces(limits, speed=speed, arm=franka_with_hand(), home=np.array(fr3.HOME_Q))
        rng = np.random.Generator(np.random.PCG64([seed, 1]))
        start = np.array(fr3.HOME_Q) + rng.uniform(-START_JITTER, START_JITTER, 7)
        data = self.scene.data
        data.qpos[self.scene.q_index] = start
        data.qpos[self.scene.finger_index] = fr3.HAND_OPEN_WIDTH / 2
        mujoco.mj_forward(self.scene.model, data)
        self.task.begin(self.scene)
        self._seam.reset(start, 1.0, 0)

    @property
    def goal(self) -> str:
        """The task's instruction."""
        return self.task.goal

    @property
    def outcome(self) -> Outcome:
        """How the episode stands."""
        return self.task.outcome

    @property
    def mode(self) -> RobotMode:
        """Whether chunks are followed."""
        return self._mode

    @property
    def fault_reason(self) -> str:
        """Why the robot is in FAULT; the simulator never is."""
        return ""

    @property
    def t_ns(self) -> int:
        """Simulated time since the episode began."""
        return self._physics_steps * PHYSICS_DT_NS

    def oracle_subgoal(self, style: SubgoalStyle) -> str:
        """The running subgoal, from the simulator's own knowledge."""
        return self.task.subgoal(self.scene, style)

    def proprioception(self) -> NDArray[np.float64]:
        """Measured joint angles [rad] and gripper opening (0..1), float64 [8]."""
        qpos = self.scene.data.qpos
        opening = qpos[self.scene.finger_index].sum() / fr3.HAND_OPEN_WIDTH
        return np.append(qpos[self.scene.q_index], np.clip(opening, 0.0, 1.0))

    def render(self, camera: str) -> NDArray[np.uint8]:
        """The camera's present view, uint8 [256, 256, 3]."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.scene)
        return self._renderer.render(camera)

    def observe(self) -> Observation:
        """Proprioception and both cameras, now. Views are rendered once per control step."""
        for camera in CAMERAS:
            frame = self._rendered.get(camera)
            if frame is None or frame.t_ns != self.t_ns:
                self._rendered[camera] = Frame(camera, self.step_index, self.t_ns, self.render(camera))
        return Observation(self.t_ns, self.proprioception(), dict(self._rendered))

    def send(self, chunk: ActionChunk) -> None:
        """Follow `chunk` from its `t0_ns` on. Ignored unless running; one that cannot be followed raises ValueError."""
        if self._mode is not RobotMode.RUNNING:
            return
        actions = np.ascontiguousarray(chunk.actions, dtype=np.float64)
        targets = self._spaces.targets(actions, chunk.space, chunk.t0_ns, chunk.dt_ns, self._seam.planned)
        refusal = self._seam.push(targets, chunk.t0_ns, chunk.dt_ns)
        if refusal:
            raise RefusedChunkError(refusal)

    def advance(self, steps: int) -> None:
        """Let control steps pass; stops early when the episode has ended."""
        for _ in range(steps):
            if self.outcome.ended:
                return
            for _ in range(self._steps_per_control):
                self.physics_step(*self._seam.step(self.t_ns + PHYSICS_DT_NS))
            self.control_step()

    def physics_step(self, q: NDArray[np.float64], dq: NDArray[np.float64], gripper: float) -> None:
        """One physics step (2 ms) with joint commands [rad], [rad/s] and a gripper opening command (0..1)."""
        scene = self.scene
        self._grip += min(max(gripper - self._grip, -GRIPPER_TRAVEL), GRIPPER_TRAVEL)
        ctrl = scene.data.ctrl
        ctrl[scene.ctrl_q] = q
        ctrl[scene.ctrl_dq] = dq
        ctrl[scene.ctrl_grip] = self._grip * fr3.HAND_OPEN_WIDTH / 2
        mujoco.mj_step(scene.model, scene.data)
        self._physics_steps += 1

    def control_step(self) -> None:
        """Count one control step and let the task look at the physics."""
        self.step_index += 1
        self.task.update(self.scene)

    def arm(self) -> None:
        """Begin to follow chunks."""
        self._mode = RobotMode.RUNNING

    def stop(self) -> None:
        """Decelerate and hold; chunks are ignored until `resume`."""
        self._seam.stop(self.t_ns)
        self._mode = RobotMode.STOPPED

    def resume(self) -> None:
        """Follow chunks again after a stop."""
        if self._mode is RobotMode.STOPPED:
            self._seam.resume()
            self._mode = RobotMode.RUNNING

    def home(self) -> None:
        """Move to the start posture with the gripper open."""
        refusal = self._seam.push(np.array([[*fr3.HOME_Q, 1.0]]), self.t_ns + 2_000_000_000, CONTROL_DT_NS)
        if refusal:
            raise ValueError(f"moving home refused: {refusal}")
        self.advance(60)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __enter__(self) -> TabletopEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
