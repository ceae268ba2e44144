"""What is refused before a robot is connected: a bundle that nobody vouches for, a policy that does not fit the robot,
engines that were never proven here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memrt.runtime.actions_config import SPACE_NAMES
from memrt.runtime.bundle import Bundle, require_halves
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.run_display import note
from memrt.runtime.cpu_fit import cpu_remark
from memrt.runtime.device_engines import proven, require_proven
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.settings import LoopSettings, check_speed
from memrt.runtime.manifest import NOT_YET_PROVEN
from memrt.runtime.signing import load_trusted, require_signer, signer_of

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig


def check_robot(robot: str, task: str, seed: int, speed: float, host: str | None = None) -> RobotConfig:
    """The robot's settings. Raises MemrtError for an unknown robot or task, and for a speed that no robot may have."""
    from memrt.robot_io.config import load_robot

    check_speed(speed)
    robot_config = load_robot(robot)
    if host is not None and robot_config.link.endpoint is not None:
        raise MemrtError(
            "--host",
            expected="a robot whose node `memrt run` starts itself",
            found=f"a node at {robot_config.link.endpoint}",
            fix="give --host to that node",
        )
    if robot_config.simulated:
        with needs_extra("sim"):
            from memrt.sim.tasks import make_task

        make_task(task, seed)
    return robot_config


def check_lockstep(robot: RobotConfig) -> None:
    """Raises MemrtError for a robot whose time does not wait."""
    if not robot.simulated:
        raise MemrtError(
            f"--lockstep with robot `{robot.name}`",
            expected="the simulator, whose time waits for the policy",
            found=f"driver `{robot.driver}`",
            fix="leave --lockstep out, or choose --robot sim",
        )


def check_policy(bundle: Bundle, robot: RobotConfig, settings: LoopSettings, *, lockstep: bool) -> None:
    """Raises MemrtError when the robot lacks a camera or an action space, or only lock-step can ask the high level."""
    missing = set(settings.cameras) - set(robot.cameras)
    if missing:
        raise MemrtError(
            f"policy `{bundle.policy.name}` on robot `{robot.name}`",
            expected=f"the cameras {', '.join(settings.cameras)}",
            found=f"the robot has {', '.join(robot.cameras)}",
            fix="choose a policy for these cameras, or add them to the robot's YAML",
        )
    check_space(bundle, robot)
    if not lockstep:
        check_sees(bundle, "add --lockstep, or choose another policy")


def check_space(bundle: Bundle, robot: RobotConfig) -> None:
    """Raises MemrtError when the robot cannot be commanded in the space of the policy's actions.

    A node that runs already says so itself, when it is connected to.
    """
    from memrt.robot_io.action_spaces import ActionSpaces
    from memrt.robot_io.config import NODE

    actions = bundle.policy.low_level.actions
    if robot.policy_server is not None:
        with needs_extra("serve"):
            from memrt.robot_io.serve.keys import load_keys

        actions = load_keys(robot.policy_server.keys).actions
    known = () if robot.driver == NODE else ActionSpaces.of(robot, 1.0).known
    if known and actions.action_space not in known:
        raise MemrtError(
            f"policy `{bundle.policy.name}` on robot `{robot.name}`",
            expected=f"actions of space {', '.join(SPACE_NAMES[space] for space in known)}",
            found=f"{actions.space}: poses need `arm.model` and `gripper: {{kind: franka_hand}}`",
            fix="choose a policy that moves joints, or complete the robot's YAML",
        )


def check_sees(bundle: Bundle, fix: str) -> None:
    """Raises MemrtError when the high level is the simulator's oracle, which only lock-step can ask."""
    if bundle.policy.high_level.source == "oracle":
        raise MemrtError(
            f"policy `{bundle.policy.name}`",
            expected="a high level that sees pixels",
            found="the simulator's oracle, which only lock-step can ask",
            fix=fix,
        )


def check_halves(bundle: Bundle, robot: RobotConfig) -> None:
    """The bundle holds what runs here; a robot with a policy server needs no low level in it."""
    if robot.policy_server is None:
        require_halves(bundle)
    elif bundle.policy.high_level.vlm_on_board:
        require_halves(bundle, "hl")


def check_bundle(
    bundle: Bundle, robot: RobotConfig, *, moves: bool, cache: Path | None, keys: Path | None, allow_unsigned: bool
) -> None:
    """Whether this robot may run this bundle on this computer, and what is to be said of it where it may.

    Only a simulated arm, whoever moves none, and who says so, may run what no trusted key vouches for. Raises
    MemrtError for everybody else, for everybody when the signature is false, and as `check_proof` does.
    """
    check_signer(bundle, robot, moves=moves, keys=keys, allow_unsigned=allow_unsigned)
    check_proof(bundle, robot, moves=moves, cache=cache)


def check_signer(bundle: Bundle, robot: RobotConfig, *, moves: bool, keys: Path | None, allow_unsigned: bool) -> None:
    """The part of `check_bundle` that is the bundle's own; what remains is this computer's."""
    if not robot.simulated and moves and not allow_unsigned:
        require_signer(bundle.path, signer_of(bundle, load_trusted(keys)))
    else:
        say_unsigned(bundle, keys)
    say_cpu(bundle)


def say_unsigned(bundle: Bundle, keys: Path | None = None) -> None:
    """Say that no trusted key vouches for a bundle. Raises MemrtError for a false signature."""
    signer = signer_of(bundle, load_trusted(keys))
    if signer.key is None:
        note(f"{signer.says}: a physical robot asks for a signature, or for --allow-unsigned")


def say_cpu(bundle: Bundle) -> None:
    """Say where this processor computes the bundle's engines in another way than the one that exported them."""
    remark = cpu_remark(bundle.manifest.cpu)
    if remark is not None:
        note(remark)


def check_proof(bundle: Bundle, robot: RobotConfig, *, moves: bool, cache: Path | None) -> None:
    """Only a simulated arm, and whoever moves none, may run engines that were never proven here: raises MemrtError."""
    if not robot.simulated and moves:
        require_proven(bundle, cache=cache)
    elif proven(bundle, cache=cache) is None:
        note(f"{NOT_YET_PROVEN}: a physical robot would be refused until `memrt build {bundle.path}`")
