"""A camera whose pictures another process of this computer already writes into a frame ring: nothing is copied."""

from __future__ import annotations

import time

from memrt.robot_io.cameras.capture import CaptureCounts
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import check_size
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Frame

LOOK_S = 0.01
WRITER_SILENT_NS = NS_PER_S  # a ring whose newest picture is older than this was left behind by a process that ended


class SharedCamera:
    """A Camera (memrt.runtime.types) that looks into the ring of that name, and captures nothing itself.

    Losses and reconnects are its writer's business; whether pictures still come is the loop's, by their age.
    """

    def __init__(self, name: str, config: CameraConfig) -> None:
        """Raises MemrtError when there is no such ring."""
        self._name, self._config = name, config
        self.ring = config.name or ""
        try:
            self._reader = FrameRing.open(self.ring)
        except (RuntimeError, ValueError) as error:
            raise self._refusal(f"a shared-memory ring named {self.ring}", error) from error

    def wait_first(self, timeout_s: float = 10.0) -> None:
        """Return when a new picture is there. Raises MemrtError when none comes, or when it has another size."""
        deadline_s = time.monotonic() + timeout_s
        while (newest := self.latest()) is None or time.monotonic_ns() - newest.t_ns > WRITER_SILENT_NS:
            if time.monotonic() > deadline_s:
                raise self._refusal(f"a new picture in ring {self.ring} within {timeout_s:g} s", "none")
            time.sleep(LOOK_S)
        check_size(self._name, self._config, newest.image)

    @property
    def name(self) -> str:
        """The name that policies know the camera by."""
        return self._name

    @property
    def counts(self) -> CaptureCounts:
        """What happened since the ring was made, as far as its reader can tell."""
        return CaptureCounts(frames=self._reader.written, unread=self._reader.dropped)

    def latest(self) -> Frame | None:
        """A copy of the newest frame, or None before the first."""
        newest = self._reader.latest_copy()
        return None if newest is None else Frame(self._name, newest[1], newest[2], newest[0])

    def close(self) -> None:
        """Let the ring go; its writer keeps it."""
        self._reader.close()

    def _refusal(self, expected: str, found: object) -> MemrtError:
        return MemrtError(
            f"camera `{self._name}`",
            expected=expected,
            found=found,
            fix="start the program that writes it, or correct `name`",
        )
