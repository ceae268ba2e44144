"""`memrt bench resize`: a camera's picture to a policy's size, by our core and by Pillow, to the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrt.runtime._core import resize_bicubic, resize_bilinear
from memrt.runtime.bench.hardware import hardware, versions
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.preprocess import resize_with_pad
from memrt.runtime.statistics import median

Progress = Callable[[str], None]
Picture = NDArray[np.uint8]
NS_PER_MS = 1e6
PER_TIMING = 10


def bench_resize(*, height: int, width: int, size: int, runs: int, progress: Progress) -> dict[str, Any]:
    """The report, as plain JSON values: medians of `runs`, contestants in turns, one thread.

    `ours` and `pillow` are π0.5's resize with padding, as a policy calls it; `portable` is ours without vector code.
    `bicubic_*` is the filter of Qwen's processors, to the same size. Raises MemrtError when any byte differs.
    """
    before = hardware()
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    inner = _inner(height, width, size)
    out = np.empty((*inner, 3), np.uint8)
    contestants: dict[str, Callable[[], Picture]] = {
        "ours": lambda: resize_with_pad(image, size),
        "pillow": lambda: _padded(_pillow(image, inner, Image.Resampling.BILINEAR), size),
        "portable": lambda: _padded(_into(resize_bilinear, image, out, simd=False), size),
        "bicubic_ours": lambda: _into(resize_bicubic, image, out, simd=True),
        "bicubic_pillow": lambda: _pillow(image, inner, Image.Resampling.BICUBIC),
    }
    _check_equal(contestants, ("ours", "pillow", "portable"))
    _check_equal(contestants, ("bicubic_ours", "bicubic_pillow"))
    progress(f"resizing {height}x{width} pixels to {size}x{size}, in turns")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, contestant in contestants.items():
            start = time.perf_counter_ns()
            for _ in range(PER_TIMING):
                contestant()
            times[name].append((time.perf_counter_ns() - start) / PER_TIMING / NS_PER_MS)
    medians = {name: median(values) for name, values in times.items()}
    return {
        "bench": "resize",
        "frame": [height, width, 3],
        "size": size,
        "runs": runs,
        **{f"{name}_ms": round(value, 5) for name, value in medians.items()},
        "speedup": {
            "pillow": round(medians["pillow"] / medians["ours"], 3),
            "portable": round(medians["portable"] / medians["ours"], 3),
            "bicubic_pillow": round(medians["bicubic_pillow"] / medians["bicubic_ours"], 3),
        },
        "differing_bytes": 0,
        "all_runs_ms": {name: [round(value, 5) for value in values] for name, values in times.items()},
        "how": "in turns in one process, one thread; bytes compared before",
        "hardware": before,
        "versions": versions(("memrt", "numpy", "pillow")),
        "measured_on": "CPU",
    }


def _inner(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of the picture inside the padding."""
    ratio = max(width, height) / size
    return max(1, int(height / ratio)), max(1, int(width / ratio))


def _pillow(image: Picture, inner: tuple[int, int], resample: Image.Resampling) -> Picture:
    return np.asarray(Image.fromarray(image).resize((inner[1], inner[0]), resample))


def _into(resize: Callable[..., None], image: Picture, out: Picture, *, simd: bool) -> Picture:
    resize(image, out, simd=simd)
    return out


def _padded(inner: Picture, size: int) -> Picture:
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return square


def _check_equal(contestants: dict[str, Callable[[], Picture]], names: tuple[str, ...]) -> None:
    first = contestants[names[0]]().copy()
    for name in names[1:]:
        differing = int((contestants[name]() != first).sum())
        if differing:
            raise MemrtError(
                f"resize: `{names[0]}` and `{name}`",
                expected="the same bytes",
                found=f"{differing} that differ",
                fix="report this processor and the installed version of Pillow",
            )
