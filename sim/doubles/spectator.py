"""The process that watches the double's scene: pictures at 20 Hz, and the task's rules.

It holds our own simulator's scene, whose physics stand still: positions and speeds come from the double through a
shared-memory ring, one "frame" of bytes each. So the cameras show what policies were trained on, down to the shapes of
the arm, and a slow picture never holds up the robot's millisecond.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.robot_io.computer import outrank
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.sim.env import CAMERAS, TabletopEnv
from memrt.sim.scene import IMAGE_SIZE

FRAME_PERIOD_NS = 50 * NS_PER_MS  # both cameras and one look at the rules at 20 Hz, as in the simulator
RING_SLOTS = 112  # as the simulator's (sim/driver.py): the newest 5.4 s, for policies that look back
POSE_SLOTS = 8
NICE = -10  # where permitted: behind the double's own -20, before the work of the computer that looks


@dataclass(frozen=True, slots=True)
class Watched:
    """What the spectator tells the double: how the task stands, and how many frames were drawn, how many late.

    `segment` is the index of the task's running step: picks and places that are done, in PickXtimes.
    """

    status: str
    reason: str
    segment: int
    frames: int
    late: int


class PoseRing:
    """The scene's `qpos` and `qvel` through shared memory. One writer, one reader."""

    def __init__(self, ring: FrameRing) -> None:
        self._ring = ring

    @classmethod
    def create(cls, name: str, model: mujoco.MjModel) -> PoseRing:
        """Make the ring for scenes of this model."""
        return cls(FrameRing.create(name, POSE_SLOTS, 1, 8 * (model.nq + model.nv), 1))

    @classmethod
    def open(cls, name: str) -> PoseRing:
        """Open it as the reader."""
        return cls(FrameRing.open(name))

    def write(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64], index: int, t_ns: int) -> None:
        """Publish the pose of time `t_ns`."""
        self._ring.write(np.concatenate([qpos, qvel]).view(np.uint8).reshape(self._ring.shape), index, t_ns)

    def newest(self, data: mujoco.MjData) -> int:
        """Copy the newest pose into `data`; its time, or 0 before the first."""
        newest = self._ring.latest_copy()
        if newest is None:
            return 0
        values = newest[0].reshape(-1).view(np.float64)
        data.qpos[:], data.qvel[:] = values[: len(data.qpos)], values[len(data.qpos) :]
        return int(newest[2])

    def close(self) -> None:
        """Let the ring go; its writer removes it."""
        self._ring.close()


def watch(task: str, seed: int, pose_ring: str, rings: Mapping[str, str], tell: Connection, end: Event) -> None:
    """Draw and judge until `end` is set. Sends a `Watched` with every step that is done and once per second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the double too, which ends this process
    outrank(NICE)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa draws in this thread: a third less work than handing it around
    written = {camera: FrameRing.create(name, RING_SLOTS, IMAGE_SIZE, IMAGE_SIZE, 3) for camera, name in rings.items()}
    poses = PoseRing.open(pose_ring)
    try:
        with TabletopEnv(task, seed) as env:
            _watch(env, poses, written, tell, end)
    finally:
        poses.close()
        for ring in written.values():
            ring.close()


def _watch(env: TabletopEnv, poses: PoseRing, rings: Mapping[str, FrameRing], tell: Connection, end: Event) -> None:
    scene = env.scene
    frames = late = told = drawn_ns = 0
    status = ("", 0)
    next_ns, double = time.monotonic_ns(), os.getppid()
    while os.getppid() == double and not end.wait(max(0, next_ns - time.monotonic_ns()) / NS_PER_S):
        t_ns = poses.newest(scene.data)
        if t_ns > drawn_ns:  # a picture of what was drawn already would be a frozen camera's
            drawn_ns = t_ns
            mujoco.mj_forward(scene.model, scene.data)
            if not env.outcome.ended:
                env.control_step()
            frames += 1
            for camera, ring in rings.items():
                ring.write(np.ascontiguousarray(env.render(camera)), frames, t_ns)
            if (env.outcome.status, env.task.segment) != status or frames - told >= NS_PER_S // FRAME_PERIOD_NS:
                status, told = (env.outcome.status, env.task.segment), frames
                tell.send(Watched(status[0], env.outcome.reason, status[1], frames, late))
        now_ns = time.monotonic_ns()
        late += now_ns > next_ns + FRAME_PERIOD_NS
        next_ns = max(next_ns + FRAME_PERIOD_NS, now_ns)


def ring_names(prefix: str) -> dict[str, str]:
    """The shared-memory ring of each camera."""
    return {camera: f"{prefix}-{camera}" for camera in CAMERAS}
