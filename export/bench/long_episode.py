"""`memrt bench high-level --minutes 60`: does the high level's cost grow with the episode?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memrt.export.bench.high_level import open_model
from memrt.export.bench.race import Measured, Progress, Race
from memrt.export.bench.vlm import vlm_engines
from memrt.export.plan import Scheme
from memrt.runtime.bench import long_episode
from memrt.runtime.bench.hardware import hardware, versions
from memrt.runtime.bench.long_episode import CALLS_PER_MINUTE, OLD, STRIDE, YOUNG

MIB = 1 << 20


def bench_long_episode(
    size: str,
    *,
    minutes: int,
    layers: int | None,
    calls: int,
    tokens: int,
    threads: int,
    precision: Scheme,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The report, as plain JSON values. Raises MemrtError for an unknown size."""
    model = open_model(size, layers)
    before = hardware()
    folder = vlm_engines(model, precision, work, progress)
    settings = {"minutes": minutes, "folder": str(folder), "threads": threads, "tokens": tokens}
    found = Race(long_episode.__name__, settings, calls).apart([OLD, YOUNG], progress)
    return {
        "bench": "high-level",
        "mode": "episode",
        "size": size,
        "decoder_layers": model.settings.layers,
        "minutes": minutes,
        "calls_of_the_episode": minutes * CALLS_PER_MINUTE,
        "vlm_asked": f"every call of the first minute, then every {STRIDE}th; memory and store at every call",
        "threads": threads,
        "runs": calls,
        "tokens": tokens,
        "precision": precision,
        **summary(found),
        "how": "calls after one minute and after all of them in turns, in one process without torch",
        "hardware": before,
        "versions": versions(),
        "measured_on": "CPU",
    }


def summary(found: dict[str, Measured]) -> dict[str, Any]:
    """Cost of a call and resident memory, young and old, and the ratios old / young."""
    young, old = found[YOUNG], found[OLD]
    resident = [int(value) for value in old.outputs["resident"]]
    return {
        "call_ms": {name: one.median("call") for name, one in found.items()},
        "memory_ms": {name: one.median("memory") for name, one in found.items()},
        "resident_mib": {YOUNG: round(resident[0] / MIB, 1), OLD: round(resident[1] / MIB, 1)},
        "kept_frames": {YOUNG: int(old.outputs["frames"][0]), OLD: int(old.outputs["frames"][1])},
        "kept_kib": {YOUNG: int(old.outputs["bytes"][0]) >> 10, OLD: int(old.outputs["bytes"][1]) >> 10},
        "ratio": {
            "call": round(old.median("call") / young.median("call"), 4),
            "resident": round(resident[1] / max(resident[0], 1), 4),
        },
        "all_runs_ms": {name: one.times for name, one in found.items()},
    }
