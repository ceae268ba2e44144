"""The damage model against a residual network that is really quantised, and the plans it suggests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.export.gates import GateError, answer_agreement, judge
from memrt.export.plan import EnginePlan, Plan, Scheme, load_plan, uniform_plan
from memrt.export.sensitivity import (
    LADDER,
    LayerDamage,
    calibrate,
    combined,
    hurts_most,
    natural,
    next_better,
    rank,
    refuse_with_plan,
    suggest,
)
from memrt.runtime.engine.agreement import Agreement
from memrt.runtime.errors import MemrtError

WIDTH, LAYERS, TOKENS = 64, 12, 24
ENGINE = "hl/decoder"


class Network:
    """x + tanh(norm(x) up) down, twelve times, in float64; rounding costs one of the weights far more."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.weights = {
            f"layers.{i}.{part}.weight": rng.normal(size=(WIDTH, WIDTH)) / math.sqrt(WIDTH)
            for i in range(LAYERS)
            for part in ("up", "down")
        }
        self.weights["layers.5.down.weight"][3, :] *= 40.0  # an outlier channel takes its block's resolution
        self.inputs = rng.normal(size=(TOKENS, WIDTH))

    def layer(self, i: int, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
        normed = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
        return x + np.tanh(normed @ weights[f"layers.{i}.up.weight"]) @ weights[f"layers.{i}.down.weight"] / 3

    def run(self, schemes: dict[str, Scheme]) -> np.ndarray:
        weights = {name: rounded(weight, schemes[name]) for name, weight in self.weights.items()}
        x = self.inputs
        for i in range(LAYERS):
            x = self.layer(i, x, weights)
        return x

    def damages(self, scheme: Scheme) -> list[LayerDamage]:
        found, x = [], self.inputs
        for i in range(LAYERS):
            right = self.layer(i, x, self.weights)
            for part in ("up", "down"):
                name = f"layers.{i}.{part}.weight"
                weight = rounded(self.weights[name], scheme)
                found.append(
                    LayerDamage(
                        weight=name,
                        scheme=scheme,
                        product=distance(x @ self.weights[name], x @ weight),
                        layer=distance(right, self.layer(i, x, {**self.weights, name: weight})),
                        elements=weight.size,
                    )
                )
            x = right
        return found


def rounded(weight: np.ndarray, scheme: Scheme) -> np.ndarray:
    top = {"int4": 7, "int8": 127}.get(scheme)
    if top is None:
        return weight
    scale = np.abs(weight).max(axis=0, keepdims=True) / top
    return np.rint(weight / scale) * scale


def distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    return float(np.linalg.norm(candidate - reference) / np.linalg.norm(reference))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture(scope="module")
def damages(network: Network) -> list[LayerDamage]:
    return network.damages("int4")


@pytest.fixture(scope="module")
def chain(network: Network) -> float:
    """Measured with every weight in int4."""
    return distance(
        network.run(dict.fromkeys(network.weights, "fp32")), network.run(dict.fromkeys(network.weights, "int4"))
    )


def test_the_outlier_hurts_most(damages: list[LayerDamage]) -> None:
    assert hurts_most(damages).weight == "layers.5.down.weight"
    ranked = rank(damages)
    assert ranked[0] == hurts_most(damages)
    assert [d.layer for d in ranked] == sorted((d.layer for d in damages), reverse=True)


def test_errors_add_up_in_quadrature(damages: list[LayerDamage], chain: float) -> None:
    assert 0.5 < chain / combined(damages) < 2.0
    shares = calibrate(damages, chain)
    assert math.sqrt(sum(d.chain**2 for d in shares)) == pytest.approx(chain)
    floor = chain / 2
    assert math.sqrt(floor**2 + sum(d.chain**2 for d in calibrate(damages, chain, floor=floor))) == pytest.approx(chain)


@pytest.mark.parametrize("limit", [0.5, 0.2, 0.05])
def test_a_suggested_plan_really_passes(
    network: Network, damages: list[LayerDamage], chain: float, limit: float
) -> None:
    limit *= chain
    plan = uniform_plan({ENGINE: "int4"}, compute="fp32")
    found = suggest(plan, ENGINE, damages, limit=limit, measured=chain)
    engine = found.plan.engine(ENGINE)
    schemes = {name: engine.scheme_of(name) for name in network.weights}
    right = network.run(dict.fromkeys(network.weights, "fp32"))
    assert found.predicted <= limit
    assert distance(right, network.run(schemes)) <= limit
    assert "layers.5.down.weight" in found.raised
    assert set(found.raised) == {name for name, scheme in schemes.items() if scheme != "int4"}
    bits = {"int4": 4.125, "int8": 8.125, "fp32": 32}
    assert found.added_bytes == sum((bits[s] - 4.125) / 8 * WIDTH * WIDTH for s in schemes.values())


def test_a_plan_that_passes_already_is_left_alone(damages: list[LayerDamage], chain: float) -> None:
    plan = uniform_plan({ENGINE: "int4", "hl/vision": "int8"}, compute="bf16")
    found = suggest(plan, ENGINE, damages, limit=2 * chain, measured=chain)
    assert (found.plan, found.raised, found.added_bytes) == (plan, {}, 0)


def damage(weight: str, layer: float, scheme: Scheme = "int4", elements: int = 1000) -> LayerDamage:
    return LayerDamage(weight=weight, scheme=scheme, product=layer, layer=layer, elements=elements)


def test_what_the_user_kept_stays_kept_and_a_raised_weight_wins() -> None:
    keep: dict[str, Scheme] = {"layers.1.a": "int8", "layers.*": "int4"}
    plan = Plan(engines={ENGINE: EnginePlan(scheme="nvfp4", compute="bf16", keep=keep)})
    harmful = [damage("layers.1.a", 0.5, "int8"), damage("layers.2.a", 0.001), damage("head", 0.001, "nvfp4")]
    engine = suggest(plan, ENGINE, harmful, limit=0.2).plan.engine(ENGINE)
    assert list(engine.keep.items()) == [("layers.1.a", "bf16"), ("layers.*", "int4")]
    assert engine.scheme_of("head") == "nvfp4"


def test_a_variant_raises_its_engine() -> None:
    plan = uniform_plan({"hl/vision": "int4"}, compute="bf16")
    found = suggest(plan, "hl/vision_320x360", [damage("merger.up.weight", 0.2)], limit=0.1).plan
    assert found.engine("hl/vision").keep == {"merger.up.weight": "int8"}


def test_a_cheap_weight_is_raised_before_a_huge_one_of_equal_harm() -> None:
    plan = uniform_plan({ENGINE: "int4"}, compute="bf16")
    found = suggest(plan, ENGINE, [damage("head", 0.1, elements=10**8), damage("small", 0.1)], limit=0.12)
    assert set(found.raised) == {"small"}


def test_a_measured_alternative_is_believed_over_the_estimate() -> None:
    plan = uniform_plan({ENGINE: "int4"}, compute="bf16")
    harmful = [damage("a", 0.2), damage("a", 0.19, "int8")]
    assert suggest(plan, ENGINE, harmful, limit=0.1).raised == {"a": "bf16"}
    assert suggest(plan, ENGINE, harmful[:1], limit=0.1).raised == {"a": "int8"}
    assert suggest(plan, ENGINE, harmful[:1], limit=0.1, ladder={}).raised == {"a": "bf16"}


def test_what_no_plan_can_reach_is_refused() -> None:
    plan = uniform_plan({ENGINE: "int4"}, compute="bf16")
    with pytest.raises(MemrtError, match="no plan for hl/decoder passes"):
        suggest(plan, ENGINE, [damage("a", 0.2)], limit=1e-4)
    with pytest.raises(MemrtError, match="no plan"):
        suggest(plan, ENGINE, [damage("a", 0.2)], limit=0.1, most_added_bytes=100)
    with pytest.raises(MemrtError, match="no plan"):
        suggest(plan, ENGINE, [damage("a", 0.2)], limit=0.1, measured=0.2, floor=0.15)


@given(
    st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=12), st.floats(0.01, 1.0), st.sampled_from(["int4", "nvfp4"])
)
def test_a_suggestion_always_keeps_its_promise(errors: list[float], limit: float, scheme: Scheme) -> None:
    plan = uniform_plan({ENGINE: scheme}, compute="fp32")
    found = suggest(plan, ENGINE, [damage(f"layers.{i}.a", e, scheme) for i, e in enumerate(errors)], limit=limit)
    assert found.predicted <= limit
    assert list(found.raised) == sorted(found.raised, key=natural)


