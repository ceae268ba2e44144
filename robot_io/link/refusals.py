"""What a client says when it cannot have its robot, one clear line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memrt.robot_io.link.wire import Welcome
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionSpace


def gone(reason: str) -> MemrtError:
    """The node has ended, or says nothing any more."""
    return MemrtError(
        "the robot's node is gone", expected="a running node", found=reason, fix="start the run again; see its log"
    )


def refused(what: str, error: str) -> MemrtError:
    """The node answered a command with a reason not to carry it out."""
    return MemrtError(
        f"the robot refused `{what}`",
        expected=f"a robot that can {what}",
        found=error,
        fix="look at the robot; begin a new run if it is in fault",
    )


def session_refused(error: str) -> MemrtError:
    """The node answered a hello with a reason not to serve this client."""
    return MemrtError(
        "the robot refused the session",
        expected="a free robot of the same version",
        found=error,
        fix="end the other client, or install the same memrt on both computers",
    )


def not_let_in(found: str) -> MemrtError:
    """No connection came about, because of the keys; `found` is what the handshake showed."""
    return MemrtError(
        "connecting to the robot",
        expected="a node that knows this client's key and is known by its own",
        found=found,
        fix="make keys for both sides with `memrt link-keys`: `link.keys` in the client's YAML, `memrt node --keys`",
    )


def wrong_space(space: ActionSpace, welcome: Welcome) -> MemrtError:
    """The policy's actions are nothing that the node takes."""
    return MemrtError(
        "the policy's actions",
        expected=f"{_names(welcome.spaces)}, which `{welcome.robot}` takes",
        found=_names([space]),
        fix="use a policy or a robot node of another action space",
    )


def no_such_camera(align_to: str, rings: Mapping[str, str]) -> MemrtError:
    """`align_to` names a camera whose frames do not come in."""
    return MemrtError(
        "robot setting `align_to`",
        expected=f"one of the robot's cameras: {', '.join(rings) or 'none has frames on this computer'}",
        found=f"`{align_to}`",
        fix="correct the robot's YAML",
    )


def _names(spaces: Iterable[int]) -> str:
    known = {int(space): space.name.lower().replace("_", " ") for space in ActionSpace}
    return ", ".join(known.get(space, f"space {space}") for space in spaces)
