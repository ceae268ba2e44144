"""A robot's settings, as its YAML file states them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from memrt.robot_io.arm import ArmConfig, PerJoint
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.drivers import check_driver
from memrt.robot_io.grippers.settings import GripperConfig
from memrt.robot_io.workspace import WorkspaceConfig, check_workspace
from memrt.runtime.packaged import packaged_file
from memrt.runtime.strict_config import FieldError, StructT, convert, read_yaml

NODE = "node"  # the driver of a robot whose node runs already
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=60_000)]


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The link's deadlines. `endpoint` is where `memrt node` listens; without it `memrt run` starts the node itself.

    `keys` is the folder with this side's keys (`memrt link-keys`); an endpoint beyond this computer demands them.
    """

    endpoint: str | None = None
    keys: str | None = None
    brake_after_ms: Milliseconds = 50.0
    fault_after_ms: Milliseconds = 200.0
    connect_ms: Milliseconds = 30_000.0

    def __post_init__(self) -> None:
        if self.brake_after_ms >= self.fault_after_ms:
            raise FieldError(
                "brake_after_ms",
                expected=f"less than fault_after_ms, {self.fault_after_ms:g}",
                found=f"{self.brake_after_ms:g}",
                fix="brake before the session ends",
            )


class PolicyServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An openpi policy server that is asked for action chunks in place of the bundle's own action expert.

    `keys`: which key of its messages holds what, a name or file as `configs/protocols/*.yaml`. A chunk that takes
    longer than `timeout_ms` is given up; only the first may take `connect_ms`, since servers compile then.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^ws://[^/]+(:[0-9]+)?/?$")]
    keys: str = "openpi"
    timeout_ms: Milliseconds = 500.0
    connect_ms: Milliseconds = 60_000.0


class RobotConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One robot YAML. `driver` names the program that drives it, `node` one of your own that runs at `link.endpoint`.

    `host` is the robot's own address, where it has one. `home` is the pose that `home` moves to [rad]; a known model
    has one of its own. `workspace` is the box that chunks may not lead the tool out of. `cameras` are the names that
    policies know them by: with settings, the node opens them (and `memrt cameras` looks at them); without, the driver
    brings their pictures. `cameras_at` is the side that they are attached to, where node and run are two computers.
    `align_to` is the camera whose newest frame is "now"; without it an observation holds every camera's newest.
    `settings` are the driver's own.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    driver: Annotated[str, msgspec.Meta(min_length=1)]
    host: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    arm: ArmConfig = ArmConfig(model="fr3")
    home: PerJoint | None = None
    workspace: WorkspaceConfig | None = None
    gripper: GripperConfig | None = None
    cameras: tuple[str, ...] | dict[str, CameraConfig]
    cameras_at: Literal["node", "run"] = "node"
    align_to: str | None = None
    link: LinkConfig = LinkConfig()
    policy_server: PolicyServerConfig | None = None
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.align_to is not None and self.align_to not in self.cameras:
            raise FieldError(
                "align_to",
                expected=f"one of {', '.join(self.cameras)}",
                found=f"`{self.align_to}`",
                fix="name a camera of this robot",
            )
        if self.cameras_at == "run" and not (isinstance(self.cameras, dict) and self.link.endpoint):
            raise FieldError(
                "cameras_at",
                expected="`run` only with settings for every camera, and a node that runs already (`link.endpoint`)",
                found="cameras without settings" if self.link.endpoint else "no `link.endpoint`",
                fix="remove `cameras_at`, or add what is missing",
            )
        if self.driver == NODE and self.link.endpoint is None:
            raise FieldError(
                "link.endpoint",
                expected="where your node listens",
                found="no such key",
                fix="add `endpoint: ipc:///...` or `tcp://host:port` under `link`",
            )
        if self.driver != NODE:
            self._check_home()
            check_workspace(self)

    @property
    def home_pose(self) -> tuple[float, ...]:
        """Where `home` moves to, an angle per joint [rad]."""
        pose = self.home or self.arm.ready_pose
        assert pose is not None, "checked for every robot that memrt drives"
        return pose

    @property
    def simulated(self) -> bool:
        """Whether nothing real moves."""
        return self.driver == "sim"

    @property
    def has_franka_hand(self) -> bool:
        """Whether the tool is the Franka Hand; the simulator's always is."""
        return self.simulated or (self.gripper is not None and self.gripper.kind == "franka_hand")

    def driver_settings(self, struct: type[StructT]) -> StructT:
        """`settings` as the driver's own `struct`. Raises MemrtError for an unknown key and a wrong value."""
        return convert(self.settings, struct, f"`settings` of robot `{self.name}`")

    def _check_home(self) -> None:
        pose = self.home or self.arm.ready_pose
        if pose is None or len(pose) != self.arm.count:
            raise FieldError(
                "home",
                expected=f"{self.arm.count} joint angles [rad]",
                found="no such key" if pose is None else f"{len(pose)}",
                fix="add `home`" if pose is None else "give every joint an angle",
            )
        limits = self.arm.limits()
        for joint, angle in enumerate(pose):
            if not limits.q_min[joint] <= angle <= limits.q_max[joint]:
                raise FieldError(
                    "home",
                    expected=f"joint {joint + 1} between {limits.q_min[joint]:.4g} and {limits.q_max[joint]:.4g}",
                    found=f"{angle:g}",
                    fix="choose a pose inside the arm's range and its margin",
                )


def load_robot(path_or_name: str | Path) -> RobotConfig:
    """The robot of a YAML file, or of a packaged one when given a bare name such as `sim`.

    Raises MemrtError for an unknown name (listing the known ones), an unreadable file, an unknown key, a wrong value,
    an unknown driver.
    """
    path = Path(path_or_name).expanduser()
    if len(path.parts) == 1 and path.suffix not in {".yaml", ".yml"}:
        path = packaged_file("robots", str(path_or_name), what="robot", file="a robot YAML")
    robot: RobotConfig = convert(read_yaml(path), RobotConfig, str(path))
    if isinstance(robot.cameras, dict):
        robot = msgspec.structs.replace(
            robot, cameras={name: camera.beside(path.parent) for name, camera in robot.cameras.items()}
        )
    if robot.driver != NODE:
        check_driver(robot.driver, str(path))
    return robot
