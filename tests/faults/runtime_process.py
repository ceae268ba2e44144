"""The runtime as a process of its own, for tests that kill or stop it: `python runtime_process.py ENDPOINT`.

Prints `following` when the first chunks have left, and at the end how the run ended, as one JSON object.
"""

from __future__ import annotations

import json
import sys

from fault_policies import DT_NS, EXECUTE, HORIZON, PATIENT, Names, Notes, Swings

from memrt.robot_io.link import client
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.realtime import RealtimeLoop
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import RobotMode


def main(endpoint: str) -> None:
    settings = LoopSettings(
        dt_ns=DT_NS,
        horizon=HORIZON,
        execute=EXECUTE,
        every_steps=2,
        **PATIENT,
    )
    notes, said = Notes(), False

    def on_tick(loop: RealtimeLoop) -> None:
        nonlocal said
        if len(notes.chunks) > 2 and not said:
            said = True
            print("following", flush=True)
        status = loop.status()
        if status.hold_reason and status.mode is RobotMode.STOPPED:  # as an operator would: an FR3's loop takes a while
            loop.resume()

    client.STATE_LOST_NS = 2 * NS_PER_S
    robot = client.LinkRobot(endpoint, connect_ms=60_000)
    loop = RealtimeLoop(robot, Names(), Swings(), "swing", settings, observer=notes)
    try:
        loop.run(on_tick=on_tick)
    except MemrtError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    finally:
        robot.close()
    record = loop.record
    print(json.dumps({"status": record.status, "reason": record.reason}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
