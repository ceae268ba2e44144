"""`python -m memrt.sim.doubles.franky_double`: an FR3 with a hand at our table, behind libfranka's own protocol.

Protocol, controllers, state and the arm's physics are franky-sim's (Apache-2.0); the scene is ours; this module paces
it at 1 kHz with absolute deadlines and records every command that arrives. It is permissive: commands that a real
robot would refuse are followed. `limit_oracle.py` judges the record, and `strict_double.py` refuses.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import signal
import sys
import time
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import mujoco
from franky_sim import FrankaRobotServer, SimulationServer
from franky_sim.franka_robot_protocol import (
    MoveCommandControllerMode,
    MoveCommandMotionGeneratorMode,
    UDPCommand,
)
from franky_sim.mujoco_simulator import FrankaMujocoRobot, MujocoSimulator

from memrt.robot_io.computer import outrank, session_outranks
from memrt.robot_io.parent import when_ended
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.sim import fr3
from memrt.sim.doubles.answers import Answers
from memrt.sim.doubles.command_log import MAX_MINUTES, CommandRecorder
from memrt.sim.doubles.franky_scene import furnish, matching
from memrt.sim.doubles.spectator import PoseRing, Watched, ring_names, watch
from memrt.sim.env import TabletopEnv

TICK_NS = NS_PER_MS
# A robot waits this long for the command of a cycle (FCI's documentation: 300 us from state to command). Without it a
# double that is late would compute its next state from the command of the cycle before.
ANSWER_S = 300e-6
POSE_EVERY = 10  # ticks between two poses for the spectator
CATCH_UP_NS = 20 * NS_PER_MS  # further behind than this, time slips: a robot's clock does not run double to make it up
FIRST_PICTURE_S = 60.0
# Where permitted: a robot's control unit does nothing else. Not SCHED_FIFO: a busy computer takes a tick's 0.5 ms for a
# whole one, and FIFO threads that together fill 95 % of a core are halted for 50 ms.
NICE = -20


def await_command(server: FrankaRobotServer, answer_s: float = ANSWER_S) -> None:
    """Wait until the command of this cycle is there, at most `answer_s`; not at all while nothing moves."""
    socket = getattr(server, "_FrankaServer__udp_socket")  # noqa: B009 - franky-sim's own, under its mangled name
    if server.current_motion_id and socket is not None:
        select.select([socket], [], [], answer_s)


class RecordingServer(FrankaRobotServer):
    """franky-sim's robot server, with every datagram that arrives also written to the record."""

    def __init__(self, robot: FrankaMujocoRobot, hostname_candidates: Iterable[str], recorder: CommandRecorder) -> None:
        self._recorder = recorder
        self._motions, self._modes = 0, (0, 0)
        super().__init__(robot, hostname_candidates)

    def start_motion(
        self,
        controller_mode: MoveCommandControllerMode,
        motion_generator_mode: MoveCommandMotionGeneratorMode,
        motion_id: int,
    ) -> None:
        """Note the modes that the next commands are meant for."""
        self._motions += 1
        self._modes = (int(controller_mode), int(motion_generator_mode))
        super().start_motion(controller_mode, motion_generator_mode, motion_id)

    def _handle_udp_command(self, command_data: bytes) -> None:
        command = UDPCommand.from_bytes(command_data)
        finished = command.motion_generation_finished or command.torque_command_finished
        values = command.q_c + command.dq_c + command.tau_J_d
        self._recorder.command(time.monotonic_ns(), command.message_id, self._motions, self._modes, finished, values)
        super()._handle_udp_command(command_data)


