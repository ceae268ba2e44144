"""All cameras of one robot, opened together and closed together."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from memrt.robot_io.cameras.capture import CaptureCounts, CapturedCamera, Open, Tell
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.shared import SharedCamera
from memrt.robot_io.cameras.source import open_source


class CameraRig:
    """Captures from every camera of a robot's YAML. `rings` is what a node's driver announces to its client."""

    def __init__(
        self,
        configs: Mapping[str, CameraConfig],
        ring_prefix: str,
        tell: Tell,
        open_camera: Open = open_source,
        first_picture_s: float = 10.0,
    ) -> None:
        """Open all at once and wait for the first picture of each. Raises MemrtError for the first that gives none."""
        self.cameras: dict[str, CapturedCamera | SharedCamera] = {}
        try:
            for name, config in configs.items():
                if config.kind == "ring":
                    self.cameras[name] = SharedCamera(name, config)
                    continue
                captured = CapturedCamera(name, config, f"{ring_prefix}-{name}", tell, open_camera)
                self.cameras[name] = captured
                captured.start()
            for camera in self.cameras.values():
                camera.wait_first(first_picture_s)
        except BaseException:
            self.close()
            raise

    @property
    def rings(self) -> dict[str, str]:
        """The shared-memory ring of each camera."""
        return {name: camera.ring for name, camera in self.cameras.items()}

    @property
    def counts(self) -> dict[str, CaptureCounts]:
        """What happened to each camera."""
        return {name: camera.counts for name, camera in self.cameras.items()}

    def close(self) -> None:
        """Close every camera."""
        for camera in self.cameras.values():
            camera.close()

    def __enter__(self) -> CameraRig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