def test_the_ladder_ends_at_the_computing_precision() -> None:
    engine = EnginePlan(scheme="int4", compute="bf16")
    climb: list[Scheme] = ["int4"]
    while (better := next_better(climb[-1], engine, LADDER)) is not None:
        climb.append(better)
    assert climb == ["int4", "int8", "bf16"]
    assert next_better("fp32", engine) is None


def failed(relative_l2: float) -> GateError:
    with pytest.raises(GateError) as refused:
        judge(ENGINE, "int4", Agreement(0.8, relative_l2, "logits, sample 3", 8))
    return refused.value


def test_a_failed_gate_names_the_worst_weight_and_writes_the_plan(
    tmp_path: Path, damages: list[LayerDamage], chain: float
) -> None:
    plan, file = uniform_plan({ENGINE: "int4"}, compute="bf16"), tmp_path / "B.plan.yaml"
    refusal = refuse_with_plan(failed(0.8), plan, ENGINE, damages, file)
    assert "layers.5.down.weight (int4) hurts most" in refusal.what
    assert f"--plan {file}" in refusal.fix
    assert load_plan(file).engine(ENGINE).scheme_of("layers.5.down.weight") != "int4"
    assert isinstance(refusal.__cause__, GateError)


def test_a_gate_that_counts_gets_a_plan_with_half_the_error(tmp_path: Path, damages: list[LayerDamage]) -> None:
    plan, file = uniform_plan({ENGINE: "int4"}, compute="bf16"), tmp_path / "plan.yaml"
    with pytest.raises(GateError) as failure:
        answer_agreement("int4", [np.arange(10)], [np.zeros(10)])
    refusal = refuse_with_plan(failure.value, plan, ENGINE, damages, file)
    assert "halves the error" in refusal.fix
    assert load_plan(file).engine(ENGINE).keep


def test_an_overflow_gets_no_plan(tmp_path: Path, damages: list[LayerDamage]) -> None:
    plan, file = uniform_plan({ENGINE: "int4"}, compute="fp16"), tmp_path / "plan.yaml"
    assert "range of fp16" in refuse_with_plan(failed(math.inf), plan, ENGINE, damages, file).fix
    assert "no plan for" in refuse_with_plan(failed(0.8), plan, ENGINE, damages, file, floor=0.7).fix
    assert not file.exists()
