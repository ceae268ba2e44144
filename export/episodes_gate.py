"""The gate of recorded episodes: subgoals and actions of a quantised bundle beside its fp32 twin's.

For policies whose robot is not simulated here. Both bundles get the same recorded moments, memory included, and the
same noise (`memrt.export.fidelity`); the thresholds per precision are in `memrt.export.gate_thresholds`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memrt.export.fidelity import compare_bundles
from memrt.export.gate_thresholds import EPISODES, EpisodeThreshold, of_precision
from memrt.export.gates import GateError, label
from memrt.runtime.bundle import load_bundle

EPISODES_GATE = "episodes"  # the record's name among a bundle's gates


def episodes_gate(
    bundle: str | Path,
    reference_bundle: str | Path,
    calibration: str | Path | None = None,
    *,
    threads: int = 1,
    random_weights: bool = False,
) -> dict[str, Any]:
    """Judge `bundle` by `reference_bundle` (fp32) on the set's gate samples; returns the gate's record, plain JSON.

    `calibration` is a recorded set, by default the reference set. Raises `GateError` when the subgoals, the gripper
    commands or the arm's motion differ by more than the table allows, `MemrtError` for bundles of two policies.
    """
    report = compare_bundles(bundle, reference_bundle, calibration=calibration, threads=threads)
    return judge_fidelity(report, load_bundle(bundle, verify=False).manifest.precision, random_weights=random_weights)


def judge_fidelity(report: dict[str, Any], precision: str, *, random_weights: bool = False) -> dict[str, Any]:
    """Hold a report of `compare_bundles` to the thresholds of `precision`."""
    limits = of_precision(EPISODES, precision)
    record = {
        "gate": EPISODES_GATE,
        "high_level": report["high_level"],
        "low_level": report["low_level"],
        "threshold": limits.to_dict(),
        **label(random_weights),
    }
    if misses := _misses(report, limits):
        raise GateError(
            f"on recorded episodes the {precision} bundle does not behave as fp32",
            expected="; ".join(expected for expected, _ in misses),
            found="; ".join(found for _, found in misses),
            fix="keep more weights in a better scheme (plan or target), record more calibration samples, or judge by "
            "success with --gate sim where the task is simulated",
            record=record,
        )
    return record


def _misses(report: dict[str, Any], limits: EpisodeThreshold) -> list[tuple[str, str]]:
    """(expected, found) of every figure outside its limit. The comparisons are written so that a NaN fails."""
    misses = []
    high, low = report["high_level"], report["low_level"]
    if high is not None and not high["identical_subgoal"] >= limits.identical_subgoal:
        misses.append(
            (
                f"the same subgoal in {limits.identical_subgoal:.0%} of the answers",
                f"{high['identical_subgoal']:.1%} of {high['answers']}",
            )
        )
    if not low["identical_gripper"] >= limits.identical_gripper:
        misses.append(
            (
                f"the same gripper command at {limits.identical_gripper:.0%} of the steps",
                f"{low['identical_gripper']:.1%}",
            )
        )
    for key in ("relative_l2_mean", "relative_l2_worst"):
        if not low[key] <= (limit := getattr(limits, key)):
            misses.append((f"{key.replace('_', ' ')} of the arm's motion <= {limit}", f"{low[key]:.3g}"))
    return misses
