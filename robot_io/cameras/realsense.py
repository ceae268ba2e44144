"""Intel RealSense colour streams: a live device by its serial number, or a recording (.db3, .bag).

Everything goes through the device's colour sensor and a bounded queue, so that a live camera, a recording and a
`software_device` take the same way. Times: librealsense stamps a frame in one of three domains. `global_time` and
`system_time` are this computer's wall clock, `hardware_clock` is the device's counter; all become CLOCK_MONOTONIC here.
The stamp is of the end of exposure, when readout begins; metadata say how long before that its middle was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memrt.robot_io.cameras.device_time import DeviceClock, wall_to_monotonic
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import CameraEnded, Picture, check_size, missing_package
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError

QUEUE_FRAMES = 4  # librealsense drops the oldest beyond these; the capture thread keeps up with one
NS_PER_US = 1000
LONGEST_EXPOSURE_US = 200_000  # a UVC camera's frame period at 5 Hz; more than that is a counter that was reset
_COUNTER_US = 1 << 32  # the device's microseconds are 32 bits wide


def open_realsense(name: str, config: CameraConfig) -> RealSenseSource:
    """Open the configured device or recording. Raises MemrtError when it is not there."""
    rs = _library(name)
    context = rs.context()
    if config.path is None:
        return RealSenseSource(name, config, _connected(name, context, str(config.serial)))
    path = Path(config.path).expanduser()
    try:
        device = context.load_device(str(path))
    except RuntimeError as error:
        raise MemrtError(
            f"camera `{name}`",
            expected=f"a RealSense recording (.db3 or .bag) at {path}",
            found=error if path.exists() else "no such file",
            fix="correct `path`; recordings are made with realsense-viewer or rs-record",
        ) from error
    return RealSenseSource(name, config, device)


def list_realsense() -> list[dict[str, str]]:
    """Name, serial number, firmware (and which one librealsense recommends) and USB type of every connected device.

    ImportError without pyrealsense2.
    """
    import pyrealsense2 as rs

    wanted = {
        "name": rs.camera_info.name,
        "serial": rs.camera_info.serial_number,
        "firmware": rs.camera_info.firmware_version,
        "recommended_firmware": rs.camera_info.recommended_firmware_version,
        "usb": rs.camera_info.usb_type_descriptor,
    }
    return [
        {key: device.get_info(info) for key, info in wanted.items() if device.supports(info)}
        for device in rs.context().query_devices()
    ]


class RealSenseSource:
    """The colour stream of one opened `device` (pyrealsense2: live, played back or `software_device`)."""

    def __init__(self, name: str, config: CameraConfig, device: Any) -> None:
        self._rs = _library(name)
        self._name, self._config, self._device = name, config, device
        self._clock = DeviceClock()
        self._queue = self._rs.frame_queue(QUEUE_FRAMES)
        self._playback = device.as_playback() if device.is_playback() else None
        if self._playback:
            self._playback.set_real_time(True)
        with self._refusals("a device that starts to stream"):
            self._sensor, profile = self._colour()
            self._sensor.open(profile)
            self._sensor.start(self._queue)

    def read(self, timeout_s: float) -> Picture | None:
        """The next colour frame. Raises MemrtError when the device is gone, CameraEnded when the recording is over."""
        with self._refusals("a device that streams"):
            arrived, frame = self._queue.try_wait_for_frame(round(timeout_s * 1000))
            received_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            if not arrived:
                if self._playback and self._playback.current_status() == self._rs.playback_status.stopped:
                    raise CameraEnded
                return None
            image = np.asanyarray(frame.get_data())
            check_size(self._name, self._config, image)
            t_ns = self._stamp(frame, received_ns, wall_ns) - self._before_stamp_us(frame) * NS_PER_US
            return Picture(image, t_ns, frame.get_frame_number())

    def close(self) -> None:
        """Stop streaming. A device that was unplugged cannot be told any more, which is no error."""
        for end in (self._sensor.stop, self._sensor.close):
            with contextlib.suppress(RuntimeError):
                end()

    def _stamp(self, frame: Any, received_ns: int, wall_ns: int) -> int:
        stamp_ns = round(frame.get_timestamp() * NS_PER_MS)
        if frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock:
            return self._clock.to_monotonic(stamp_ns, received_ns)
        return wall_to_monotonic(stamp_ns, wall_ns, received_ns)

    def _before_stamp_us(self, frame: Any) -> int:
        """How long before its stamp the middle of the frame's exposure was."""
        kinds = self._rs.frame_metadata_value
        known = {kind: frame.get_frame_metadata(kind) for kind in _timing(kinds) if frame.supports_frame_metadata(kind)}
        readout, middle = known.get(kinds.frame_timestamp), known.get(kinds.sensor_timestamp)
        if readout is not None and middle is not None:
            before = (readout - middle) % _COUNTER_US
            if before <= LONGEST_EXPOSURE_US:
                return int(before)
        exposure = known.get(kinds.actual_exposure, 0)
        return int(exposure) // 2 if 0 <= exposure <= LONGEST_EXPOSURE_US else 0

    def _colour(self) -> tuple[Any, Any]:
        """The sensor and its stream profile of the configured size and rate; a recording's rate is its own."""
        config, rs = self._config, self._rs
        offered: set[str] = set()
        for sensor in self._device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                size = (video.width(), video.height())
                if size == (config.width, config.height) and (self._playback or profile.fps() == config.fps):
                    return sensor, profile
                offered.add(f"{size[0]}x{size[1]} at {profile.fps()}")
        raise MemrtError(
            f"camera `{self._name}`",
            expected=f"RGB8 pictures of {config.width}x{config.height} at {config.fps} frames/s",
            found=", ".join(sorted(offered)) or "no RGB8 colour stream",
            fix="set `width`, `height` and `fps` to one of these; a device on USB 2 offers fewer",
        )

    @contextlib.contextmanager
    def _refusals(self, expected: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise MemrtError(
                f"camera `{self._name}`", expected=expected, found=error, fix="check cable, USB port and other users"
            ) from error


def _timing(kinds: Any) -> tuple[Any, ...]:
    return kinds.frame_timestamp, kinds.sensor_timestamp, kinds.actual_exposure


def _connected(name: str, context: Any, serial: str) -> Any:
    rs = _library(name)
    found = []
    for device in context.query_devices():
        number = device.get_info(rs.camera_info.serial_number)
        if number == serial:
            return device
        found.append(number)
    raise MemrtError(
        f"camera `{name}`",
        expected=f"a RealSense with serial number {serial}",
        found=", ".join(found) or "no RealSense",
        fix="plug it in, or correct `serial`; `memrt cameras list` shows what is connected",
    )


def _library(name: str) -> Any:
    try:
        import pyrealsense2
    except ModuleNotFoundError as error:
        raise missing_package(name, "pyrealsense2", "realsense") from error
    except ImportError as error:  # its library needs Debian's libusb
        raise MemrtError(
            f"camera `{name}`",
            expected="pyrealsense2 to load",
            found=error,
            fix="apt-get install libusb-1.0-0",
        ) from error
    return pyrealsense2
