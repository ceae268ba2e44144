"""Closed-loop evaluation in lock-step: success over seeds, with intervals, for one bundle or for two in a pair."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from memrt.runtime.bench.hardware import hardware
from memrt.runtime.bundle import Bundle, load_bundle, require_halves
from memrt.runtime.device_engines import this_device
from memrt.runtime.statistics import median, paired_difference95, wilson95
from memrt.sim.episode_player import EpisodePlayer, EpisodeResult

__all__ = ["EpisodeResult", "compare", "evaluate", "whole_bundle"]


def evaluate(
    bundle_path: Path,
    task: str,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a bundle on seeds; the result is plain JSON. Each seed's outcome is independent of `workers`."""
    results: list[EpisodeResult] = []
    for result in _episodes(bundle_path, task, seeds, workers):
        results.append(result)
        if on_episode is not None:
            on_episode(result)
    bundle = load_bundle(bundle_path, verify=False)
    device = this_device(bundle)
    successes = sum(result.success for result in results)
    by_repetitions = {
        n: [r.success for r in results if r.repetitions == n] for n in sorted({r.repetitions for r in results})
    }
    return {
        "robot": "sim",
        "mode": "lockstep",
        "task": task,
        "policy": bundle.policy.name,
        "precision": bundle.manifest.precision,
        "episodes": len(results),
        "success_rate": successes / len(results),
        "wilson95": list(wilson95(successes, len(results))),
        "by_repetitions": {
            str(n): {"episodes": len(s), "success_rate": sum(s) / len(s)} for n, s in by_repetitions.items()
        },
        "failures": dict(Counter(result.reason for result in results if not result.success)),
        "median_ms": {
            "high_level_call": median([result.high_level_ms for result in results]),
            "low_level_call": median([result.low_level_ms for result in results]),
        },
        "median_steps": median([float(result.steps) for result in results]),
        "seeds": [min(seeds), max(seeds)],
        "versions": {
            **{name: version(name) for name in ("memrt", "mujoco", "numpy")},
            device.backend: device.version,
        },
        "hardware": {
            "machine": platform.machine(),
            "processor": hardware()["cpu"],
            "device": "cpu" if device.sm is None else device.name,
        },
        "results": [asdict(result) for result in results],
    }


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The paired difference in success of two evaluations on the same seeds, `first` minus `second`."""
    ours = {row["seed"]: bool(row["success"]) for row in first["results"]}
    theirs = {row["seed"]: bool(row["success"]) for row in second["results"]}
    shared = sorted(ours.keys() & theirs.keys())
    difference = paired_difference95([ours[s] for s in shared], [theirs[s] for s in shared])
    return {"episodes": len(shared), **asdict(difference)}


def _episodes(bundle_path: Path, task: str, seeds: Sequence[int], workers: int) -> Iterator[EpisodeResult]:
    if workers <= 1:
        player = EpisodePlayer.of_engines(whole_bundle(bundle_path))
        for seed in seeds:
            yield player.play(task, seed)
        return
    shares = [list(seeds[worker::workers]) for worker in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for share in pool.map(partial(_share, bundle_path, task), shares):
            yield from share


def _share(bundle_path: Path, task: str, seeds: Sequence[int]) -> list[EpisodeResult]:
    player = EpisodePlayer.of_engines(whole_bundle(bundle_path))
    return [player.play(task, seed) for seed in seeds]


def whole_bundle(folder: Path) -> Bundle:
    """A bundle with every file verified. Raises MemrtError when it lacks a half that its policy needs."""
    bundle = load_bundle(folder)
    require_halves(bundle)
    return bundle
