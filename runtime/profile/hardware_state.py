"""How the computer is set while it is measured: clocks, power mode, GPU, kernel, real-time rights."""

from __future__ import annotations

import platform
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

from memrt.runtime.bench.hardware import take_realtime

CPUFREQ = Path("/sys/devices/system/cpu")
TOOL_SECONDS = 5.0  # nvidia-smi may wake a sleeping GPU first
_GPU = (  # fields of `nvidia-smi --query-gpu`
    *("name", "driver_version", "persistence_mode", "pstate"),
    *("clocks.sm", "clocks.mem", "power.limit", "temperature.gpu"),
)


def hardware_state() -> dict[str, Any]:
    """Plain JSON values; a part that this computer does not have is missing, not guessed."""
    found: dict[str, Any] = {
        "kernel": platform.release(),
        "preempt_rt": _preempt_rt(),
        "realtime_priority": _may_be_realtime(),
    }
    parts = {"cpu_clocks": cpu_clocks(), "power_mode": _power_mode(), "gpus": _gpus()}
    return found | {name: part for name, part in parts.items() if part}


def cpu_clocks(root: Path = CPUFREQ) -> dict[str, Any]:
    """Governors, and the present and the largest clock [MHz] over all cores; empty where the kernel tells nothing."""
    folders = sorted(root.glob("cpu[0-9]*/cpufreq"))
    governors = sorted({text for folder in folders if (text := _read(folder / "scaling_governor"))})
    now = [int(text) / 1000 for folder in folders if (text := _read(folder / "scaling_cur_freq")).isdigit()]
    most = [int(text) / 1000 for folder in folders if (text := _read(folder / "cpuinfo_max_freq")).isdigit()]
    found: dict[str, Any] = {"governors": governors} if governors else {}
    if now:
        found |= {"lowest_mhz": min(now), "highest_mhz": max(now)}
    return found | ({"largest_possible_mhz": max(most)} if most else {})


def _may_be_realtime() -> bool:
    """Whether a thread of this user may have the control thread's priority. Tried in one that ends at once."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(take_realtime()))
    thread.start()
    thread.join()
    return found == [True]


def _preempt_rt() -> bool:
    return _read(Path("/sys/kernel/realtime")) == "1" or "PREEMPT_RT" in platform.version()


def _power_mode() -> str:
    """A Jetson's power mode, such as `MAXN`."""
    match = re.search(r"NV Power Mode:\s*(\S+)", _output("nvpmodel", "-q"))
    return match.group(1) if match else ""


def _gpus() -> list[dict[str, str]]:
    """One entry per GPU that nvidia-smi knows; values are its own words."""
    text = _output("nvidia-smi", f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader")
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [dict(zip(_GPU, row, strict=True)) for row in rows if len(row) == len(_GPU)]


def _output(*command: str) -> str:
    """What a tool prints; "" where it is not installed, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TOOL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
