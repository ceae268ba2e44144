"""A camera whose ring another program writes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from memrt.robot_io.cameras.rig import CameraRig
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.watch import problems, watch
from memrt.runtime._core import FrameRing
from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import convert

pytestmark = pytest.mark.real_time

NAME = f"memrt-test-shared-{os.getpid()}"


def config(name: str = NAME, *, width: int = 8, height: int = 6, fps: int = 50) -> CameraConfig:
    return CameraConfig(kind="ring", name=name, width=width, height=height, fps=fps)


@pytest.fixture
def written() -> Iterator[FrameRing]:
    """A ring that is written 100 times per second."""
    ring, quit_ = FrameRing.create(NAME, 8, 6, 8, 3), threading.Event()

    def write() -> None:
        index = 0
        while not quit_.wait(0.01):
            index += 1
            ring.write(np.full((6, 8, 3), index % 256, np.uint8), index, time.monotonic_ns())

    thread = threading.Thread(target=write)
    thread.start()
    yield ring
    quit_.set()
    thread.join()
    ring.close()


def test_the_ring_itself_is_passed_on(written: FrameRing) -> None:
    with CameraRig({"front": config()}, "memrt-test-unused", print) as rig:
        assert rig.rings == {"front": NAME}
        camera = rig.cameras["front"]
        assert camera.name == "front"
        frame = camera.latest()
        assert frame is not None
        assert (frame.camera, frame.image.shape) == ("front", (6, 8, 3))
        report = watch(rig, 0.3)["front"]
        assert report["frames"] > 0
        assert rig.counts["front"].frames >= frame.index
    assert problems({**report, "fps": 50.0}, config()) == []
    assert written.written > 0, "its writer goes on"


def test_no_such_ring_is_one_line() -> None:
    with pytest.raises(MemrtError, match=r"camera `front`: expected a shared-memory ring named memrt-none"):
        CameraRig({"front": config("memrt-none")}, "memrt-test-unused", print)


def test_a_ring_whose_writer_ended_gives_no_picture() -> None:
    with FrameRing.create(NAME, 8, 6, 8, 3) as ring:
        ring.write(np.zeros((6, 8, 3), np.uint8), 1, time.monotonic_ns() - 2_000_000_000)
        with pytest.raises(MemrtError, match="a new picture in ring"):
            CameraRig({"front": config()}, "memrt-test-unused", print, first_picture_s=0.05)


def test_another_size_is_refused(written: FrameRing) -> None:
    with pytest.raises(MemrtError, match="expected pictures of 640x480"):
        CameraRig({"front": config(width=640, height=480)}, "memrt-test-unused", print)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "ring"}, "add the name of the shared-memory ring"),
        ({"kind": "replay", "path": "folder", "name": "memrt-front"}, "given exactly when `kind: ring`"),
        ({"kind": "ring", "name": "memrt-front", "path": "folder"}, "path"),
        ({"kind": "ring", "name": "memrt-front", "latency_ms": 5}, "latency_ms"),
        ({"kind": "ring", "name": "memrt-front", "serial": "1"}, "serial"),
        ({"kind": "ring", "name": "memrt-front", "repeat": True}, "repeat"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], said: str) -> None:
    with pytest.raises(MemrtError, match=said):
        convert(settings, CameraConfig, "camera")
