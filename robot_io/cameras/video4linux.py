"""V4L2 cameras (UVC webcams, capture cards) through OpenCV.

OpenCV and not the ioctls by hand: it negotiates formats and decodes MJPG and YUYV, is Apache-licensed and maintained;
the pure-Python alternative, linuxpy, is GPL. V4L2 stamps a buffer with CLOCK_MONOTONIC, for UVC at the start of the
frame's transfer, and OpenCV hands that stamp on. Exposure is unknown here: give a measured `latency_ms`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import Picture, check_size, missing_package
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError

OLDEST_STAMP_NS = NS_PER_S  # an older stamp is not CLOCK_MONOTONIC's: some drivers use another clock
SYSFS = Path("/sys/class/video4linux")
BY_ID = Path("/dev/v4l/by-id")


def open_v4l2(name: str, config: CameraConfig) -> V4L2Source:
    """Open the device of `config.path`. Raises MemrtError when it is not there, in use, or gives another size."""
    cv2 = _library(name)
    path = Path(str(config.path)).expanduser()
    if not path.exists():
        there = [device["by_id"] or device["path"] for device in list_v4l2()]
        raise MemrtError(
            f"camera `{name}`",
            expected=f"a V4L2 device at {path}",
            found=f"only {', '.join(there)}" if there else "no V4L2 device on this computer",
            fix="plug it in, or correct `path`; `memrt cameras list` shows what is connected",
        )
    capture = cv2.VideoCapture()
    capture.open(str(path.resolve()), cv2.CAP_V4L2)  # the path may be a link that names the serial number
    if not capture.isOpened():
        raise MemrtError(
            f"camera `{name}`",
            expected=f"{path} to open as a V4L2 capture device",
            found="a refusal",
            fix="close other programs that use it; join the group `video`; choose the node that ends in -index0",
        )
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*config.pixels))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width * (1 if config.half is None else 2))
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
    capture.set(cv2.CAP_PROP_FPS, config.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)  # one being filled, one being read: nothing old waits in line
    return V4L2Source(name, config, capture)


def list_v4l2(sysfs: Path = SYSFS, by_id: Path = BY_ID) -> list[dict[str, str]]:
    """Path, name and stable link of every capture node, from sysfs: no package is needed and no device is opened."""
    links = {link.resolve().name: str(link) for link in sorted(by_id.glob("*"))} if by_id.is_dir() else {}
    found = []
    for node in sorted(sysfs.glob("video*")):
        try:
            card, index = ((node / what).read_text(encoding="utf-8").strip() for what in ("name", "index"))
        except OSError:
            continue  # unplugged while we looked
        if index == "0":  # further nodes of a UVC camera carry metadata
            found.append({"path": f"/dev/{node.name}", "name": card, "by_id": links.get(node.name, "")})
    return found


class V4L2Source:
    """Frames of one opened `cv2.VideoCapture`."""

    def __init__(self, name: str, config: CameraConfig, capture: Any) -> None:
        self._cv2 = _library(name)
        self._name, self._config, self._capture = name, config, capture
        self._number = 0

    def read(self, timeout_s: float) -> Picture | None:
        """The next frame. Raises MemrtError when the device is gone, or silent for OpenCV's own ten seconds."""
        arrived, image = self._capture.read()
        received_ns = time.monotonic_ns()
        if not arrived:
            raise MemrtError(
                f"camera `{self._name}`",
                expected="a frame",
                found="none: the device was unplugged or does not stream",
                fix=f"check the cable of {self._config.path}",
            )
        if self._config.half is not None:
            eyes = np.split(image, 2, axis=1) if image.shape[1] % 2 == 0 else [image, image]
            image = np.ascontiguousarray(eyes[self._config.half == "right"])
        check_size(self._name, self._config, image)
        self._number += 1
        stamp_ns = round(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) * NS_PER_MS)
        t_ns = stamp_ns if 0 <= received_ns - stamp_ns <= OLDEST_STAMP_NS else received_ns
        return Picture(self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB), t_ns, self._number)

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()


def _library(name: str) -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_package(name, "opencv-python-headless", "v4l2") from error
    return cv2
