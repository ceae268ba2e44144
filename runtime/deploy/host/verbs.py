"""The commands of the robot's computer that answer once, such as its list of bundles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from memrt.runtime.deploy.host.ssh import Robot
from memrt.runtime.errors import MemrtError


def ask(robot: Robot, memrt: Sequence[str], verb: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that `memrt target VERB --json` prints there. Raises MemrtError when it fails."""
    output = robot.run([*memrt, "target", verb, *arguments, "--json"], what=f"`memrt target {verb}`")
    try:
        answer = json.loads(output)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise MemrtError(
            f"`memrt target {verb}` on {robot.host}",
            expected="one JSON object",
            found=repr(output[:80]),
            fix="let nothing print on login there (~/.bashrc), and use the same version of memrt",
        )
    return answer
