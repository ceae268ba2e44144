"""`memrt bench lowlevel`: the low level's latency while the high level answers without a pause, and while it is off.

Real engines of one bundle on observations made from a seed; no robot and no simulator compute beside them. All
conditions take turns in short blocks, so that what else the computer does falls on all of them alike. A low-level call
begins at every control step, or when the last one has ended where that is later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np

from memrt.runtime.background import in_background, stand_back
from memrt.runtime.bench.hardware import hardware, usable_cores, versions
from memrt.runtime.bundle import Bundle, require_halves
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.statistics import median, percentile
from memrt.runtime.thread_budget import ThreadBudget
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, Frame, Observation, Subgoal

Progress = Callable[[str], None]

SEED = 0
OBSERVATIONS = 16  # different ones in turn: the same one would find the high level's K/V and features cached
FRAME_SIZE = 256  # pixels, square: RoboMME's cameras
GOAL = "pick up the red cube and place it on the target, repeating this three times, then press the button"
SUBGOAL = Subgoal("pick up the red cube <120, 88> for the first time", 1, 0)
BLOCK_S = 5.0  # long enough for several high-level calls, short enough that the computer's moods fall on all
SETTLING_CALLS = 2  # of every block: caches and clocks still hold what another condition left
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
TARGET_RATIO, TARGET_CALLS_PER_S = 1.5, 0.5  # p99 with the high level on over off, and how often it must answer
NS_PER_MS = 1e6


@dataclass(slots=True)
class Condition:
    """One way to share the cores, and the calls measured so far [ms]. `high_level` None: off."""

    name: str
    low_level: LowLevelPolicy
    threads: int
    high_level: HighLevelPolicy | None = None
    high_level_threads: int = 0
    behind: bool = True  # whether the high level stands back
    blocks: list[list[float]] = field(default_factory=list)
    high_level_calls: int = 0
    high_level_s: float = 0.0

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        calls = [ms for block in self.blocks for ms in block]
        found = {f"p{percent:g}": round(percentile(calls, percent), 3) for percent in PERCENTILES}
        return {
            "low_level_threads": self.threads,
            "high_level_threads": self.high_level_threads,
            "high_level_stands_back": self.high_level is not None and self.behind,
            "calls": len(calls),
            "runs": len(self.blocks),
            **found,
            "max": round(max(calls), 3),
            "high_level_calls_per_s": round(self.high_level_calls / self.high_level_s, 3) if self.high_level_s else 0.0,
        }


def bench_low_level(
    bundle: Bundle, *, seconds: float, threads: ThreadBudget | None, progress: Progress
) -> dict[str, Any]:
    """The report, as plain JSON values. Each condition is measured for `seconds` in all.

    `threads` is the budget whose cost is asked for, by default the one that `memrt run` takes. `ratio_p99` compares it
    with the low level alone at its fastest thread setting (smallest median); `speedup` with what a user has without a
    budget: as many threads as cores for each policy, none of them standing back. Raises MemrtError for a bundle
    without a VLM or without an action expert.
    """
    require_halves(bundle)
    if bundle.policy.high_level.source != "vlm":
        raise MemrtError(
            f"bundle {bundle.path}",
            expected="a policy with a VLM, to compute beside the action expert",
            found=f"`{bundle.policy.name}`, whose high level is an oracle",
            fix="name another bundle with --bundle",
        )
    before, cores = hardware(), usable_cores()
    budget = threads or ThreadBudget.of_cores(cores)
    observations = synthetic_observations(bundle)
    with ExitStack() as stack:
        conditions = _conditions(bundle, budget, cores, stack)
        for condition in conditions:
            progress(f"warming up: {condition.name}")
            _block(condition, observations, 1.0, bundle)
        rounds = max(1, round(seconds / BLOCK_S))
        for number in range(rounds):
            for condition in conditions:
                calls, answers, lasted = _block(condition, observations, min(seconds, BLOCK_S), bundle)
                condition.blocks.append(calls)
                condition.high_level_calls += answers
                condition.high_level_s += lasted
            progress(f"round {number + 1} of {rounds}")
    return _report(conditions, bundle, budget, seconds) | {
        "hardware": before,
        "versions": versions(("memrt", "onnxruntime", "numpy")),
        "measured_on": "CPU",
    }


def _conditions(bundle: Bundle, budget: ThreadBudget, cores: int, stack: ExitStack) -> list[Condition]:
    """Off at 1, the budget's and all threads; on with the budget; on with all threads each and no order of rank."""
    engines = ReadyEngines.of(bundle)
    settings = sorted({1, budget.low_level, cores})
    low_levels = {count: LowLevelPolicy(bundle, count, engines=engines) for count in settings}
    behind = in_background(lambda: HighLevelPolicy(bundle, budget.high_level, engines=engines))
    equal = HighLevelPolicy(bundle, cores, engines=engines)
    for close in (*(policy.close for policy in low_levels.values()), behind.close, equal.close):
        stack.callback(close)
    off = [Condition(f"off, {count} threads", low_levels[count], count) for count in settings]
    ours = Condition(f"on, {budget}", low_levels[budget.low_level], budget.low_level, behind, budget.high_level)
    naive = Condition(f"on, {cores},{cores}, equal", low_levels[cores], cores, equal, cores, behind=False)
    return [*off, ours, naive]


