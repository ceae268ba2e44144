"""SIGKILL to a real `memrt run`: the robot's side brakes the arm, waits for rest, ends, and leaves nothing behind."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.streams import State, decode_state
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.types import RobotMode

pytestmark = pytest.mark.real_time

RUN = [sys.executable, "-c", "from memrt.runtime.cli import main; main()", "run", "--robot", "sim"]
WANDER = ["--policy", "wander", "--duration", "300"]  # moves the arm all the time, whatever else this computer does
ATTEMPTS = 3  # a run without an operator ends at its first hold, which a stall of this computer brings about
AT_REST = 0.05  # [rad/s]; under joint impedance the last hundredth of a radian takes a while


class States:
    """What the node publishes, from beside the run's own connection."""

    def __init__(self, endpoint: str) -> None:
        self.seen: list[tuple[int, State]] = []
        self.quit = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(b"")
        self._socket.connect(Endpoints.of(endpoint).state)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.quit.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _receive(self) -> None:
        while not self.quit.is_set():
            if self._socket.poll(50):
                state = decode_state(self._socket.recv())
                if isinstance(state, State):  # reports come on the same socket
                    self.seen.append((time.monotonic_ns(), state))

    def speed(self) -> float:
        """The fastest joint over the newest five states, which are 10 ms apart [rad/s]."""
        (_, old), (_, new) = self.seen[-5], self.seen[-1]
        moved = np.abs(new.proprioception - old.proprioception)[:7].max()
        return float(moved / ((new.t_ns - old.t_ns) / NS_PER_S))


def eventually(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def child_of(process: int) -> list[str]:
    """The command line of the node that the process has started, [] before."""
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if "memrt.robot_io.serve_node" in command:
                return [child, *command]
    return []


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def run_that_moves() -> tuple[subprocess.Popen[bytes], int, str, States] | None:
    """A run, its node's process and endpoint, and what the node says; None when it ended before the arm moved."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen([*RUN, *WANDER], **quiet)
    assert eventually(lambda: child_of(run.pid) or run.poll() is not None)
    child, *command = child_of(run.pid)
    endpoint = command[command.index("--endpoint") + 1]
    states = States(endpoint)

    def moves() -> bool:
        running = len(states.seen) > 20 and states.seen[-1][1].mode is RobotMode.RUNNING
        return running and states.speed() > 4 * AT_REST

    eventually(lambda: moves() or run.poll() is not None)
    if run.poll() is None and moves():
        return run, int(child), endpoint, states
    states.close()
    run.kill()
    run.wait()
    return None


def test_the_arm_comes_to_rest_and_nothing_is_left_when_the_runtime_is_killed():
    run, node, endpoint, states = next(filter(None, (run_that_moves() for _ in range(ATTEMPTS))))
    try:
        assert list(Path("/dev/shm").glob(f"memrt-{node}-*"))
        assert not gone(node)
        killed_ns = time.monotonic_ns()
        run.kill()
        run.wait()
        assert eventually(lambda: gone(node))
        assert list(Path("/dev/shm").glob(f"memrt-{node}-*")) == []
        assert not Path(endpoint.removeprefix("ipc://")).parent.exists()
    finally:
        run.kill()
        run.wait()
        states.close()
    # The node spoke on until the arm was at rest: in FAULT, since its session has no client any more.
    assert states.seen[-1][1].mode is RobotMode.FAULT
    took_s = (states.seen[-1][0] - killed_ns) / NS_PER_S  # 0.3 s on an idle computer
    assert took_s < 5
    assert states.speed() < AT_REST
