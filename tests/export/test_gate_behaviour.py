"""`--gate sim` and `--gate episodes`: what they let through, what they refuse, and what they say about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from memrt.export.episodes_gate import judge_fidelity
from memrt.export.gate_thresholds import EPISODES
from memrt.export.gates import REHEARSAL, GateError
from memrt.export.sim_gate import FIRST_SEED, check_seeds, least_seeds, seeds_needed, sim_gate
from memrt.runtime.bundle import EngineRecord, write_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import paired_difference95, wilson95

SEEDS = range(FIRST_SEED, FIRST_SEED + 100)


def bundle(folder: Path, policy: str = "oracle_simple") -> Path:
    staging = folder.with_name(f"{folder.name}.staging")
    staging.mkdir(parents=True)
    (staging / "step.onnx").write_bytes(b"graph")
    record = EngineRecord(file="step.onnx", precision="fp32", inputs=(), outputs=())
    write_bundle(staging, folder, policy=load_policy(policy), precision="fp32", engines={"ll/step": record})
    return folder


class Simulator:
    """Stands in for the simulator: `failures[bundle]` are the seeds (from 0) at which a bundle fails.

    Its signature is checked against the real one, which the tests in `tests/closed_loop` drive.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = pytest.importorskip("memrt.sim.evaluate")
        self.failures: dict[str, set[int]] = {}
        self.fake = create_autospec(self.real.evaluate, side_effect=self._report)
        monkeypatch.setattr(self.real, "evaluate", self.fake)

    def _report(self, path: Path, task: str, seeds: Any, *, workers: int = 1, on_episode: Any = None) -> dict[str, Any]:
        results = [
            self.real.EpisodeResult(
                seed=seed,
                difficulty="easy",
                repetitions=1,
                success=seed - FIRST_SEED not in self.failures.get(path.name, ()),
                status="success",
                reason="because",
                steps=100,
                progress=0.5,
                seconds=1.0,
                high_level_ms=1.0,
                low_level_ms=1.0,
                actions_sha256="",
            )
            for seed in sorted(seeds, key=lambda seed: (seed % workers, seed))  # workers take turns, as the real one's
        ]
        for result in results:
            on_episode(result)
        wins = sum(result.success for result in results)
        return {
            "success_rate": wins / len(results),
            "wilson95": list(wilson95(wins, len(results))),
            "results": [{"seed": result.seed, "success": result.success} for result in results],
        }


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    return Simulator(monkeypatch)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return bundle(tmp_path / "int8"), bundle(tmp_path / "fp32")


def test_equal_success_passes_and_is_recorded(simulator: Simulator, pair: tuple[Path, Path]) -> None:
    simulator.failures = {"int8": {3, 5}, "fp32": {3}}
    told: list[str] = []
    record = sim_gate(*pair, "PickXtimes", SEEDS, workers=2, progress=told.append)
    assert record["success_rate"] == 0.98
    assert record["reference"]["success_rate"] == 0.99
    assert (record["lost"]["only_reference"], record["lost"]["only_bundle"]) == (1, 0)
    assert record["lost"]["difference"] == pytest.approx(0.01)
    assert record["lost"]["paired95"][1] <= record["threshold"]["most_lost"] == 0.10
    assert record["seeds"] == [SEEDS[0], SEEDS[-1]]
    assert [call.args[0].name for call in simulator.fake.call_args_list] == ["fp32", "int8"]
    assert sum(line.startswith("sim gate: quantised ") and "/100" in line for line in told) == 100


def test_ten_points_lost_are_refused(simulator: Simulator, pair: tuple[Path, Path]) -> None:
    simulator.failures = {"int8": set(range(15))}
    with pytest.raises(GateError, match=r"\+15\.0 points lost") as refused:
        sim_gate(*pair, seeds=SEEDS)
    assert "--gate-seeds" not in refused.value.fix  # more of the same would not help
    assert refused.value.record["lost"]["paired95"][1] > 0.10


