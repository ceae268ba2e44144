"""`memrt node`, and `python -m memrt.robot_io.serve_node`: the one program that makes a robot node of a driver."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import zmq

from memrt.robot_io.action_spaces import ActionSpaces
from memrt.robot_io.bounds import ArmBounds
from memrt.robot_io.cameras.rig import CameraRig
from memrt.robot_io.computer import outlive, outrank, session_outranks
from memrt.robot_io.config import NODE, RobotConfig, load_robot
from memrt.robot_io.driver import Driver
from memrt.robot_io.drivers import DriverOptions, find_driver
from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.keys import node_keys
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.robot_io.parent import TOLD, forget_rings_of_the_dead, forget_sockets, refusal_to_line, when_ended
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory_lock import lock_memory

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5550"
NICE = -10  # where permitted: a robot's side of the link goes before the policies that share its computer
REST_S = 2.0  # an FR3 at full speed needs 0.5 s to come to rest
REFUSED = 2

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What `memrt node` is told. `parent` is the process that started this node as its child, 0 for none."""

    robot: str
    endpoint: str | None = None
    keys: str | None = None
    host: str | None = None
    speed: float = 1.0
    task: str = "PickXtimes"
    seed: int = 0
    parent: int = 0


def serve_node(options: NodeOptions, ready: Tell, trouble: Tell) -> None:
    """Serve the robot until SIGTERM, Ctrl-C or the death of the parent; the arm is at rest when this returns.

    `ready` gets one line when the node listens, `trouble` one when a camera goes or comes back. Raises MemrtError for
    everything that keeps the node from starting.
    """
    robot = load_robot(options.robot)
    if robot.driver == NODE:
        raise MemrtError(
            f"robot `{robot.name}`",
            expected="a driver that memrt can serve",
            found="`driver: node`, a node of your own",
            fix="start that node; `memrt run --robot` connects to it",
        )
    end = _End(options.parent)
    forget_rings_of_the_dead()
    outrank(NICE)
    outlive()
    lock_memory()
    if options.parent:
        session_outranks(NICE)
    link = robot.link
    endpoint = options.endpoint or link.endpoint or DEFAULT_ENDPOINT
    # A child's socket lies in a folder that only its user can enter.
    keys = options.keys or (None if options.parent else link.keys)
    node_keys(endpoint, keys)  # refuses before anything is opened
    watchdog = Watchdog(round(link.brake_after_ms * NS_PER_MS), round(link.fault_after_ms * NS_PER_MS))
    open_driver = find_driver(robot.driver, f"robot `{robot.name}`")
    cameras = robot.cameras if isinstance(robot.cameras, dict) and robot.cameras_at == "node" else {}
    with contextlib.ExitStack() as stack:
        if options.parent:
            stack.callback(forget_sockets, endpoint, folder=True)
        rig = stack.enter_context(CameraRig(cameras, f"memrt-{os.getpid()}", trouble))
        driver_options = DriverOptions(
            host=options.host or robot.host,
            speed=options.speed,
            rings=rig.rings,
            task=options.task,
            seed=options.seed,
        )
        driver = stack.enter_context(open_driver(robot, driver_options))
        _check_rings(robot, driver)
        node = end.node = _listen(
            endpoint,
            lambda: RobotNode(
                driver,
                endpoint,
                watchdog,
                keys=keys,
                spaces=ActionSpaces.of(robot, options.speed),
                bounds=ArmBounds.of(robot, options.speed),
            ),
        )
        stack.callback(forget_sockets, endpoint)
        stack.callback(_wait_for_rest, driver, trouble)
        shown = ", ".join(driver.rings) or "none"
        ready(f"robot `{robot.name}` (driver {robot.driver}, cameras: {shown}) listens at {endpoint}")
        node.serve()


class _End:
    """What SIGTERM, SIGINT and the death of the parent do: end the node's service, or the start before it."""

    def __init__(self, parent: int) -> None:
        self.node: RobotNode | None = None
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if parent:
            when_ended(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))

    def _on_signal(self, signal_number: int, frame: FrameType | None) -> None:
        if self.node is None:
            raise SystemExit(128 + signal_number)
        self.node.shutdown.set()


def _listen(endpoint: str, make: Callable[[], RobotNode]) -> RobotNode:
    try:
        if _answers(endpoint):
            raise FileExistsError("another node that listens there")
        return make()
    except (zmq.ZMQError, FileExistsError) as error:
        raise MemrtError(
            f"the node's endpoint {endpoint}",
            expected="a free address of this computer; of tcp also the next two ports",
            found=error,
            fix="end the other node, or give another --endpoint",
        ) from error


def _answers(endpoint: str) -> bool:
    """Whether somebody listens at an `ipc://` endpoint: ZMQ would take it over without a word."""
    path = Endpoints.of(endpoint).control.removeprefix("ipc://")
    if not endpoint.startswith("ipc://"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _check_rings(robot: RobotConfig, driver: Driver) -> None:
    missing = [name for name in robot.cameras if name not in driver.rings]
    if missing and robot.cameras_at == "node":
        raise MemrtError(
            f"camera `{missing[0]}` of robot `{robot.name}`",
            expected="settings in the robot's YAML, or pictures that its driver brings",
            found=f"neither; driver `{robot.driver}` brings {', '.join(driver.rings) or 'none'}",
            fix="give it settings: `cameras: {name: {kind: ...}}`",
        )


def _wait_for_rest(driver: Driver, trouble: Tell) -> None:
    """A driver closes only on an arm that has stopped, or that does not."""
    driver.brake()
    deadline_s = time.monotonic() + REST_S
    while not driver.at_rest():
        if time.monotonic() > deadline_s:
            trouble(f"the arm has not come to rest within {REST_S:g} s; use the emergency stop")
            return
        time.sleep(0.005)


def main(arguments: list[str] | None = None) -> int:
    """The child's door. Exit status 2 for everything refused, the reason on stderr: for a parent in a form it reads."""
    options = _parse(arguments)
    try:
        prefix = TOLD if options.parent else ""
        serve_node(options, lambda line: print(line, flush=True), lambda line: _say(f"{prefix}{line}"))
    except MemrtError as error:
        _say(refusal_to_line(error) if options.parent else str(error))
        return REFUSED
    return 0


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a parent that died reads no more
        print(line, file=sys.stderr, flush=True)


def _parse(arguments: list[str] | None) -> NodeOptions:
    parser = argparse.ArgumentParser(prog="python -m memrt.robot_io.serve_node", description=__doc__)
    parser.add_argument("robot", help="a packaged robot, or a robot YAML")
    parser.add_argument("--endpoint", help="ipc:///absolute/path or tcp://host:port")
    parser.add_argument("--keys", help="the folder with the node's keys, of `memrt link-keys`")
    parser.add_argument("--host", help="the robot's own address")
    parser.add_argument("--speed", type=float, default=1.0, help="factor on the arm's speed limits, above 0, at most 1")
    parser.add_argument("--task", default="PickXtimes", help="the simulator's task")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated scene")
    parser.add_argument("--parent", type=int, default=0, help="end when this process, the starter of this one, ends")
    return NodeOptions(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
