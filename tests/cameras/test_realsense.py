"""RealSense through librealsense itself: a software device, and recordings that are made here."""

import time
from itertools import pairwise

import numpy as np
import pytest
from scripted import all_pictures

NEEDS = "needs the extra `realsense` and Debian's libusb-1.0-0"
rs = pytest.importorskip("pyrealsense2", reason=NEEDS, exc_type=ImportError)

from memrt.robot_io.cameras import realsense  # noqa: E402
from memrt.robot_io.cameras.realsense import RealSenseSource, list_realsense, open_realsense  # noqa: E402
from memrt.robot_io.cameras.settings import CameraConfig  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

WIDTH, HEIGHT, FPS = 64, 48, 30
LIVE = CameraConfig(kind="realsense", serial="software", width=WIDTH, height=HEIGHT, fps=FPS)
MS = 1_000_000


class SoftwareCamera:
    """librealsense's own stand-in for a device: what `take` is given comes out of its colour sensor."""

    def __init__(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, "software")
        self.sensor = self.device.add_sensor("RGB Camera")
        stream = rs.video_stream()
        stream.type, stream.fmt, stream.bpp, stream.fps = rs.stream.color, rs.format.rgb8, 3, FPS
        stream.width, stream.height, stream.uid, stream.index = width, height, 1, 0
        self.profile = self.sensor.add_video_stream(stream).as_video_stream_profile()
        self.shape = (height, width, 3)

    def take(self, number: int, stamp_ms: float, domain=None, **metadata: int) -> None:
        for name, value in metadata.items():
            self.sensor.set_metadata(getattr(rs.frame_metadata_value, name), value)
        frame = rs.software_video_frame()
        frame.pixels = np.full(self.shape, number, np.uint8)
        frame.stride, frame.bpp, frame.frame_number = 3 * self.shape[1], 3, number
        frame.timestamp, frame.profile = stamp_ms, self.profile
        frame.domain = rs.timestamp_domain.hardware_clock if domain is None else domain
        self.sensor.on_video_frame(frame)


@pytest.fixture
def camera():
    return SoftwareCamera()


@pytest.fixture
def source(camera):
    opened = RealSenseSource("front", LIVE, camera.device)
    yield opened
    opened.close()


def test_pixels_and_numbers_are_the_devices(camera, source):
    assert source.read(0.01) is None
    for number in (5, 9):
        camera.take(number, 1000.0 + number)
        picture = source.read(1.0)
        assert picture.number == number
        assert picture.image.dtype == np.uint8
        np.testing.assert_array_equal(picture.image, np.full((HEIGHT, WIDTH, 3), number, np.uint8))


@pytest.mark.real_time
def test_the_devices_counter_becomes_our_clock(camera, source):
    """Each picture's time differs from the first one's as the device says, however late it is read."""
    times = []
    for number in range(1, 5):
        before = time.monotonic_ns()
        camera.take(number, 50.0 * number)
        picture = source.read(1.0)
        assert picture.t_ns <= time.monotonic_ns()
        times.append(picture.t_ns)
        if number == 1:
            assert before <= picture.t_ns
        time.sleep(0.06)  # slower than the device's 50 ms: the first arrival stays the quickest
    assert np.diff(times).tolist() == [50 * MS] * 3


@pytest.mark.real_time
@pytest.mark.parametrize("domain", [rs.timestamp_domain.global_time, rs.timestamp_domain.system_time])
def test_wall_clock_domains_become_our_clock(camera, source, domain):
    taken, wall = time.monotonic_ns(), time.time_ns()
    camera.take(1, (wall - 20 * MS) / MS, domain)
    picture = source.read(1.0)
    assert picture.t_ns == pytest.approx(taken - 20 * MS, abs=5 * MS)


@pytest.mark.parametrize(
    ("metadata", "before_us"),
    [
        ({}, 0),
        ({"actual_exposure": 8000}, 4000),
        ({"frame_timestamp": 1_007_000, "sensor_timestamp": 1_001_000, "actual_exposure": 8000}, 6000),
        ({"frame_timestamp": 2_000, "sensor_timestamp": 2**32 - 1_000}, 3000),  # the counter wrapped in between
        ({"frame_timestamp": 5_000_000, "sensor_timestamp": 1_000, "actual_exposure": 8000}, 4000),
    ],
)
def test_the_time_is_the_middle_of_the_exposure(camera, source, metadata, before_us):
    camera.take(1, 1000.0)
    plain = source.read(1.0).t_ns
    camera.take(2, 1000.0, **metadata)  # the same stamp
    assert plain - source.read(1.0).t_ns == before_us * 1000


def test_a_size_that_the_device_does_not_offer_is_refused_with_what_it_offers(camera):
    other = CameraConfig(kind="realsense", serial="software", width=1920, height=1080, fps=FPS)
    with pytest.raises(MemrtError, match="1920x1080 at 30 frames/s, found 64x48 at 30"):
        RealSenseSource("front", other, camera.device)


def record(path, frames: int) -> None:
    """A recording by librealsense's own recorder, 10 ms between frames."""
    camera = SoftwareCamera()
    recorder = rs.recorder(str(path), camera.device)
    sensor = recorder.query_sensors()[0]
    queue = rs.frame_queue(frames)
    sensor.open(sensor.get_stream_profiles()[0])
    sensor.start(queue)
    for number in range(1, frames + 1):
        camera.take(number, 100.0 + 10 * number)
        time.sleep(0.01)
    sensor.stop()
    sensor.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "front.db3"
    record(path, 20)
    return path


@pytest.mark.real_time
def test_a_recording_plays_to_its_end_at_its_own_pace(recording, monkeypatch):
    monkeypatch.setattr(realsense, "QUEUE_FRAMES", 64)  # so that none is dropped because this thread is held up
    config = CameraConfig(kind="realsense", path=str(recording), width=WIDTH, height=HEIGHT, fps=FPS)
    source = open_realsense("front", config)
    pictures = [(picture.number, picture.t_ns, int(picture.image[0, 0, 0])) for picture in all_pictures(source)]
    source.close()
    numbers = [number for number, _, _ in pictures]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 10  # librealsense itself drops frames on a busy computer; none may come twice
    assert all(number == pixel for number, _, pixel in pictures)
    for (first, t0, _), (second, t1, _) in pairwise(pictures):
        assert t1 - t0 <= (second - first) * 10 * MS + 1000  # less where the first was held up on its way here


def test_no_such_recording_and_no_such_device_are_one_line_each(tmp_path):
    missing = CameraConfig(kind="realsense", path=str(tmp_path / "none.db3"))
    with pytest.raises(MemrtError, match="found no such file"):
        open_realsense("front", missing)
    (tmp_path / "broken.db3").write_bytes(b"no recording")
    with pytest.raises(MemrtError, match="a RealSense recording") as refusal:
        open_realsense("front", CameraConfig(kind="realsense", path=str(tmp_path / "broken.db3")))
    assert "\n" not in str(refusal.value)
    with pytest.raises(MemrtError, match="a RealSense with serial number 0000, found"):
        open_realsense("front", CameraConfig(kind="realsense", serial="0000"))


def test_what_is_connected_can_be_listed():
    assert all(device["serial"] for device in list_realsense())
