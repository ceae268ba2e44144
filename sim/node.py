"""`python -m memrt.sim.node`: the simulator as a robot node, a process of its own behind the link."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from memrt.robot_io.computer import die_with_parent, outrank
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError
from memrt.sim.driver import SimDriver
from memrt.sim.env import TabletopEnv

NICE = -10  # where permitted: a robot's side of the link goes before the policies that share its computer


def main(arguments: list[str] | None = None) -> int:
    """Serve one seeded episode until SIGTERM or the death of `--parent`; 2 and one line on stderr for wrong input."""
    options = _parse(arguments)
    if options.parent:
        die_with_parent(options.parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    outrank(NICE)
    try:
        watchdog = Watchdog(round(options.brake_after_ms * NS_PER_MS), round(options.fault_after_ms * NS_PER_MS))
        with TabletopEnv(options.task, options.seed) as env:
            _serve(env, options, watchdog)
    except (MemrtError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _serve(env: TabletopEnv, options: argparse.Namespace, watchdog: Watchdog) -> None:
    driver = SimDriver(env, f"memrt-{os.getpid()}", options.speed)
    try:
        driver.start()
        node = RobotNode(driver, options.endpoint, watchdog)

        def end(signal_number: int, frame: FrameType | None) -> None:
            node.shutdown.set()

        signal.signal(signal.SIGTERM, end)
        if not options.parent:  # a parent's terminal sends Ctrl-C to both, and it is the parent that ends the run
            signal.signal(signal.SIGINT, end)
        node.serve()
    finally:
        driver.close()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m memrt.sim.node", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="ipc:///absolute/path or tcp://host:port")
    parser.add_argument("--task", default="PickXtimes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", type=float, default=1.0, help="factor on the arm's speed limits, above 0, at most 1")
    parser.add_argument("--brake-after-ms", type=float, default=50.0, help="silence of the client that brakes the arm")
    parser.add_argument("--fault-after-ms", type=float, default=200.0, help="silence that ends the session")
    parser.add_argument("--parent", type=int, default=0, help="end when this process, the starter of this one, ends")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
