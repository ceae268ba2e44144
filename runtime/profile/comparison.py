"""High level on against off, judged by how much each differs from itself (A/A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memrt.runtime.profile.protocol import OFF, ON
from memrt.runtime.profile.window import Window, percentiles_ms

COMPARED = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Compared:
    """One percentile of one stage [ms], per repetition of each condition.

    `noise`: the larger of the two conditions' differences between their repetitions. `difference`: mean on minus mean
    off. It is `real` only if it exceeds the noise. Without the other condition (the high level's own stages), or with a
    single repetition, what cannot be said is None.
    """

    stage: str
    percentile: str
    on: tuple[float, ...]
    off: tuple[float, ...]
    noise: float | None
    difference: float | None
    ratio: float | None
    real: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "on": list(self.on), "off": list(self.off)}


def compare(windows: Sequence[Window]) -> list[Compared]:
    """Every stage's `COMPARED` percentiles, the control thread's lateness last."""
    figures = {
        condition: [_figures(window) for window in windows if window.condition == condition] for condition in (ON, OFF)
    }
    stages = dict.fromkeys(stage for window in (*figures[ON], *figures[OFF]) for stage in sorted(window))
    found = []
    for stage in stages:
        for percentile in COMPARED:
            on, off = (
                tuple(window[stage][percentile] for window in figures[condition] if percentile in window.get(stage, {}))
                for condition in (ON, OFF)
            )
            found.append(judge(stage, percentile, on, off))
    return found


def judge(stage: str, percentile: str, on: tuple[float, ...], off: tuple[float, ...]) -> Compared:
    """One comparison from each repetition's figure [ms]."""
    repeated = [max(values) - min(values) for values in (on, off) if len(values) > 1]
    noise = max(repeated, default=None)
    if not on or not off:
        return Compared(stage, percentile, on, off, noise, None, None, None)
    mean_on, mean_off = sum(on) / len(on), sum(off) / len(off)
    difference = mean_on - mean_off
    both = len(repeated) == 2 and noise is not None
    ratio = mean_on / mean_off if mean_off > 0 else None
    return Compared(
        stage,
        percentile,
        on,
        off,
        noise,
        difference,
        ratio,
        abs(difference) > noise if both and noise is not None else None,
    )


def _figures(window: Window) -> dict[str, dict[str, float]]:
    found = {stage: percentiles_ms(latencies) for stage, latencies in window.latencies.items() if latencies.count}
    if window.control is not None and window.control.lateness_ms:
        found["control lateness"] = dict(window.control.lateness_ms)
    return found
