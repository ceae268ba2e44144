"""How soon a run was ready, what its process holds, and whether it has stayed free of the training libraries."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.runtime.bench.hardware import peak_bytes, resident_bytes
from memrt.runtime.clock import NS_PER_S

TRAINING_LIBRARIES = ("torch", "transformers")  # a robot's process has room for neither


@dataclass(frozen=True, slots=True)
class Readiness:
    """Seconds until all engines were open and warmed up.

    `engines_s` counts from the beginning of loading (the bundle's hashes are checked first), on the monotonic clock.
    `process_s` counts from the start of the process, imports included, to 10 ms; None where the system does not say.
    """

    engines_s: float
    process_s: float | None

    @classmethod
    def now(cls, began_ns: int) -> Readiness:
        """Everything is ready now; loading began at `began_ns`, monotonic."""
        return cls((time.monotonic_ns() - began_ns) / NS_PER_S, process_age_s())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with this process' memory as it is now."""
        return {
            "engines_ready_s": round(self.engines_s, 3),
            "process_ready_s": None if self.process_s is None else round(self.process_s, 2),
            "memory": {"resident_bytes": resident_bytes(), "peak_bytes": peak_bytes()},
            "training_libraries": training_libraries(),
        }


def training_libraries() -> list[str]:
    """Those of `TRAINING_LIBRARIES` that this process has imported; a run must find none."""
    return [name for name in TRAINING_LIBRARIES if name in sys.modules]


def process_age_s() -> float | None:
    """Seconds since this process was started (Linux: field 22 of /proc/self/stat, in clock ticks since boot)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, AttributeError):
        return None
