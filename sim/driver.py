"""The simulator as a robot node's driver: physics and rendering in real time, commands from the C++ control loop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.runtime._core import ControlLoop, FrameRing, SeamLimits
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.sim import fr3
from memrt.sim.env import CAMERAS, PHYSICS_STEPS_PER_CONTROL, TabletopEnv
from memrt.sim.render import SceneRenderer
from memrt.sim.scene import IMAGE_SIZE, PHYSICS_DT_NS

CONTROL_HZ = 1000.0  # as an FR3's own control interface
FRAME_PERIOD_NS = 50 * NS_PER_MS  # both cameras at 20 Hz
# MemER looks back over 36 raw ticks of 15 Hz while its answer may take 3 s (SPECS 1.2): 5.4 s of 20 Hz. Beside them one
# slot is being written and a few are under readers' eyes. 22 MB per camera.
RING_SLOTS = 112
CATCH_UP_NS = 50 * NS_PER_MS  # physics that falls further behind than this lets time slip, and counts it
RANGE_TOLERANCE = 0.1  # [rad] beyond the datasheet: the simulated joints yield that much under contact, no more
HOME_DT_NS = 50 * NS_PER_MS
HOME_SPEED = 0.6  # mean joint speed on the way home [rad/s]


class SimDriver:
    """One episode in real time. Threads: the control loop (C++, 1 kHz), physics (500 Hz), rendering (20 Hz).

    `_lock` guards MuJoCo's data; rendering copies it (20 us) and then draws without the lock, so that a slow picture
    never holds up physics.
    """

    def __init__(self, env: TabletopEnv, ring_prefix: str, speed: float = 1.0) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._quit = threading.Event()
        self._errors: list[str] = []
        self._counts: Counter[str] = Counter()
        self._home_until_ns = 0
        self._speed = speed
        self._range = SeamLimits.fr3(margin=-RANGE_TOLERANCE)
        # A slow run is as many control steps long as a fast one: the episode's cap counts those.
        self._physics_steps_per_control = round(PHYSICS_STEPS_PER_CONTROL / speed)
        self._rings = {
            camera: FrameRing.create(f"{ring_prefix}-{camera}", RING_SLOTS, IMAGE_SIZE, IMAGE_SIZE, 3)
            for camera in CAMERAS
        }
        proprioception = env.proprioception()
        self._control = ControlLoop(SeamLimits.fr3(), CONTROL_HZ, speed=speed)
        self._control.start(proprioception[:-1], float(proprioception[-1]))
        self._control.stop()  # nothing is followed before a client arms
        self._t_ns = time.monotonic_ns()
        self._drawn = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            for name, work in (("physics", self._run_physics), ("rendering", self._run_rendering))
        ]

    def start(self, timeout_s: float = 30.0) -> None:
        """Begin to run; returns when the first pictures are there. Raises RuntimeError when none come."""
        for thread in self._threads:
            thread.start()
        if not self._drawn.wait(timeout_s) or self.fault:
            raise RuntimeError(self.fault or f"no picture within {timeout_s:g} s")

    @property
    def name(self) -> str:
        """The robot's name."""
        return "sim"

    @property
    def goal(self) -> str:
        """The task's instruction."""
        return self._env.goal

    @property
    def rings(self) -> Mapping[str, str]:
        """The shared-memory ring of each camera."""
        return {camera: ring.name for camera, ring in self._rings.items()}

    @property
    def fault(self) -> str:
        """The first error of a thread, or ""."""
        return self._errors[0] if self._errors else ""

    @property
    def outcome(self) -> tuple[Literal["running", "success", "failure"], str]:
        """The task's status and reason."""
        outcome = self._env.outcome
        return outcome.status, outcome.reason

    def proprioception(self) -> tuple[int, NDArray[np.float64]]:
        """Time of the newest physics step, and measured joints [rad] and gripper opening, float64 [8]."""
        with self._lock:
            t_ns, proprioception = self._t_ns, self._env.proprioception()
        self._check_range(proprioception)
        return t_ns, proprioception

    def push(self, actions: NDArray[np.float64], t0_ns: int, dt_ns: int, revision: int) -> str:
        """Hand a chunk to the control loop; "" or why it refuses."""
        return self._control.push(actions, t0_ns, dt_ns, revision)

    def follow(self) -> None:
        """Accept chunks."""
        self._control.resume()

    def brake(self) -> None:
        """Decelerate inside the limits and hold."""
        self._home_until_ns = 0
        if not self._control.stop():
            self._errors.append("the control loop does not answer")

    def go_home(self) -> None:
        """Move to the start posture with the gripper open, slowly and by the same seam as every chunk."""
        now_ns = time.monotonic_ns()
        start = self.proprioception()[1]
        goal = np.array([*fr3.HOME_Q, 1.0])
        distance = float(np.abs(goal - start)[:-1].max())
        steps = max(4, int(distance / (HOME_SPEED * self._speed) * NS_PER_S / HOME_DT_NS))
        share = np.arange(1, min(steps, 128) + 1) / min(steps, 128)
        smooth = share**3 * (10 - 15 * share + 6 * share**2)  # minimum jerk, at rest at both ends
        actions = start + smooth[:, None] * (goal - start)
        actions[:, -1] = 1.0
        self._control.resume()
        refusal = self._control.push(actions, now_ns + HOME_DT_NS, HOME_DT_NS, 0)
        self._home_until_ns = 0 if refusal else now_ns + (len(actions) + 4) * HOME_DT_NS

    def at_rest(self) -> bool:
        """Whether the commands have come to rest and none are left."""
        return self._control.at_rest and time.monotonic_ns() >= self._home_until_ns

    def remaining_ns(self) -> int:
        """How much of the accepted future is left."""
        return max(0, round(self._control.stats()["remaining_s"] * NS_PER_S))

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Control lateness and counts."""
        stats = self._control.stats()
        late = stats["late_ns"]
        values = {
            "control ticks": stats["ticks"],
            "control ticks missed": stats["missed_ticks"],
            "control ticks starved": stats["starved_ticks"],
            "control lateness p50 [ms]": late["median"] / NS_PER_MS,
            "control lateness p90 [ms]": late["p90"] / NS_PER_MS,
            "control lateness p99 [ms]": late["p99"] / NS_PER_MS,
            "control lateness p99.9 [ms]": late["p999"] / NS_PER_MS,
            "control lateness max [ms]": late["max"] / NS_PER_MS,
            "chunks refused by the control loop": stats["rejected"],
            "joint targets clamped": stats["clamped"],
            "actions late": stats["late_actions"],
            "frames": self._counts["frames"],
            "frames late": self._counts["frames late"],
            "physics time slipped [ms]": self._counts["slipped_ns"] / NS_PER_MS,
        }
        return {name: float(value) for name, value in values.items()}, {}

    def close(self) -> None:
        """End the threads and remove the rings."""
        self._quit.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5.0)
        self._control.shutdown()
        for ring in self._rings.values():
            ring.close()

    def _check_range(self, proprioception: NDArray[np.float64]) -> None:
        q = proprioception[:-1]
        outside = np.flatnonzero((q < self._range.q_min) | (q > self._range.q_max))
        if len(outside) and not self._errors:
            joint = int(outside[0])
            self._errors.append(f"joint {joint + 1} was measured at {q[joint]:.3f} rad, outside its range")

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._errors.append(f"{threading.current_thread().name}: {error}")
            self._drawn.set()

    def _run_physics(self) -> None:
        env, steps = self._env, 0
        with self._lock:
            self._t_ns = time.monotonic_ns()
        while not self._quit.is_set():
            behind_ns = time.monotonic_ns() - self._t_ns
            if behind_ns < PHYSICS_DT_NS:
                time.sleep((PHYSICS_DT_NS - behind_ns) / NS_PER_S)
                continue
            if behind_ns > CATCH_UP_NS:
                self._counts["slipped_ns"] += behind_ns - PHYSICS_DT_NS
                self._t_ns += behind_ns - PHYSICS_DT_NS
            q, dq, gripper, t_command_ns = self._control.command()
            with self._lock:
                self._t_ns += PHYSICS_DT_NS
                # The command is for the control loop's last tick; this step is a little earlier or later than that.
                q = q + dq * ((self._t_ns - t_command_ns) / NS_PER_S)
                env.physics_step(q, dq, gripper)
                steps += 1
                if steps % self._physics_steps_per_control == 0 and not env.outcome.ended:
                    env.control_step()

    def _run_rendering(self) -> None:
        scene = self._env.scene
        data = mujoco.MjData(scene.model)
        index, next_ns = 0, time.monotonic_ns()
        with SceneRenderer(scene, data) as renderer:
            while not self._quit.wait(max(0, next_ns - time.monotonic_ns()) / NS_PER_S):
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
