"""A robot's settings, as its YAML file states them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.runtime.packaged import packaged_file
from memrt.runtime.strict_config import FieldError, convert, read_yaml

Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=60_000)]


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The link's deadlines. `endpoint` is where a node listens already; without it the node is started as a child."""

    endpoint: str | None = None
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
    """One robot YAML. `kind` names the program that drives it: ours, or `node` for one of your own at `link.endpoint`.

    `cameras` are the names that policies know them by. The simulator draws its own; of a node of your own each name may
    have settings, which `memrt cameras` and the node's `CameraRig` open. `align_to` is the camera whose newest frame is
    "now"; without it an observation holds every camera's newest.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    kind: Literal["sim", "node"]
    cameras: tuple[str, ...] | dict[str, CameraConfig]
    align_to: str | None = None
    link: LinkConfig = LinkConfig()
    policy_server: PolicyServerConfig | None = None

    def __post_init__(self) -> None:
        if self.kind == "sim" and isinstance(self.cameras, dict):
            raise FieldError(
                "cameras",
                expected="a list of names: the simulator draws its own pictures",
                found="settings",
                fix="write `cameras: [front, wrist]`",
            )
        if self.align_to is not None and self.align_to not in self.cameras:
            raise FieldError(
                "align_to",
                expected=f"one of {', '.join(self.cameras)}",
                found=f"`{self.align_to}`",
                fix="name a camera of this robot",
            )
        if self.kind == "node" and self.link.endpoint is None:
            raise FieldError(
                "link.endpoint",
                expected="where your node listens",
                found="no such key",
                fix="add `endpoint: ipc:///...` or `tcp://host:port` under `link`",
            )


def load_robot(path_or_name: str | Path) -> RobotConfig:
    """The robot of a YAML file, or of a packaged one when given a bare name such as `sim`.

    Raises MemrtError for an unknown name (listing the known ones), an unreadable file, an unknown key, a wrong value.
    """
    path = Path(path_or_name).expanduser()
    if len(path.parts) == 1 and path.suffix not in {".yaml", ".yml"}:
        path = packaged_file("robots", str(path_or_name), what="robot", file="a robot YAML")
    robot: RobotConfig = convert(read_yaml(path), RobotConfig, str(path))
    return robot
