"""One thread per camera: its pictures into a shared-memory ring, reopened by itself when the camera goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import CameraEnded, Picture, Source, open_source
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Frame

RING_SLOTS = 8  # a quarter of a second at 30 Hz: neighbours in time for other cameras, and frames readers still hold
READ_S = 0.1  # how long a read may take before the thread looks whether it is to end
SILENT_NS = NS_PER_S  # a camera without a picture for this long is opened anew
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0  # between attempts, doubled each time

Tell = Callable[[str], None]
Open = Callable[[str, CameraConfig], Source]


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """What happened since the start. `lost` frames are gaps in the camera's count; `trouble` is "" when all is well."""

    frames: int = 0
    lost: int = 0
    unread: int = 0  # not written, because readers held every slot of the ring
    reconnects: int = 0
    failed_attempts: int = 0
    ended: bool = False
    trouble: str = ""


class CapturedCamera:
    """A Camera (memrt.runtime.types) that fills the ring `ring_name`; indices rise by one over reconnects.

    `tell` gets one line when the camera goes and one when it is back. Every method may be called from any thread.
    """

    def __init__(
        self, name: str, config: CameraConfig, ring_name: str, tell: Tell, open_camera: Open = open_source
    ) -> None:
        self._name, self._config, self._tell, self._open = name, config, tell, open_camera
        self._ring = FrameRing.create(ring_name, RING_SLOTS, config.height, config.width, 3)
        self._reader = FrameRing.open(ring_name)
        self._quit = threading.Event()
        self._settled = threading.Event()  # the first picture, or the first refusal
        self._refusal: MemrtError | None = None
        self._lock = threading.Lock()
        self._counts = {"frames": 0, "lost": 0, "unread": 0, "reconnects": 0, "failed_attempts": 0}
        self._trouble, self._ended = "", False
        self._last_t_ns = 0
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)

    def start(self) -> None:
        """Begin to capture; `wait_first` tells how it went."""
        self._thread.start()

    def wait_first(self, timeout_s: float = 10.0) -> None:
        """Return when the first picture is there. Raises MemrtError when the camera cannot be opened or gives none."""
        settled = self._settled.wait(timeout_s)
        if self._refusal is not None:
            raise self._refusal
        if not settled:
            raise MemrtError(
                f"camera `{self._name}`",
                expected=f"a first picture within {timeout_s:g} s",
                found="none",
                fix="check the cable, and whether another program uses the camera",
            )

    @property
    def name(self) -> str:
        """The name that policies know the camera by."""
        return self._name

    @property
    def ring(self) -> str:
        """The name of the shared-memory ring."""
        return self._ring.name

    @property
    def counts(self) -> CaptureCounts:
        """What happened so far."""
        with self._lock:
            return CaptureCounts(**self._counts, ended=self._ended, trouble=self._trouble)

    def latest(self) -> Frame | None:
        """A copy of the newest frame, or None before the first."""
        newest = self._reader.latest_copy()
        return None if newest is None else Frame(self._name, newest[1], newest[2], newest[0])

    def close(self) -> None:
        """End the thread, give the device back and remove the ring."""
        self._quit.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._reader.close()
        self._ring.close()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._quit.is_set():
            frames_before = self._counts["frames"]
            try:
                source = self._open(self._name, self._config)
                try:
                    self._read_all(source)
                finally:
                    source.close()
            except CameraEnded:
                if self._config.repeat and self._counts["frames"] > frames_before:
                    continue
                with self._lock:
                    self._ended = True
                return
            except Exception as unexpected:  # whatever a vendor's library raises: no camera may end in silence
                error = _refusal(self._name, unexpected)
                if not self._settled.is_set():  # never opened: whoever waits gets the refusal, nobody else needs a line
                    self._refusal = error
                    self._settled.set()
                    return
                if self._counts["frames"] > frames_before:
                    pause_s = FIRST_PAUSE_S
                self._note(error)
                self._quit.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read_all(self, source: Source) -> None:
        """Read until the camera ends, fails, falls silent, or the thread is to end."""
        heard_ns, number = time.monotonic_ns(), None
        while not self._quit.is_set():
            picture = source.read(READ_S)
            now_ns = time.monotonic_ns()
            if picture is None:
                if now_ns - heard_ns > SILENT_NS:
                    raise self._silence(now_ns - heard_ns)
                continue
            heard_ns = now_ns
            self._write(picture, max(0, picture.number - number - 1) if number is not None else 0)
            number = picture.number

    def _write(self, picture: Picture, lost: int) -> None:
        # Rising whatever the device's clock did: readers look for a time among the ring's frames.
        t_ns = max(picture.t_ns - round(self._config.latency_ms * NS_PER_MS), self._last_t_ns + 1)
        self._last_t_ns = t_ns
        back = ""
        with self._lock:
            self._counts["frames"] += 1
            self._counts["lost"] += lost
            if self._trouble:
                self._counts["reconnects"] += 1
                self._trouble, back = "", f"camera `{self._name}` is back"
            index = self._counts["frames"]
        if not self._ring.write(picture.image, index, t_ns):
            with self._lock:
                self._counts["unread"] += 1
        self._settled.set()
        if back:
            self._tell(back)

    def _note(self, error: MemrtError) -> None:
        with self._lock:
            news = not self._trouble
            self._trouble = str(error)
            self._counts["failed_attempts"] += not news
        if news:
            self._tell(f"{error}. Trying again until it is back")

    def _silence(self, silent_ns: int) -> MemrtError:
        return MemrtError(
            f"camera `{self._name}`",
            expected="a picture",
            found=f"none for {silent_ns / NS_PER_S:.1f} s",
            fix="check the cable",
        )


def _refusal(name: str, error: Exception) -> MemrtError:
    if isinstance(error, MemrtError):
        return error
    found = f"{type(error).__name__}: {error}"
    return MemrtError(f"camera `{name}`", expected="its driver to work", found=found, fix="check the camera's settings")
