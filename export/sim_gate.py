"""The gate of a closed loop: a quantised bundle must succeed about as often as its fp32 twin, on the same seeds.

Both bundles drive the simulator in lock-step, so each seed's outcome is a function of the bundle alone. The paired
difference has Tango's 95 % interval (`memrt.runtime.statistics`), and the interval's upper end decides: an export is
refused unless the episodes *show* that at most 10 points of success are lost. Too few of them show nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memrt.export.gate_thresholds import MOST_SUCCESS_LOST
from memrt.export.gates import GateError, label
from memrt.runtime.bundle import load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import PairedDifference, paired_difference95

Progress = Callable[[str], None]

SIM = "sim"  # the record's name among a bundle's gates
DEFAULT_TASK = "PickXtimes"
DEFAULT_SEEDS = 100  # passes with up to 4 episodes lost net, if the two bundles hardly disagree otherwise
# Training counts up from 0, `memrt eval` from 1 000 000: a gate must not be passed on the seeds that are reported.
FIRST_SEED = 2_000_000
MOST_SEEDS = 10_000


def sim_gate(
    bundle: str | Path,
    reference_bundle: str | Path,
    task: str = DEFAULT_TASK,
    seeds: Sequence[int] = range(FIRST_SEED, FIRST_SEED + DEFAULT_SEEDS),
    *,
    workers: int = 1,
    progress: Progress | None = None,
    most_lost: float = MOST_SUCCESS_LOST,
    random_weights: bool = False,
) -> dict[str, Any]:
    """Judge `bundle` by `reference_bundle` (fp32) in the simulator; returns the gate's record, plain JSON.

    `most_lost` is a share of success (0.10: ten points). `workers` processes change nothing but the time it takes.
    Raises `GateError` when the interval reaches above `most_lost`, `MemrtError` when these seeds could not show
    anything: too few of them, bundles of two policies, or a reference that has too little success to lose.
    """
    seeds = list(seeds)
    check_seeds(seeds, most_lost)
    _same_policy(bundle, reference_bundle)
    reference = _outcomes("fp32", reference_bundle, task, seeds, workers, progress)
    candidate = _outcomes("quantised", bundle, task, seeds, workers, progress)
    lost = paired_difference95(reference["outcomes"], candidate["outcomes"])
    record = {
        "gate": SIM,
        "task": task,
        "episodes": len(seeds),
        "seeds": [min(seeds), max(seeds)],
        "success_rate": candidate["success_rate"],
        "wilson95": candidate["wilson95"],
        "reference": {key: reference[key] for key in ("success_rate", "wilson95")},
        "lost": {
            "difference": lost.difference,
            "paired95": [lost.low, lost.high],
            "only_reference": lost.only_first,
            "only_bundle": lost.only_second,
        },
        "threshold": {"most_lost": most_lost},
        **label(random_weights),
    }
    if reference["success_rate"] <= most_lost:
        raise GateError(
            "the sim gate proves nothing for this policy",
            expected=f"an fp32 bundle that succeeds in more than {most_lost:.0%} of the episodes of {task}",
            found=f"{reference['success_rate']:.1%}: there is nothing to lose",
            fix="use --gate episodes, or name the task that the policy was trained for with --gate-task",
            record=record,
        )
    if not lost.high <= most_lost:
        raise GateError(
            f"success in the simulator ({task}) may be worse than in fp32",
            expected=f"at most {most_lost:.0%} lost at the upper end of the paired 95 % interval",
            found=f"{_points(lost)} over {len(seeds)} seeds "
            f"({lost.only_first} solved by fp32 alone, {lost.only_second} by the quantised bundle alone)",
            fix=_fix(lost, most_lost),
            record=record,
        )
    return record


def check_seeds(seeds: Sequence[int], most_lost: float = MOST_SUCCESS_LOST) -> None:
    """Raises `MemrtError` for seeds with which no bundle could pass."""
    least = least_seeds(most_lost)
    if len(seeds) < least or len(set(seeds)) != len(seeds):
        raise MemrtError(
            "the sim gate cannot be passed with these seeds",
            expected=f"at least {least} different seeds: with fewer, even equal outcomes leave more than "
            f"{most_lost:.0%} in doubt",
            found=f"{len(seeds)} seeds, {len(set(seeds))} of them different",
            fix=f"give --gate-seeds {max(DEFAULT_SEEDS, least)}",
        )


def least_seeds(most_lost: float = MOST_SUCCESS_LOST) -> int:
    """How many seeds it takes for two bundles that never disagree to pass."""
    count = 1
    while count <= MOST_SEEDS and paired_difference95([True] * count, [True] * count).high > most_lost:
        count += 1
    return count


def seeds_needed(lost: PairedDifference, most_lost: float) -> int | None:
    """About how many seeds would pass at the same rates of disagreement; None when no number would."""
    for times in range(1, MOST_SEEDS // lost.n + 1):
        both = lost.n - lost.only_first - lost.only_second
        first = [True] * lost.only_first + [False] * lost.only_second + [True] * both
        second = [False] * lost.only_first + [True] * lost.only_second + [True] * both
        if paired_difference95(first * times, second * times).high <= most_lost:
            return lost.n * times
    return None


def _outcomes(
    name: str, bundle: str | Path, task: str, seeds: Sequence[int], workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Success by seed, in the order of `seeds`, and its rate."""
    from memrt.sim.evaluate import EpisodeResult, evaluate

    tell = progress or (lambda line: None)
    tell(f"sim gate: {name} bundle, {task}, {len(seeds)} seeds")
    done: list[EpisodeResult] = []

    def count(result: EpisodeResult) -> None:
        done.append(result)
        mark = "success" if result.success else "failure"
        tell(f"sim gate: {name} {len(done)}/{len(seeds)}, seed {result.seed}: {mark}, {result.reason}")

    report = evaluate(Path(bundle), task, seeds, workers=workers, on_episode=count)
    success = {row["seed"]: bool(row["success"]) for row in report["results"]}
    return {
        "outcomes": [success[seed] for seed in seeds],
        "success_rate": report["success_rate"],
        "wilson95": report["wilson95"],
    }


def _same_policy(bundle: str | Path, reference_bundle: str | Path) -> None:
    ours, theirs = load_bundle(bundle).policy, load_bundle(reference_bundle).policy
    if ours != theirs:
        raise MemrtError(
            "cannot compare these bundles in the simulator",
            expected=f"two bundles of one policy, {theirs.name}",
            found=f"{ours.name}, with other settings",
            fix="export both from the same policy YAML",
        )


def _points(lost: PairedDifference) -> str:
    return f"{100 * lost.difference:+.1f} points lost ({100 * lost.low:+.1f} to {100 * lost.high:+.1f})"


def _fix(lost: PairedDifference, most_lost: float) -> str:
    needed = seeds_needed(lost, most_lost)
    if needed is None:
        return "keep more weights in a better scheme (plan or target), or export as fp32"
    return (
        f"give --gate-seeds {needed} if you think that the two are equal: at these rates of disagreement so many seeds "
        "would show it; else keep more weights in a better scheme"
    )
