"""A camera's settings, as the robot's YAML states them under the name that policies know the camera by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.runtime.strict_config import FieldError

Side = Annotated[int, msgspec.Meta(ge=1, le=16_384)]  # the frame ring's bound


class CameraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One camera. `realsense` takes a `serial` or a recording's `path`, `v4l2` a device's and `replay` a folder's.
    `ring` takes the `name` of a shared-memory ring that another program of this computer writes. `zed` is refused with
    a way out.

    `latency_ms` is how much older a picture is than its time stamp says, measured by the lab: subtracted from it.
    `repeat` plays recordings and folders again from the start, `pixels` is the format a V4L2 device sends. `half` is
    for V4L2 devices that send two pictures side by side, as stereo cameras do: `width` is that of the one taken.
    """

    kind: Literal["realsense", "v4l2", "replay", "ring", "zed"]
    name: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    serial: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    width: Side = 640
    height: Side = 480
    fps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 30
    latency_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    repeat: bool = False
    pixels: Literal["MJPG", "YUYV"] = "MJPG"
    half: Literal["left", "right"] | None = None

    def beside(self, folder: Path) -> CameraConfig:
        """The same with a relative `path` of a recording or a folder meant from `folder`, that of the robot's YAML."""
        if self.path is None or self.kind == "v4l2":
            return self
        return msgspec.structs.replace(self, path=str(folder / Path(self.path).expanduser()))

    def __post_init__(self) -> None:
        if self.kind == "zed":
            raise FieldError(
                "kind",
                expected="realsense, v4l2, replay or ring",
                found="zed, whose SDK (Stereolabs' pyzed) is on no public index",
                fix="take it as the stereo webcam it also is, unrectified (`kind: v4l2, pixels: YUYV, half: left`), or "
                "let a program of your own, with the SDK, write its pictures for `kind: ring`",
            )
        if self.half is not None and self.kind != "v4l2":
            raise FieldError("half", expected="a camera of `kind: v4l2`", found=self.kind, fix="remove it")
        if (self.name is None) == (self.kind == "ring"):
            raise FieldError(
                "name",
                expected="given exactly when `kind: ring`",
                found="nothing" if self.name is None else f"`{self.name}` with `kind: {self.kind}`",
                fix="add the name of the shared-memory ring" if self.name is None else "remove it",
            )
        if self.kind == "ring":
            self._check_ring()
        elif self.kind == "realsense":
            if (self.serial is None) == (self.path is None):
                raise FieldError(
                    "serial",
                    expected="the serial number of a device, or the `path` of a recording",
                    found="both" if self.serial else "neither",
                    fix="give one; `memrt cameras list` shows the serial numbers",
                )
        elif self.path is None:
            what = "a device such as /dev/v4l/by-id/...-video-index0" if self.kind == "v4l2" else "a folder of images"
            raise FieldError("path", expected=what, found="no such key", fix="add `path`")
        if self.kind != "realsense" and self.serial is not None:
            raise FieldError(
                "serial",
                expected="no serial number for this kind",
                found=self.serial,
                fix="remove it; a V4L2 device's serial number is in its path below /dev/v4l/by-id",
            )
        if self.repeat and (self.kind in {"v4l2", "ring"} or self.serial is not None):
            raise FieldError(
                "repeat",
                expected="a recording or a folder",
                found="a device",
                fix="remove `repeat`, a device never ends",
            )

    def _check_ring(self) -> None:
        if self.path is not None or self.latency_ms:
            raise FieldError(
                "path" if self.path is not None else "latency_ms",
                expected="nothing: pictures and times are used as the other program wrote them",
                found=self.path if self.path is not None else f"{self.latency_ms:g}",
                fix="remove it",
            )
