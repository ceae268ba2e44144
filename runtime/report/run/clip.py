"""The recorded frames of a run as one small MP4, the cameras side by side, and single frames as JPEG."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import simplejpeg
from PIL import Image

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.recording.messages import RawImage
from memrt.runtime.recording.reader import Recording, is_frame
from memrt.runtime.report.run.document import Video, View
from memrt.runtime.types import Frame, ImageArray

FrameKey: TypeAlias = tuple[str, int]  # camera, index

MAX_VIDEO_BYTES = 12 << 20
MAX_FRAMES = 9_000  # a quarter of an hour at `FPS`; longer runs get fewer per second
FPS = 10
MAX_CAMERAS = 3
LEAST_HEIGHT, MOST_HEIGHT = 64, 288  # pixels of a view
QUALITY = 27  # x264's constant rate factor: 30 s of two simulated views take about half a megabyte
THUMBNAIL_HEIGHT = 96
JPEG_QUALITY = 75


@dataclass(slots=True)
class Pictures:
    """`jpegs` are those that were asked for, None where one was not recorded; `mp4` is empty without a `video`."""

    jpegs: list[bytes | None]
    mp4: bytes = b""
    video: Video | None = None
    remarks: list[str] = field(default_factory=list)


def read_pictures(
    recording: Recording,
    wanted: Mapping[FrameKey, int],
    cameras: Sequence[str],
    first_ns: int,
    duration_s: float,
    *,
    video: bool,
) -> Pictures:
    """Read all frames of `recording` once: those `wanted` as JPEG by number, and a clip of `cameras`.

    The clip begins at `first_ns`. Where it cannot be made, or would be too large, a remark says so.
    """
    found = Pictures([None] * len(wanted))
    with tempfile.TemporaryDirectory(prefix="memrt-report-") as folder:
        path = Path(folder) / "run.mp4"
        film = _Film(path, list(cameras)[:MAX_CAMERAS], first_ns, duration_s) if video and cameras else None
        for recorded in recording.messages(is_frame):
            message = recorded.message
            assert isinstance(message, RawImage)
            number = wanted.get((message.frame_id, message.index))
            if number is not None:
                found.jpegs[number] = _jpeg(message.frame().image)
            if film is not None:
                film.take(message.frame())
        if film is not None:
            found.video, problem = film.finish()
            found.mp4 = path.read_bytes() if found.video is not None else b""
            if len(found.mp4) > MAX_VIDEO_BYTES:
                found.mp4, found.video, problem = b"", None, f"it takes more than {MAX_VIDEO_BYTES >> 20} MB"
            found.remarks += [f"No video: {problem}."] if problem else []
    return found


class _Film:
    """Shows at every moment the newest frame of each camera; nothing is shown before all have one."""

    def __init__(self, path: Path, cameras: list[str], first_ns: int, duration_s: float) -> None:
        self._path, self._cameras, self._first_ns = path, cameras, first_ns
        self._fps = max(1, min(FPS, int(MAX_FRAMES / max(duration_s, 1.0))))
        self._frames = max(2, min(MAX_FRAMES, round(duration_s * self._fps) + 1))
        self._newest: dict[str, Frame] = {}
        self._views: list[View] = []
        self._canvas: ImageArray | None = None
        self._writer: Generator[None, ImageArray, None] | None = None
        self._written = 0
        self._problem = ""

    def take(self, frame: Frame) -> None:
        """An older frame than the camera's newest, which a policy asked for later, is not shown again."""
        newest = self._newest.get(frame.camera)
        if self._problem or frame.camera not in self._cameras or (newest is not None and frame.t_ns <= newest.t_ns):
            return
        if len(self._newest) == len(self._cameras):
            self._write_before(frame.t_ns)
        self._newest[frame.camera] = frame
        self._canvas = None

    def finish(self) -> tuple[Video | None, str]:
        """The clip's geometry, or None and why there is none."""
        if not self._problem and len(self._newest) < len(self._cameras):
            self._problem = "a camera has no frames in the recording"
        if not self._problem:
            self._write_before(self._first_ns + NS_PER_S * (self._frames + 1))
        if self._writer is not None:
            with contextlib.suppress(OSError):  # what failed was noted when a frame could not be written
                self._writer.close()
        if self._problem:
            return None, self._problem
        width, height = self._size
        return Video(width=width, height=height, fps=self._fps, frames=self._written, views=self._views), ""

    @property
    def _size(self) -> tuple[int, int]:
        last = self._views[-1]
        return last.left + last.width, last.height

    def _write_before(self, t_ns: int) -> None:
        while self._written < self._frames and self._first_ns + self._written * NS_PER_S // self._fps < t_ns:
            if not self._views:
                self._lay_out()
            if self._canvas is None:
                self._canvas = self._composed()
            try:
                if self._writer is None:
                    self._writer = _mp4(self._path, self._size, self._fps)
                self._writer.send(self._canvas)
            except (OSError, StopIteration) as error:
                self._problem = str(error) or "ffmpeg has stopped"
                return
            except ModuleNotFoundError:
                self._problem = "imageio-ffmpeg is not installed (pip install 'memrt[sim]')"
                return
            self._written += 1

    def _lay_out(self) -> None:
        left, height = 0, 0
        for camera in self._cameras:
            tall, wide, _ = self._newest[camera].image.shape
            height = height or _even(min(max(tall, LEAST_HEIGHT), MOST_HEIGHT))
            width = _even(wide * height / tall)
            self._views.append(View(camera=camera, left=left, width=width, height=height))
            left += width

    def _composed(self) -> ImageArray:
        width, height = self._size
        canvas = np.zeros((height, width, 3), np.uint8)
        for view in self._views:
            picture = Image.fromarray(self._newest[view.camera].image)
            if picture.size != (view.width, view.height):
                picture = picture.resize((view.width, view.height), Image.Resampling.BILINEAR)
            canvas[:, view.left : view.left + view.width] = np.asarray(picture)
        return canvas


def _mp4(path: Path, size: tuple[int, int], fps: int) -> Generator[None, ImageArray, None]:
    """A keyframe every second, so that the page finds any moment at once; a rate that keeps to `MAX_VIDEO_BYTES`."""
    import imageio_ffmpeg

    most = f"{MAX_VIDEO_BYTES * 8 * fps // MAX_FRAMES // 1000}k"
    options = ["-crf", str(QUALITY), "-maxrate", most, "-bufsize", most, "-g", str(fps), "-movflags", "+faststart"]
    writer: Generator[None, ImageArray, None] = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=fps,
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=[*options, "-threads", "1"],
    )
    next(writer)
    return writer


def _jpeg(image: ImageArray) -> bytes:
    height, width, _ = image.shape
    size = max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=JPEG_QUALITY)
    return data


def _even(pixels: float) -> int:
    return max(2, 2 * round(pixels / 2))