class RecordingSimulationServer(SimulationServer):
    """franky-sim's simulation server with a `RecordingServer` on one given address."""

    def __init__(self, simulator: MujocoSimulator, host: str, recorder: CommandRecorder) -> None:
        super().__init__(simulator, [host])
        self._host, self._recorder = host, recorder

    def init(self) -> None:
        """Bind ports 1337 and 1338 and compile the scene. Raises MemrtError when the address cannot be used."""
        for robot in self.sim.robots:
            server = RecordingServer(robot, [self._host], self._recorder)
            try:
                server.init()
            except OSError as error:
                raise MemrtError(
                    f"test double on {self._host}",
                    expected="an own loopback address with the ports 1337 and 1338 free",
                    found=error,
                    fix="choose another with --host, e.g. 127.0.0.2, or end the program that holds the ports",
                ) from error
            self.robot_servers.append(server)
        self.sim.start()

    def tick(self) -> None:
        """One millisecond: `run_once(False)` without its `sleep(0)`, which costs up to 0.4 ms on a busy computer."""
        for server in self.robot_servers:
            await_command(server)
            server.process_commands()
        self.sim.step()
        for server in self.robot_servers:
            server.send_state()


class _Poses:
    """Hands the scene's pose to the spectator, in the order of our own model."""

    def __init__(self, ring: PoseRing, ours: mujoco.MjModel, simulator: MujocoSimulator) -> None:
        self._ring, self._data = ring, simulator.data
        self._positions, self._speeds = matching(ours, simulator.model)

    def publish(self, index: int) -> None:
        """Write what is the case now."""
        data = self._data
        self._ring.write(data.qpos[self._positions], data.qvel[self._speeds], index, time.monotonic_ns())

    def close(self) -> None:
        """Let the ring go."""
        self._ring.close()


