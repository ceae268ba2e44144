"""What a figure was measured on, and whether there is memory enough to measure it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.runtime.processor import this_processor

GIB = 1 << 30
CONTROL_PRIORITY = 80  # as control_loop.cpp
# What decides how fast products of 8-bit, 4-bit and 16-bit numbers can be, by the kernel's names (x86, then ARM).
_INSTRUCTION_SETS = (
    *("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
PACKAGES = ("memrt", "torch", "transformers", "onnxruntime", "onnx", "numpy")


def hardware() -> dict[str, Any]:
    """The computer, and how busy it was: processor, cores this process may use, instruction sets, memory, load."""
    processor = this_processor()
    memory = memory_fields()
    return {
        "cpu": processor.name,
        "architecture": processor.architecture,
        "cores": usable_cores(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in processor.flags],
        "memory_gib": round(memory["MemTotal"] / GIB, 1) if "MemTotal" in memory else None,
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions, and Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_fields(text: str | None = None) -> dict[str, int]:
    """Linux's account of its memory in bytes, by its own names; empty elsewhere. `text`: another /proc/meminfo."""
    lines = (_text("/proc/meminfo") if text is None else text).splitlines()
    fields = ((key, rest.split()) for key, _, rest in (line.partition(":") for line in lines))
    return {key: int(rest[0]) * 1024 for key, rest in fields if rest and rest[0].isdigit()}


def available_bytes() -> int | None:
    """Memory that can be had without pushing others out; None where the system does not say."""
    return memory_fields().get("MemAvailable")


def resident_bytes() -> int:
    """This process' resident memory now (VmRSS); 0 where the system does not say."""
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """This process' largest resident memory so far (VmHWM); 0 where the system does not say."""
    return _status_bytes("VmHWM")


def check_memory(needed: int, what: str, fix: str) -> None:
    """Raise MemrtError when fewer than `needed` bytes are available."""
    available = available_bytes()
    if available is not None and available < needed:
        raise MemrtError(
            f"too little memory for {what}",
            expected=f"{needed / GIB:.1f} GiB available",
            found=f"{available / GIB:.1f} GiB",
            fix=fix,
        )


def take_realtime() -> bool:
    """Give the calling thread the control thread's priority, SCHED_FIFO, where that is permitted; whether it was."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(CONTROL_PRIORITY))
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    lines = _text("/proc/self/status").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
