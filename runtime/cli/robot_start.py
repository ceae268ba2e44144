"""Starts the robot node a command needs, or finds the one that runs already, and connects to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig
    from memrt.robot_io.link.client import LinkRobot


def start_robot(
    config: RobotConfig, *, task: str, seed: int, speed: float, stack: ExitStack
) -> Callable[[], LinkRobot]:
    """Begin to start the robot's node; what is returned waits for it and connects. Everything is closed with `stack`.

    Load the policies in between: the node starts meanwhile, and loading after connecting would starve the heartbeat.
    Connecting raises MemrtError when the node does not answer or refuses.
    """
    from memrt.robot_io.link.client import LinkRobot
    from memrt.robot_io.process import NodeProcess

    link = config.link
    endpoint, alive = link.endpoint, None
    if endpoint is None:
        arguments = ["--task", task, "--seed", str(seed), "--speed", str(speed)]
        arguments += ["--brake-after-ms", str(link.brake_after_ms), "--fault-after-ms", str(link.fault_after_ms)]
        node = NodeProcess("memrt.sim.node", arguments)
        stack.callback(node.close)
        endpoint, alive = node.endpoint, node.alive

    def connect() -> LinkRobot:
        robot = LinkRobot(endpoint, alive=alive, connect_ms=round(link.connect_ms), align_to=config.align_to)
        stack.callback(robot.close)
        return robot

    return connect
