"""What came out, as plain JSON: every cell's rate with its interval, paired differences, versions and hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from memrt.runtime.statistics import median, paired_difference95, wilson95
from memrt.sim.suite.cells import Cell, Episode
from memrt.sim.suite.published import NOTE, PUBLISHED
from memrt.sim.suite.sweep import CellPlan
from memrt.sim.tasks.base import DIFFICULTIES

# What memory is worth: every policy against those without one; where places have to be remembered, against a memory of
# deeds alone.
BASELINES = ("memoryless", "flat")
SPATIAL = (("memer", "am_simple"), ("am_sm_grounded", "am_simple"))

HARDWARE = frozenset({"machine", "processor", "device"})


def suite_report(plans: Sequence[CellPlan]) -> dict[str, Any]:
    """All of it."""
    by = [by for plan in plans for by in plan.by]
    return {
        "suite": "memory",
        "robot": "sim",
        "cells": [cell_report(plan) for plan in plans],
        "differences": differences({plan.cell: plan.episodes for plan in plans}),
        "versions": _each(by, lambda name: name not in HARDWARE),
        "hardware": _each(by, HARDWARE.__contains__),
        "published": {"note": NOTE, "rows": [asdict(row) for row in PUBLISHED]},
    }


def cell_report(plan: CellPlan) -> dict[str, Any]:
    """One cell. Rates are None where nothing was played, and `why` then says why not."""
    episodes = [plan.episodes[seed] for seed in sorted(plan.episodes)]
    settings = plan.settings
    report: dict[str, Any] = {
        **msgspec.structs.asdict(plan.cell),
        "bundle": settings.bundle if settings else None,
        "bundle_sha256": settings.bundle_sha256 if settings else None,
        "borrowed_low_level": bool(settings and settings.borrowed),
        **_rate(episodes),
        "missing": len(plan.missing),
    }
    if not episodes:
        return report | {"why": plan.candidate if isinstance(plan.candidate, str) else "not played yet"}
    progress = [episode.progress for episode in episodes if episode.progress is not None]
    return report | {
        "seeds": _ranges(plan.episodes),
        "mean_progress": round(sum(progress) / len(progress), 4) if progress else None,
        "by_difficulty": {
            d: _rate([e for e in episodes if e.difficulty == d])
            for d in DIFFICULTIES
            if any(e.difficulty == d for e in episodes)
        },
        "failures": dict(Counter(e.reason for e in episodes if not e.success).most_common()),
        "median_steps": median([float(e.steps) for e in episodes]),
        "median_seconds": median([e.seconds for e in episodes]),
        "median_ms": {
            "high_level_call": median([e.high_level_ms for e in episodes]),
            "low_level_call": median([e.low_level_ms for e in episodes]),
        },
        "crashes": {str(seed): why for seed, why in plan.crashes.items()},
    }


def differences(played: Mapping[Cell, Mapping[int, Episode]]) -> list[dict[str, Any]]:
    """Paired differences on the seeds that both sides have: between policies, int8 − fp32, real time − lock-step."""
    rows = []
    for cell, episodes in played.items():
        twins = {
            "policy": [msgspec.structs.replace(cell, policy=other) for other in _against(cell.policy)],
            "precision": [msgspec.structs.replace(cell, precision="fp32")] if cell.precision == "int8" else [],
            "mode": [msgspec.structs.replace(cell, mode="lockstep")] if cell.mode == "realtime" else [],
        }
        for what, others in twins.items():
            for other in others:
                shared = sorted(episodes.keys() & played.get(other, {}).keys())
                if not shared:
                    continue
                theirs = played[other]
                found = paired_difference95([episodes[s].success for s in shared], [theirs[s].success for s in shared])
                rows.append(
                    {
                        "of": what,
                        **msgspec.structs.asdict(cell),
                        "minus": getattr(other, what),
                        **asdict(found),
                    }
                )
    return rows


def _against(policy: str) -> list[str]:
    baselines = [] if policy in BASELINES else list(BASELINES)
    return baselines + [second for first, second in SPATIAL if first == policy]


def _rate(episodes: Sequence[Episode]) -> dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    return {
        "episodes": len(episodes),
        "success_rate": successes / len(episodes) if episodes else None,
        "wilson95": list(wilson95(successes, len(episodes))) if episodes else None,
    }


def _ranges(seeds: Iterable[int]) -> list[list[int]]:
    """First and last of every run of seeds without a gap."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return runs


def _each(by: Sequence[Mapping[str, Any]], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Every value that occurs, by name: one, or a list where episodes were played by several."""
    found: dict[str, list[Any]] = {}
    for values in by:
        for name, value in values.items():
            if wanted(name) and value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
