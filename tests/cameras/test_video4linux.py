"""V4L2 without a camera: what is refused and listed, and OpenCV's own frames out of a file in a device's place.

The file goes through the same `cv2.VideoCapture` reads, sizes and colours as a device, by another backend of OpenCV.
What only a device shows (its time stamps, its formats, being unplugged) is not tested here.
"""

import time

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs the extra `v4l2`")

from memrt.robot_io.cameras.settings import CameraConfig  # noqa: E402
from memrt.robot_io.cameras.video4linux import V4L2Source, list_v4l2, open_v4l2  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

RED = (250, 20, 10)


@pytest.fixture
def film(tmp_path):
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    assert writer.isOpened()
    for _ in range(3):
        writer.write(np.full((48, 64, 3), RED[::-1], np.uint8))
    writer.release()
    return path


def test_frames_are_rgb_and_timed_by_arrival_where_the_stamp_is_no_clock(film):
    config = CameraConfig(kind="v4l2", path=film, width=64, height=48)
    source = V4L2Source("front", config, cv2.VideoCapture(film))
    before = time.monotonic_ns()
    pictures = [source.read(1.0) for _ in range(3)]
    after = time.monotonic_ns()
    for number, picture in enumerate(pictures, 1):
        assert picture.number == number
        assert before <= picture.t_ns <= after
        np.testing.assert_allclose(picture.image.mean((0, 1)), RED, atol=6)  # MJPG
    with pytest.raises(MemrtError, match="the device was unplugged"):
        source.read(1.0)
    source.close()


def test_a_stamp_of_our_clock_is_taken_as_it_is():
    """A stand-in for the one property that only V4L2 sets: the buffer's CLOCK_MONOTONIC stamp."""
    stamp_ns = time.monotonic_ns() - 30_000_000

    class Device:
        def read(self):
            return True, np.zeros((48, 64, 3), np.uint8)

        def get(self, which):
            assert which == cv2.CAP_PROP_POS_MSEC
            return stamp_ns / 1e6

    config = CameraConfig(kind="v4l2", path="/dev/video0", width=64, height=48)
    assert V4L2Source("front", config, Device()).read(1.0).t_ns == pytest.approx(stamp_ns, abs=1000)


@pytest.mark.parametrize(("half", "value"), [("left", 10), ("right", 200)])
def test_one_eye_of_a_stereo_camera_is_taken(half, value):
    """A stand-in for a camera that sends both side by side, as a ZED does."""

    class Device:
        def read(self):
            return True, np.hstack([np.full((48, 64, 3), 10, np.uint8), np.full((48, 64, 3), 200, np.uint8)])

        def get(self, which):
            return 0.0

    config = CameraConfig(kind="v4l2", path="/dev/video0", width=64, height=48, half=half)
    image = V4L2Source("front", config, Device()).read(1.0).image
    assert image.shape == (48, 64, 3)
    assert (image == value).all()


def test_another_size_is_refused(film):
    source = V4L2Source("front", CameraConfig(kind="v4l2", path=film), cv2.VideoCapture(film))
    with pytest.raises(MemrtError, match="expected pictures of 640x480, found 64x48"):
        source.read(1.0)
    source.close()


def test_no_device_and_no_capture_device_are_one_line_each(tmp_path):
    with pytest.raises(MemrtError, match=r"a V4L2 device at /dev/video97, found"):
        open_v4l2("front", CameraConfig(kind="v4l2", path="/dev/video97"))
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(MemrtError, match="to open as a V4L2 capture device") as refusal:
        open_v4l2("front", CameraConfig(kind="v4l2", path=str(tmp_path / "video0")))
    assert "\n" not in str(refusal.value)


def test_capture_nodes_are_listed_with_their_stable_links(tmp_path):
    sysfs, by_id, dev = tmp_path / "sys", tmp_path / "by-id", tmp_path / "dev"
    for path in (by_id, dev):
        path.mkdir()
    for node, card, index in (("video0", "C920", "0"), ("video1", "C920", "1"), ("video4", "Capture", "0")):
        (sysfs / node).mkdir(parents=True)
        (sysfs / node / "name").write_text(f"{card}\n")
        (sysfs / node / "index").write_text(f"{index}\n")
        (dev / node).touch()
    (sysfs / "video5").mkdir()  # gone while we look
    link = by_id / "usb-046d_HD_Pro_Webcam_C920_1234-video-index0"
    link.symlink_to(dev / "video0")
    assert list_v4l2(sysfs, by_id) == [
        {"path": "/dev/video0", "name": "C920", "by_id": str(link)},
        {"path": "/dev/video4", "name": "Capture", "by_id": ""},
    ]
    assert list_v4l2(tmp_path / "nothing", tmp_path / "nothing") == []
