"""Pictures of several cameras and the robot's state at one moment, as UMI aligns them (Chi et al. 2024, §III).

One camera is "now": the time of its newest frame. Of every other camera the frame nearest to that time is taken, and
the robot's state is interpolated to it. Pure functions over buffers of timed values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memrt.runtime.types import FloatArray, Frame, Observation


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """`observation` is at the reference frame's time. `skew_ns`: how much each other frame is later (or, negative,
    earlier). `state_gap_ns`: how far the nearest state is when the moment lies outside the buffer, else 0.
    """

    observation: Observation
    skew_ns: Mapping[str, int]
    state_gap_ns: int


def nearest(times: Sequence[int], t_ns: int) -> int:
    """The index of the time nearest to `t_ns` in rising `times` (not empty); of two as near, the earlier."""
    after = bisect_left(times, t_ns)
    if after == 0:
        return 0
    if after == len(times):
        return len(times) - 1
    return after - 1 if t_ns - times[after - 1] <= times[after] - t_ns else after


def state_at(times: Sequence[int], states: Sequence[FloatArray], t_ns: int) -> tuple[FloatArray, int]:
    """The state [d] at `t_ns`, linear between its neighbours in rising `times` (not empty), and the gap.

    Outside the buffer the first or last state is taken as it is, never extrapolated; the gap says how far off it is.
    """
    after = bisect_left(times, t_ns)
    if after == len(times):
        return np.array(states[-1], dtype=np.float64), t_ns - times[-1]
    if after == 0:
        return np.array(states[0], dtype=np.float64), times[0] - t_ns
    share = (t_ns - times[after - 1]) / (times[after] - times[after - 1])
    before, later = (np.asarray(states[index], dtype=np.float64) for index in (after - 1, after))
    return before + share * (later - before), 0


def align(
    reference: str,
    frames: Mapping[str, Sequence[Frame]],
    state_times: Sequence[int],
    states: Sequence[FloatArray],
) -> Aligned | None:
    """What the robot knew when the `reference` camera took its newest frame, or None while a buffer is empty.

    `frames` holds each camera's recent frames and `states` recent proprioception [d], all in rising time.
    """
    if not state_times or any(not recent for recent in frames.values()):
        return None
    now_ns = frames[reference][-1].t_ns
    chosen = {name: recent[nearest([frame.t_ns for frame in recent], now_ns)] for name, recent in frames.items()}
    state, gap_ns = state_at(state_times, states, now_ns)
    return Aligned(
        Observation(now_ns, state, chosen),
        {name: frame.t_ns - now_ns for name, frame in chosen.items() if name != reference},
        gap_ns,
    )
