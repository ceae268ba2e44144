"""The simulator as a process behind the link: it moves, it is seen, and neither side outlives the other unnoticed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from arm_driver import eventually

from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.process import NodeProcess
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, RobotMode

pytestmark = pytest.mark.real_time

PATIENT = str(Path(__file__).with_name("patient_sim.yaml"))
DT_NS = 50_000_000


@pytest.fixture
def node():
    made = NodeProcess(PATIENT, ["--seed", "3"])
    yield made
    made.close()


def connect(node: NodeProcess) -> LinkRobot:
    return LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000)


def rings_of(node: NodeProcess) -> list[Path]:
    return list(Path("/dev/shm").glob(f"memrt-{node.process_id}-*"))


def test_chunks_move_the_simulated_arm_and_both_cameras_see(node):
    robot = connect(node)
    try:
        assert "cube" in robot.goal
        before = robot.observe()
        assert {name: frame.image.shape for name, frame in before.frames.items()} == {
            "front": (256, 256, 3),
            "wrist": (256, 256, 3),
        }
        robot.arm()
        actions = np.tile(before.proprioception, (16, 1))
        actions[:, 0] += 0.02 * np.arange(1, 17)

        robot.send(ActionChunk(actions, time.monotonic_ns() + 5 * DT_NS, 4 * DT_NS, 1))
        assert eventually(lambda: abs(robot.observe().proprioception[0] - actions[-1, 0]) < 0.02, 60)
        after = robot.observe()
        assert after.frames["front"].index > before.frames["front"].index
        assert (after.frames["front"].image != before.frames["front"].image).any()
        robot.stop()
        assert robot.mode is RobotMode.STOPPED
        assert robot.outcome.status == "running"
        robot.home()
        assert eventually(lambda: abs(robot.observe().proprioception[0]) < 0.02, 60)
    finally:
        robot.close()
    assert rings_of(node)
    node.close()
    assert rings_of(node) == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/autogroup").exists(), reason="needs the right to raise a session"
)
def test_the_nodes_session_goes_before_the_policies(node):
    """A session of its own is an autogroup of its own: niceness inside it would say nothing to those outside."""
    assert eventually(lambda: "nice -10" in Path(f"/proc/{node.process_id}/autogroup").read_text())
    assert "nice -10" not in Path("/proc/self/autogroup").read_text()


def test_the_death_of_the_node_is_noticed_and_named(node):
    robot = connect(node)
    try:
        robot.arm()
        os.kill(node.process_id, signal.SIGKILL)
        assert eventually(lambda: robot.mode is RobotMode.FAULT)
        assert "ended with signal 9" in robot.fault_reason
        with pytest.raises(MemrtError, match="ended with signal 9"):
            robot.stop()
    finally:
        robot.close()
    node.close()
    assert rings_of(node) == []


def test_the_refusal_of_the_node_reaches_the_client_whole():
    node = NodeProcess(PATIENT, ["--task", "Juggle"])
    try:
        with pytest.raises(MemrtError, match="ended with status 2: unknown task"):
            connect(node)
        assert str(node.refusal()).startswith("unknown task: expected one of ")
    finally:
        node.close()


def test_a_node_of_its_own_says_where_it_listens_and_ends_in_order(tmp_path):
    endpoint = f"ipc://{tmp_path}/robot"
    command = [sys.executable, "-m", "memrt.robot_io.serve_node", "sim", "--endpoint", endpoint]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert node.stdout.readline() == f"robot `sim` (driver sim, cameras: front, wrist) listens at {endpoint}\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert second.stderr.startswith(f"the node's endpoint {endpoint}: expected a free address")
        assert second.stderr.count("\n") == 1
        node.send_signal(signal.SIGTERM)
        assert node.communicate(timeout=60) == ("", "")
        assert node.returncode == 0
        assert list(tmp_path.iterdir()) == []
        assert list(Path("/dev/shm").glob(f"memrt-{node.pid}-*")) == []
    finally:
        node.kill()
        node.wait()


def test_a_node_outlives_the_kill_of_its_parent_until_the_arm_is_at_rest_and_leaves_nothing():
    script = (
        "import sys, time, numpy as np\n"
        "from memrt.robot_io.link.client import LinkRobot\n"
        "from memrt.robot_io.process import NodeProcess\n"
        "from memrt.runtime.types import ActionChunk\n"
        f"node = NodeProcess({PATIENT!r})\n"
        "robot = LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000)\n"
        "robot.arm()\n"
        "actions = np.tile(robot.observe().proprioception, (100, 1))\n"
        "actions[:, 0] += 0.01 * np.arange(100)\n"
        "robot.send(ActionChunk(actions, time.monotonic_ns(), 100_000_000, 1))\n"
        "while abs(robot.observe().proprioception[0] - actions[0, 0]) < 0.05: time.sleep(0.01)\n"
        "print(node.process_id, node.endpoint, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    number, endpoint = parent.stdout.readline().split()
    child, folder = int(number), Path(endpoint.removeprefix("ipc://")).parent
    assert os.getsid(child) != os.getsid(parent.pid)
    assert list(Path("/dev/shm").glob(f"memrt-{child}-*"))
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()

    def gone() -> bool:
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    assert eventually(gone, 60)
    assert list(Path("/dev/shm").glob(f"memrt-{child}-*")) == []
    assert not folder.exists()
