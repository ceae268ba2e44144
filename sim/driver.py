"""The simulator as a robot node's driver: physics and rendering in real time, commands from the C++ control loop."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions
from memrt.robot_io.seam_driver import SeamDriver
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.sim.env import CAMERAS, PHYSICS_STEPS_PER_CONTROL, TabletopEnv
from memrt.sim.render import SceneRenderer
from memrt.sim.scene import IMAGE_SIZE, PHYSICS_DT_NS

FRAME_PERIOD_NS = 50 * NS_PER_MS  # both cameras at 20 Hz
# MemER looks back over 36 raw ticks of 15 Hz while its answer may take 3 s (SPECS 1.2): 5.4 s of 20 Hz. Beside them one
# slot is being written and a few are under readers' eyes. 22 MB per camera.
RING_SLOTS = 112
CATCH_UP_NS = 50 * NS_PER_MS  # physics that falls further behind than this lets time slip, and counts it


@contextmanager
def open_driver(robot: RobotConfig, options: DriverOptions) -> Iterator[SimDriver]:
    """One seeded episode of `options.task`. Raises MemrtError for an unknown task or other hardware."""
    if robot.arm.model != "fr3" or (robot.gripper is not None and robot.gripper.kind != "franka_hand"):
        raise MemrtError(
            f"the arm of robot `{robot.name}`",
            expected="`arm: {model: fr3}` with no other gripper than `franka_hand`: that is what the simulator has",
            found=f"{robot.arm.model or 'an arm of its own'}, {robot.gripper.kind if robot.gripper else 'no gripper'}",
            fix="correct the robot's YAML, or name another driver",
        )
    if isinstance(robot.cameras, dict) or not set(robot.cameras) <= set(CAMERAS):
        raise MemrtError(
            f"the cameras of robot `{robot.name}`",
            expected=f"names out of {', '.join(CAMERAS)}: the simulator draws its own pictures",
            found="settings" if isinstance(robot.cameras, dict) else ", ".join(robot.cameras),
            fix=f"write `cameras: [{', '.join(CAMERAS)}]`",
        )
    with TabletopEnv(options.task, options.seed) as env, SimDriver(env, robot, options) as driver:
        driver.start()
        yield driver


class SimDriver(SeamDriver):
    """One episode in real time. Threads: the control loop (C++, 1 kHz), physics (500 Hz), rendering (20 Hz).

    The episode begins when chunks are first followed: until then no control step counts, and nothing moves by itself.

    `_lock` guards MuJoCo's data; rendering copies it (20 us) and then draws without the lock, so that a slow picture
    never holds up physics.
    """

    def __init__(self, env: TabletopEnv, robot: RobotConfig, options: DriverOptions) -> None:
        super().__init__(robot, options, env.proprioception())
        self._env = env
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._pace(options.speed)
        self._rings = {
            camera: FrameRing.create(f"memrt-{os.getpid()}-{camera}", RING_SLOTS, IMAGE_SIZE, IMAGE_SIZE, 3)
            for camera in CAMERAS
        }
        self._t_ns = time.monotonic_ns()
        self._begun = False
        self._drawn = threading.Event()

    def start(self, timeout_s: float = 30.0) -> None:
        """Begin to run; returns when the first pictures are there. Raises MemrtError when none come."""
        self.spawn("physics", self._run_physics)
        self.spawn("rendering", self._run_rendering)
        if not self._drawn.wait(timeout_s) or self.fault:
            raise MemrtError(
                "the simulator",
                expected=f"a first picture within {timeout_s:g} s",
                found=self.fault or "none",
                fix="check software rendering: MUJOCO_GL=egl needs Debian's libegl1 and libgl1-mesa-dri",
            )

    def set_speed(self, speed: float) -> None:
        """Another factor on the limits of speed, for an arm that is braked and at rest."""
        super().set_speed(speed)
        self._pace(speed)

    @property
    def goal(self) -> str:
        """The task's instruction."""
        return self._env.goal

    @property
    def rings(self) -> Mapping[str, str]:
        """The shared-memory ring of each camera."""
        return {camera: ring.name for camera, ring in self._rings.items()}

    @property
    def outcome(self) -> tuple[Literal["running", "success", "failure"], str]:
        """The task's status and reason."""
        outcome = self._env.outcome
        return outcome.status, outcome.reason

    def proprioception(self) -> tuple[int, NDArray[np.float64]]:
        """Time of the newest physics step, and measured joints [rad] and gripper opening, float64 [8]."""
        with self._lock:
            t_ns, proprioception = self._t_ns, self._env.proprioception()
        self.check_range(proprioception)
        return t_ns, proprioception

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Control lateness and counts."""
        values, texts = super().report()
        counts = self._counts
        values |= {"frames": float(counts["frames"]), "frames late": float(counts["frames late"])}
        values["physics time slipped [ms]"] = counts["slipped_ns"] / NS_PER_MS
        return values, texts

    def follow(self) -> None:
        """Accept chunks; the first time, the episode begins."""
        self._begun = True
        super().follow()

    def fail(self, why: str) -> None:
        """Put the robot in fault, also before the first picture."""
        super().fail(why)
        self._drawn.set()

    def close(self) -> None:
        """End the threads and remove the rings."""
        super().close()
        for ring in self._rings.values():
            ring.close()

    def _pace(self, speed: float) -> None:
        # A slow run is as many control steps long as a fast one: the episode's cap counts those.
        self._physics_steps_per_control = round(PHYSICS_STEPS_PER_CONTROL / speed)

    def _run_physics(self) -> None:
        env, steps = self._env, 0
        with self._lock:
            self._t_ns = time.monotonic_ns()
        while not self.quit.is_set():
            behind_ns = time.monotonic_ns() - self._t_ns
            if behind_ns < PHYSICS_DT_NS:
                time.sleep((PHYSICS_DT_NS - behind_ns) / NS_PER_S)
                continue
            if behind_ns > CATCH_UP_NS:
                self._counts["slipped_ns"] += behind_ns - PHYSICS_DT_NS
                self._t_ns += behind_ns - PHYSICS_DT_NS
            q, dq, gripper, t_command_ns = self.control.command()
            with self._lock:
                self._t_ns += PHYSICS_DT_NS
                # The command is for the control loop's last tick; this step is a little earlier or later than that.
                q = q + dq * ((self._t_ns - t_command_ns) / NS_PER_S)
                env.physics_step(q, dq, gripper)
                steps += self._begun
                if self._begun and steps % self._physics_steps_per_control == 0 and not env.outcome.ended:
                    env.control_step()

    def _run_rendering(self) -> None:
        scene = self._env.scene
        data = mujoco.MjData(scene.model)
        index, next_ns = 0, time.monotonic_ns()
        with SceneRenderer(scene, data) as renderer:
            while not self.quit.wait(max(0, next_ns - time.monotonic_ns()) / NS_PER_S):
                with self._lock:
                    mujoco.mj_copyData(data, scene.model, scene.data)
                    t_ns = self._t_ns
                index += 1
                for camera, ring in self._rings.items():
                    ring.write(np.ascontiguousarray(renderer.render(camera)), index, t_ns)
                self._counts["frames"] += 1
                self._drawn.set()
                now_ns = time.monotonic_ns()
                self._counts["frames late"] += now_ns > next_ns + FRAME_PERIOD_NS
                next_ns = max(next_ns + FRAME_PERIOD_NS, now_ns)