def test_an_open_question_asks_for_more_seeds(simulator: Simulator, pair: tuple[Path, Path]) -> None:
    simulator.failures = {"int8": set(range(16)), "fp32": set(range(16, 32))}
    with pytest.raises(GateError, match=r"\+0\.0 points lost") as refused:
        sim_gate(*pair, seeds=SEEDS)
    assert "give --gate-seeds 200" in refused.value.fix


def test_the_number_of_seeds_it_asks_for_would_pass() -> None:
    lost = paired_difference95([True] * 12 + [False] * 12 + [True] * 26, [False] * 12 + [True] * 12 + [True] * 26)
    needed = seeds_needed(lost, 0.10)
    assert needed is not None
    times = needed // 50
    more = paired_difference95(
        [*[True] * 12 * times, *[False] * 12 * times, *[True] * 26 * times],
        [*[False] * 12 * times, *[True] * 12 * times, *[True] * 26 * times],
    )
    assert more.high <= 0.10 < lost.high
    assert seeds_needed(paired_difference95([True] * 20, [False] * 10 + [True] * 10), 0.10) is None


def test_a_policy_that_never_succeeds_cannot_pass(simulator: Simulator, pair: tuple[Path, Path]) -> None:
    simulator.failures = {"int8": set(range(100)), "fp32": set(range(95))}
    with pytest.raises(GateError, match="nothing to lose"):
        sim_gate(*pair, seeds=SEEDS)


def test_too_few_seeds_are_refused_before_any_work(simulator: Simulator, pair: tuple[Path, Path]) -> None:
    assert least_seeds() == 35
    check_seeds(range(35))
    for seeds in (range(34), [1] * 50):
        with pytest.raises(MemrtError, match="at least 35 different seeds"):
            sim_gate(*pair, seeds=seeds)
    simulator.fake.assert_not_called()


def test_bundles_of_two_policies_are_refused(simulator: Simulator, pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = bundle(tmp_path / "other", "oracle_grounded")
    with pytest.raises(MemrtError, match="two bundles of one policy"):
        sim_gate(other, pair[1], seeds=SEEDS)
    simulator.fake.assert_not_called()


def fidelity(**changes: Any) -> dict[str, Any]:
    low = {"chunks": 48, "relative_l2_mean": 0.02, "relative_l2_worst": 0.04, "identical_gripper": 1.0}
    high = {"answers": 48, "identical": 0.9, "identical_subgoal": 0.95, "identical_memory": 0.95}
    for key, value in changes.items():
        (high if key in high else low)[key] = value
    return {"high_level": high, "low_level": low}


def test_episodes_pass_and_are_recorded() -> None:
    record = judge_fidelity(fidelity(), "int8", random_weights=True)
    assert record["gate"] == "episodes"
    assert record["threshold"] == EPISODES["int8"].to_dict()
    assert record["label"] == REHEARSAL
    without = judge_fidelity({**fidelity(), "high_level": None}, "int8")
    assert without["high_level"] is None
    assert "label" not in without


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("identical_subgoal", 0.5, "50.0% of 48"),
        ("identical_gripper", 0.9, "90.0%"),
        ("relative_l2_mean", 0.2, "relative l2 mean of the arm's motion <= 0.04"),
        ("relative_l2_worst", 0.2, "relative l2 worst of the arm's motion <= 0.08"),
        ("relative_l2_worst", float("nan"), "nan"),
    ],
)
def test_episodes_refuse_every_figure_by_name(figure: str, value: float, said: str) -> None:
    with pytest.raises(GateError) as refused:
        judge_fidelity(fidelity(**{figure: value}), "int8")
    assert said in str(refused.value)


def test_all_misses_are_told_at_once() -> None:
    with pytest.raises(GateError) as refused:
        judge_fidelity(fidelity(identical_subgoal=0.1, relative_l2_mean=1.0), "int8")
    assert refused.value.expected.count(";") == 1
