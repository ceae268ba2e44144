"""Row: process death, with a Franka FR3 of franky-sim behind the node, over libfranka's own protocol."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm_driver import eventually
from chain import FR3, StateListener

from memrt.robot_io.link.client import LinkRobot
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import RobotMode

pytest.importorskip("franky", reason="extra franka")
pytest.importorskip("franky_sim", reason="extra dev")
sys.path.insert(0, str(Path(__file__).parents[1] / "franka"))

from permissive_robot import permissive_robot

pytestmark = pytest.mark.real_time

ROBOT = """
name: fr3
driver: franka
cameras: []
settings: {realtime: ignore}
link: {brake_after_ms: 50, fault_after_ms: 2000}   # a test machine may be held up for 200 ms before the test begins
"""


@pytest.fixture
def node(tmp_path):
    """`memrt node` on the arm's computer, started by hand: where it listens."""
    robot, endpoint = tmp_path / "robot.yaml", f"ipc://{tmp_path}/robot"
    robot.write_text(ROBOT)
    with permissive_robot(2) as (host, _):
        command = [sys.executable, "-m", "memrt.robot_io.serve_node", str(robot), "--host", host]
        process = subprocess.Popen([*command, "--endpoint", endpoint], stdout=subprocess.PIPE, text=True)
        try:
            assert "listens at" in process.stdout.readline()
            yield endpoint
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


def test_the_arm_comes_to_rest_when_the_runtime_is_killed_and_the_next_one_finds_it_disarmed(node, runtimes):
    listener = StateListener(node)
    try:
        runtime = runtimes(node)
        assert eventually(lambda: len(listener.states) > 10 and listener.speed() > 0.1, 60)
        killed_ns = runtime.send(signal.SIGKILL)
        assert eventually(lambda: listener.states[-1].mode is RobotMode.FAULT, 60)
        assert eventually(lambda: listener.speed() < 1e-3, 60)
        after = [state for state in listener.states if state.t_ns > killed_ns]
        joints = np.array([state.proprioception[:-1] for state in after])
        moved = np.flatnonzero(np.abs(np.diff(joints, axis=0)).max(axis=1) > 1e-4)
        print(f"measured at rest after the kill: {(after[moved[-1]].t_ns - killed_ns) / NS_PER_MS:.0f} ms")
        assert ((joints > FR3.q_min) & (joints < FR3.q_max)).all()
        again = LinkRobot(node, connect_ms=60_000)
        assert again.mode is RobotMode.DISARMED
        again.close()
    finally:
        listener.close()