class FrankyDouble:
    """One seeded episode. `run` ticks until told to end; `result` says how it went."""

    def __init__(self, task: str, seed: int, host: str, ring_prefix: str, minutes: float) -> None:
        self.host, self.rings = host, ring_names(ring_prefix)
        self.recorder = CommandRecorder(minutes)
        self.watched = Watched("running", "", 0, 0, 0)
        self.ticks = self.overruns = self.slipped_ns = self.slipped_moving_ns = self.longest_ns = 0
        self._began_ns = self._ended_ns = 0
        self._episode = {"task": task, "seed": seed}
        with TabletopEnv(task, seed) as env:  # where the arm and everything else begins
            self._episode["goal"] = env.goal
            self._simulator = MujocoSimulator()
            self._robot = self._simulator.add_robot(env.proprioception()[:-1], fr3.HAND_OPEN_WIDTH)
            furnish(self._simulator, env.task.layout)
            self._ours = env.scene.model
        self._prefix = ring_prefix
        self._quit = False

    def end(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Leave `run` before its next tick; a signal handler."""
        self._quit = True

    def run(self, duration_s: float | None, control: str | None) -> None:
        """Serve in real time. Raises MemrtError when the address is taken or no picture comes."""
        context = get_context("spawn")
        with self._simulator, RecordingSimulationServer(self._simulator, self.host, self.recorder) as server:
            poses = _Poses(PoseRing.create(f"{self._prefix}-pose", self._ours), self._ours, self._simulator)
            listening, telling = context.Pipe(duplex=False)
            ended = context.Event()
            arguments = (self._episode["task"], self._episode["seed"], f"{self._prefix}-pose", self.rings, telling)
            spectator = context.Process(target=watch, args=(*arguments, ended), name="spectator", daemon=True)
            poses.publish(1)
            spectator.start()
            telling.close()
            try:
                if not listening.poll(FIRST_PICTURE_S):
                    raise MemrtError(
                        "test double's cameras",
                        expected=f"a first picture within {FIRST_PICTURE_S:g} s",
                        found="none",
                        fix="see what the process said above; is EGL installed?",
                    )
                with Answers(control, self.result, listening, self._listen):
                    self._tick(server, poses, duration_s)
            finally:
                ended.set()
                spectator.join(10.0)
                poses.close()

    def result(self) -> dict[str, Any]:
        """How it stands, as plain JSON values."""
        now_ns = self._ended_ns or time.monotonic_ns()
        seconds = (now_ns - self._began_ns) / NS_PER_S if self._began_ns else 0.0
        return {
            "double": "franky-sim",
            "host": self.host,
            **self._episode,
            "rings": self.rings,
            "outcome": self.watched.status,
            "reason": self.watched.reason,
            "segment": self.watched.segment,
            "seconds": round(seconds, 3),
            "hz": round(self.ticks / seconds, 1) if seconds else 0.0,
            "ticks": self.ticks,
            "overruns": self.overruns,
            "slipped_ms": self.slipped_ns // NS_PER_MS,
            "slipped_moving_ms": self.slipped_moving_ns // NS_PER_MS,
            "longest_tick_ms": round(self.longest_ns / NS_PER_MS, 2),
            "commanded_ms": self.recorder.commanded,
            "frames": self.watched.frames,
            "frames_late": self.watched.late,
        }

    def _listen(self, watched: Watched) -> None:
        self.watched = watched

    def _tick(self, server: RecordingSimulationServer, poses: _Poses, duration_s: float | None) -> None:
        gc.collect()
        gc.freeze()  # what is loaded by now is never searched again: a full collection takes tens of milliseconds
        recorder, robot = self.recorder, self._robot
        self._began_ns = deadline_ns = time.monotonic_ns()
        last_ns = deadline_ns + round(duration_s * NS_PER_S) if duration_s else None
        while not self._quit:
            deadline_ns += TICK_NS
            now_ns = time.monotonic_ns()
            if now_ns < deadline_ns:
                time.sleep((deadline_ns - now_ns) / NS_PER_S)
            elif now_ns - deadline_ns > CATCH_UP_NS:
                self.slipped_ns += now_ns - deadline_ns
                if server.robot_servers[0].current_motion_id:
                    self.slipped_moving_ns += now_ns - deadline_ns
                deadline_ns = now_ns
            start_ns = time.monotonic_ns()
            server.tick()
            state = robot.inner_state
            recorder.state(start_ns, state.q, state.dq)
            self.ticks += 1
            if self.ticks % POSE_EVERY == 0:
                poses.publish(self.ticks)
            end_ns = time.monotonic_ns()
            self.overruns += end_ns > deadline_ns + TICK_NS
            self.longest_ns = max(self.longest_ns, end_ns - start_ns)
            if last_ns is not None and end_ns > last_ns:
                break
        self._ended_ns = time.monotonic_ns()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C or `--duration`; print one JSON line. 2 and one line on stderr when refused."""
    options = _parse(arguments)
    try:
        double = FrankyDouble(options.task, options.seed, options.host, options.rings, options.minutes)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, double.end)
        if options.parent:
            session_outranks(NICE)
            when_ended(options.parent, double.end)
        outrank(NICE)
        double.run(options.duration, options.control)
    except MemrtError as error:
        print(error, file=sys.stderr)
        return 2
    if options.log is not None:
        double.recorder.snapshot().save(options.log)
    print(json.dumps(double.result()), flush=True)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m memrt.sim.doubles.franky_double", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the loopback address to listen on, ports 1337 and 1338")
    parser.add_argument("--task", default="PickXtimes")
    parser.add_argument("--seed", type=int, default=0, help="of the scene and the arm's first posture")
    parser.add_argument("--rings", default="memrt-double", help="the camera rings are called RINGS-front, RINGS-wrist")
    parser.add_argument("--log", type=Path, help="write every commanded millisecond to this .npz file")
    parser.add_argument("--minutes", type=float, default=MAX_MINUTES, help="how much the log holds")
    parser.add_argument("--duration", type=float, help="end after this many seconds")
    parser.add_argument("--control", help="answer `result` with JSON on this ZMQ address, e.g. ipc:///tmp/double")
    parser.add_argument("--parent", type=int, default=0, help="end when this process, the starter of this one, ends")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
