"""Starts the robot node a command needs, or finds the one that runs already, and connects to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig
    from memrt.robot_io.link.client import LinkRobot


def start_robot(
    config: RobotConfig,
    path: str,
    *,
    task: str,
    seed: int,
    speed: float,
    host: str | None,
    stack: ExitStack,
    tell: Callable[[str], None],
) -> Callable[[], LinkRobot]:
    """Begin to start the robot's node; what is returned waits for it and connects. Everything is closed with `stack`.

    `path` is the name or file that `config` was read from. `tell` gets, from a thread, what a node that was started
    here has to say to an operator. Load the policies in between: the node starts meanwhile, and loading after
    connecting would starve the heartbeat. Connecting raises MemrtError when the node does not answer or refuses.
    """
    from memrt.robot_io.cameras.rig import CameraRig
    from memrt.robot_io.link.client import LinkRobot
    from memrt.robot_io.link.keys import client_keys
    from memrt.robot_io.process import NodeProcess

    link = config.link
    endpoint, keys, node = link.endpoint, link.keys, None
    if endpoint is None:
        arguments = ["--task", task, "--seed", str(seed), "--speed", str(speed)]
        arguments += [] if host is None else ["--host", host]
        node = NodeProcess(path, arguments, tell)
        stack.callback(node.close)
        endpoint, keys = node.endpoint, None  # a socket file that nobody else can reach
    client_keys(endpoint, keys)  # refuses before policies are loaded

    rig = None
    if config.cameras_at == "run":
        assert isinstance(config.cameras, dict), "checked with the YAML"
        rig = stack.enter_context(CameraRig(config.cameras, f"memrt-{os.getpid()}", tell))

    def connect() -> LinkRobot:
        alive = None if node is None else node.alive
        try:
            robot = LinkRobot(
                endpoint,
                alive=alive,
                connect_ms=round(link.connect_ms),
                align_to=config.align_to,
                keys=keys,
                rings=None if rig is None else rig.rings,
            )
        except MemrtError as error:
            refusal = None if node is None else node.refusal()
            raise (refusal or error) from None
        stack.callback(robot.close)
        if node is None:  # a child was started with it
            robot.configure(speed=speed)
        return robot

    return connect
