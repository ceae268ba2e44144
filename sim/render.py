"""Software rendering of a scene's cameras."""

from __future__ import annotations

from types import TracebackType

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim.scene import IMAGE_SIZE, Scene


class SceneRenderer:
    """Owns one off-screen context; close it, or use it as a context manager. Not thread-safe.

    It draws the scene's own data, or `data`: a copy that another thread's physics does not touch.
    """

    def __init__(self, scene: Scene, data: mujoco.MjData | None = None) -> None:
        self._data = scene.data if data is None else data
        self._renderer = mujoco.Renderer(scene.model, IMAGE_SIZE, IMAGE_SIZE)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """The camera's present view, uint8 [256, 256, 3], RGB."""
        self._renderer.update_scene(self._data, camera)
        return self._renderer.render()

    def close(self) -> None:
        """Free the off-screen context."""
        self._renderer.close()

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
