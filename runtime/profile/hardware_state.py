"""How the computer is set while it is measured: clocks, power mode, GPU, kernel, real-time rights."""

from __future__ import annotations

import platform
import threading
from typing import Any

from memrt.runtime.bench.hardware import take_realtime
from memrt.runtime.doctor import gpu, kernel, processor
from memrt.runtime.doctor.collect import collect
from memrt.runtime.doctor.snapshot import Snapshot

_GPU = (  # of what nvidia-smi says of each
    *("name", "driver_version", "persistence_mode", "pstate"),
    *("clocks.sm", "clocks.mem", "power.limit", "temperature.gpu"),
)


def hardware_state() -> dict[str, Any]:
    """Plain JSON values; a part that this computer does not have is missing, not guessed."""
    seen = _look(*processor.COMMANDS, *gpu.COMMANDS)
    found: dict[str, Any] = {
        "kernel": platform.release(),
        "preempt_rt": kernel.preempt_rt(seen),
        "realtime_priority": _may_be_realtime(),
    }
    parts = {
        "cpu_clocks": processor.cpu_clocks(seen),
        "power_mode": processor.power_mode(seen),
        "gpus": [{name: card[name] for name in _GPU} for card in gpu.gpus(seen)],
    }
    return found | {name: part for name, part in parts.items() if part}


def cpu_clocks() -> dict[str, Any]:
    """The clocks now, as `hardware_state` has them."""
    return processor.cpu_clocks(_look())


def _look(*commands: tuple[str, ...]) -> Snapshot:
    files = (*kernel.FILES, *processor.FILES)
    return collect(files=files, links=(), devices=(), commands=commands, packages=())


def _may_be_realtime() -> bool:
    """Whether a thread of this user may have the control thread's priority. Tried in one that ends at once."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(take_realtime()))
    thread.start()
    thread.join()
    return found == [True]
