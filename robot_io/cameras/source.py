"""What a kind of camera has to offer, and how its pictures' sizes and packages are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ImageArray


class CameraEnded(Exception):  # noqa: N818 - an end, not an error
    """A recording has been played to its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """`image` uint8 [height, width, 3] RGB, valid until the next read; `t_ns` is CLOCK_MONOTONIC, mid-exposure where
    the camera tells; `number` is the camera's own count, so that a gap shows frames that were lost on the way.
    """

    image: ImageArray
    t_ns: int
    number: int


class Source(Protocol):
    """An open camera. Used by one thread."""

    def read(self, timeout_s: float) -> Picture | None:
        """The next picture, or None when none came in time.

        Raises MemrtError when the camera is gone, CameraEnded at the end of a recording.
        """
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


def open_source(name: str, config: CameraConfig) -> Source:
    """Open the camera of this configuration. Raises MemrtError when it, its package or its picture size is missing."""
    if config.kind == "realsense":
        from memrt.robot_io.cameras.realsense import open_realsense

        return open_realsense(name, config)
    if config.kind == "v4l2":
        from memrt.robot_io.cameras.video4linux import open_v4l2

        return open_v4l2(name, config)
    from memrt.robot_io.cameras.replay import ReplaySource

    return ReplaySource(name, config)


def missing_package(name: str, package: str, extra: str) -> MemrtError:
    """The refusal when the package that drives this kind of camera is not installed."""
    return MemrtError(
        f"camera `{name}`",
        expected=f"the package {package}",
        found="an installation without it",
        fix=f"pip install 'memrt[{extra}]'",
    )


def check_size(name: str, config: CameraConfig, image: ImageArray) -> None:
    """Raise MemrtError unless the image has the configured size."""
    height, width = image.shape[:2]
    if (height, width) != (config.height, config.width):
        raise MemrtError(
            f"camera `{name}`",
            expected=f"pictures of {config.width}x{config.height}",
            found=f"{width}x{height}",
            fix="set `width` and `height` to what the camera gives",
        )
