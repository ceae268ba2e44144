"""What may reach the robot and what may reach the policy: checks of chunks and of cameras, pure."""

from __future__ import annotations

from typing import Literal

import numpy as np

from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import PROPRIOCEPTION_DIM, ActionChunk


def refuse_chunk(chunk: ActionChunk, horizon: int) -> str:
    """Why the chunk must not be played, or "" when it may."""
    if chunk.actions.shape != (horizon, PROPRIOCEPTION_DIM):
        return f"shape {list(chunk.actions.shape)} instead of [{horizon}, {PROPRIOCEPTION_DIM}]"
    if not np.isfinite(chunk.actions).all():
        return "non-finite action"
    if chunk.dt_ns <= 0:
        return f"dt of {chunk.dt_ns} ns"
    return ""


def camera_state(now_ns: int, oldest_ns: int, settings: LoopSettings) -> Literal["fresh", "stale", "lost"]:
    """Fresh: use it. Stale: start no inference. Lost: hold until an operator resumes."""
    age_ns = now_ns - oldest_ns
    if age_ns > settings.camera_lost_ns:
        return "lost"
    return "stale" if age_ns > settings.camera_stale_ns else "fresh"
