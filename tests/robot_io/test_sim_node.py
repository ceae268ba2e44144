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

# Generous deadlines of silence: a busy test machine must not look like a dead client.
PATIENT = ["--brake-after-ms", "20000", "--fault-after-ms", "40000"]
DT_NS = 50_000_000


@pytest.fixture
def node():
    made = NodeProcess("memrt.sim.node", ["--task", "PickXtimes", "--seed", "3", *PATIENT])
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


def test_wrong_input_to_the_node_reaches_the_client_in_words():
    node = NodeProcess("memrt.sim.node", ["--task", "Juggle"])
    try:
        with pytest.raises(MemrtError, match="unknown task"):
            connect(node)
    finally:
        node.close()


def test_the_node_ends_with_its_parent():
    script = (
        "import os, signal\n"
        "from memrt.robot_io.process import NodeProcess\n"
        f"node = NodeProcess('memrt.sim.node', {PATIENT!r})\n"
        "print(node.process_id, flush=True)\n"
        "import sys; sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()

    def gone() -> bool:
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    assert eventually(gone, 60)