def synthetic_observations(bundle: Bundle) -> list[Observation]:
    """Noise images of every camera the bundle's policy reads, and joint angles around zero, from `SEED`."""
    rng = np.random.default_rng(SEED)
    policy = bundle.policy
    cameras = tuple(dict.fromkeys((*policy.low_level.cameras, *policy.high_level_cameras)))
    found = []
    for index in range(OBSERVATIONS):
        images = {name: rng.integers(0, 256, (FRAME_SIZE, FRAME_SIZE, 3), dtype=np.uint8) for name in cameras}
        frames = {name: Frame(name, index, 0, image) for name, image in images.items()}
        state = np.append(rng.normal(0.0, 0.3, ARM_JOINTS), 1.0)
        assert state.shape == (PROPRIOCEPTION_DIM,)
        found.append(Observation(0, state, frames))
    return found


def _block(
    condition: Condition, observations: list[Observation], seconds: float, bundle: Bundle
) -> tuple[list[float], int, float]:
    """One block: the low level's calls [ms], the high level's answers, and for how long it answered [s]."""
    period_ns = round(1e9 / bundle.policy.low_level.control_hz)
    policy, calls = condition.low_level, []
    with _answering(condition, observations) as answers:
        began = time.monotonic_ns()
        due, end = began, began + round(seconds * 1e9)
        for index, observation in enumerate(cycle(observations)):
            start = time.monotonic_ns()
            if start >= end and index > SETTLING_CALLS:
                break
            policy.act(observation, SUBGOAL, GOAL, policy.noise(SEED, index))
            done = time.monotonic_ns()
            calls.append((done - start) / NS_PER_MS)
            due = max(due + period_ns, done)
            time.sleep((due - done) / 1e9)
        lasted = (time.monotonic_ns() - began) / 1e9
        count = answers()
    return calls[SETTLING_CALLS:], count, lasted if condition.high_level else 0.0


@contextmanager
def _answering(condition: Condition, observations: list[Observation]) -> Iterator[Callable[[], int]]:
    """A thread in which the high level answers call after call, its memory going on; how often it did by now."""
    policy = condition.high_level
    if policy is None:
        yield lambda: 0
        return
    quit_now, first = threading.Event(), threading.Event()
    answered = 0
    failed: list[BaseException] = []

    def answer() -> None:
        nonlocal answered
        if condition.behind:
            stand_back()
        try:
            state = policy.initial()
            for observation in cycle(observations):
                if quit_now.is_set():
                    return
                first.set()
                state = policy.call(GOAL, observation, state).state
                answered += 1
        except BaseException as error:
            failed.append(error)
            first.set()

    thread = threading.Thread(target=answer, name="high level")
    thread.start()
    first.wait()
    try:
        yield lambda: answered
    finally:
        quit_now.set()
        thread.join()
    if failed:
        raise failed[0]


def _report(conditions: list[Condition], bundle: Bundle, budget: ThreadBudget, seconds: float) -> dict[str, Any]:
    found = {condition.name: condition.report() for condition in conditions}
    off = min((c for c in conditions if c.high_level is None), key=lambda c: found[c.name]["p50"])
    ours, naive = conditions[-2:]
    ratio = found[ours.name]["p99"] / found[off.name]["p99"]
    rate = found[ours.name]["high_level_calls_per_s"]
    return {
        "bench": "lowlevel",
        "bundle": str(bundle.path),
        "policy": bundle.policy.name,
        "seconds": seconds,
        "runs": len(ours.blocks),
        "threads": str(budget),
        "fastest_off": off.name,
        "off_ms": found[off.name]["p50"],
        "on_ms": found[ours.name]["p50"],
        "equal_ms": found[naive.name]["p50"],
        "off_p99_ms": found[off.name]["p99"],
        "on_p99_ms": found[ours.name]["p99"],
        "equal_p99_ms": found[naive.name]["p99"],
        "ratio_p99": round(ratio, 3),
        "high_level_calls_per_s": rate,
        "within_target": ratio <= TARGET_RATIO and rate >= TARGET_CALLS_PER_S,
        "speedup": {"equal": round(found[naive.name]["p99"] / found[ours.name]["p99"], 2)},
        "conditions": found,
        "block_medians_ms": {c.name: [round(median(block), 3) for block in c.blocks] for c in conditions},
        "how": f"a call per control step, blocks of {BLOCK_S:g} s in turns, the high level answering without a pause",
    }
