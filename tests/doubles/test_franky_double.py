"""The permissive double with a stock client on its protocol: franky, as anybody installs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memrt.runtime._core import FrameRing
from memrt.runtime.errors import MemrtError
from memrt.sim.doubles.command_log import EXTERNAL_CONTROLLER, NO_GENERATOR, CommandLog
from memrt.sim.doubles.limit_oracle import judge
from memrt.sim.doubles.process import FrankyDoubleProcess, own_loopback
from memrt.sim.env import TabletopEnv

pytestmark = pytest.mark.real_time

franky = pytest.importorskip("franky", reason="franky-control is not installed (extra `franka`)")
franky_sim = pytest.importorskip("franky_sim", reason="franky-sim is not installed (extra `dev`)")
SEED = 1_000_000


@pytest.fixture
def double(tmp_path: Path) -> Iterator[FrankyDoubleProcess]:
    with FrankyDoubleProcess(own_loopback(), seed=SEED, log=tmp_path / "log.npz") as started:
        yield started


def test_the_arm_and_everything_else_stand_where_our_simulator_puts_them() -> None:
    import mujoco  # after memrt.sim, which chooses MuJoCo's renderer
    from franky_sim.mujoco_simulator import MujocoSimulator

    from memrt.sim.doubles.franky_scene import furnish, matching, their_body

    with TabletopEnv("PickXtimes", SEED) as env, MujocoSimulator() as simulator:
        robot = simulator.add_robot(env.proprioception()[:7], 0.08)
        furnish(simulator, env.task.layout)
        simulator.start()
        positions, speeds = matching(env.scene.model, simulator.model)
        ours, theirs = env.scene.data, simulator.data
        np.testing.assert_allclose(theirs.qpos[positions], ours.qpos, atol=1e-2)
        assert sorted(positions) == list(range(simulator.model.nq))
        assert sorted(speeds) == list(range(simulator.model.nv))
        rng, middle = np.random.default_rng(0), np.array([0, 0, 0, -1.6, 0, 1.7, 0])
        for _ in range(5):
            theirs.qpos[positions[:7]] = rng.uniform(-1.0, 1.0, 7) + middle
            mujoco.mj_forward(simulator.model, theirs)
            ours.qpos[:] = theirs.qpos[positions]
            mujoco.mj_forward(env.scene.model, ours)
            pose = robot.kinematics(theirs.qpos[positions[:7]])
            np.testing.assert_allclose(pose.translation, env.scene.tcp_position(), atol=1e-12)
            for body in ("link4", "hand", "left_finger", "right_finger"):
                np.testing.assert_allclose(theirs.body(their_body(body)).xpos, ours.body(body).xpos, atol=1e-6)
                np.testing.assert_allclose(theirs.body(their_body(body)).xmat, ours.body(body).xmat, atol=1e-6)


def test_a_stock_client_moves_the_arm_and_every_command_is_in_the_log(tmp_path: Path) -> None:
    host, log = own_loopback(1), tmp_path / "log.npz"
    with FrankyDoubleProcess(host, seed=SEED, log=log) as double:
        robot = franky.Robot(host, realtime_config=franky.RealtimeConfig.Ignore)
        start = np.array(robot.current_joint_state.position)
        with TabletopEnv("PickXtimes", SEED) as env:
            np.testing.assert_allclose(start, env.proprioception()[:7], atol=0.02)
        with franky.JointImpedanceTracker(robot, stiffness=np.full(7, 300.0), period=0.02) as tracker:
            while tracker.tick():
                goal = start.copy()
                goal[0] += 0.2 * min(1.0, tracker.elapsed_time)
                tracker.set_target(goal)
                if tracker.elapsed_time > 1.5:
                    break
            tracker.stop()
        assert robot.current_joint_state.position[0] - start[0] == pytest.approx(0.2, abs=0.05)
        gripper = franky.Gripper(host)
        assert gripper.width == pytest.approx(0.08, abs=0.002)
        gripper.move(0.03, 0.05)
        assert gripper.width == pytest.approx(0.03, abs=0.005)
        answer = double.ask()
        assert answer is not None
        assert answer["commanded_ms"] > 1000
        result = double.close()
    assert result["outcome"] == "running"
    assert result["goal"].startswith("pick up the")
    recorded = CommandLog.load(log)
    assert len(recorded.commands) == result["commanded_ms"]
    assert len(recorded.states) == result["ticks"]
    assert set(recorded.commands["controller"]) == {EXTERNAL_CONTROLLER}
    assert set(recorded.commands["generator"]) == {NO_GENERATOR}
    verdict = judge(recorded)
    assert verdict.total == 0
    assert verdict.examined_ms > 1000


def test_the_cameras_show_what_the_simulator_shows(double: FrankyDoubleProcess) -> None:
    with TabletopEnv("PickXtimes", SEED) as env:
        for camera, name in double.rings.items():
            with FrameRing.open(name) as ring:
                first = ring.latest_copy()
                assert first is not None
                expected = env.render(camera).astype(float)
                assert np.abs(first[0].astype(float) - expected).mean() < 3.0  # the arm has sagged by a hair
                deadline = time.monotonic() + 10.0
                while (newest := ring.latest_copy()) is None or newest[1] == first[1]:
                    assert time.monotonic() < deadline, "no further picture"
                    time.sleep(0.02)
                assert newest[2] > first[2]


def test_an_address_in_use_is_one_line(double: FrankyDoubleProcess) -> None:
    with pytest.raises(MemrtError, match="ports 1337 and 1338 free"):
        FrankyDoubleProcess(own_loopback(), seed=SEED)
