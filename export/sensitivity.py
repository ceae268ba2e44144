"""Which weights hurt most, and which plan would pass: damage measured per layer, combined along the residual stream.

The model. A layer adds its output to the residual stream, and so the error it adds: errors of different weights are
independent roundings, so their squares add up, and what follows amplifies all of them by about the same gain:

    chain² = floor² + gain² · Σ layer²

`layer` is the relative L2 error of a layer's output (the stream after it) with one weight quantised; `floor` is the
chain's error with none (the precision that products are computed in). The gain is not assumed: it is what makes the
sum equal the chain's measured error under the present plan. A scheme that was not measured for a weight is taken to
scale its damage by the ratio of the two schemes' rounding errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from memrt.export.gates import GateError
from memrt.export.plan import EnginePlan, Plan, Scheme, plan_bytes, plan_key
from memrt.runtime.errors import MemrtError

# Relative L2 error of a product with a rounded weight (emulated: Gaussian, 1024 × 1024; int4 in blocks of 128).
ROUNDING: dict[Scheme, float] = {
    "fp32": 0.0,
    "fp16": 2.1e-4,
    "bf16": 1.7e-3,
    "int8": 6.4e-3,
    "fp8": 2.6e-2,
    "nvfp4": 9.6e-2,
    "int4": 1.17e-1,
}
BITS: dict[Scheme, float] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "int8": 8.125,  # with a 16-bit scale per 128 weights
    "fp8": 8.125,
    "nvfp4": 4.5,  # an 8-bit scale per 16 weights
    "int4": 4.125,
}
# The next better scheme that runs on the same hardware as the first; above it comes what the engine computes in.
LADDER: dict[Scheme, Scheme] = {"int4": "int8", "nvfp4": "fp8"}
MARGIN = 0.9  # a suggested plan aims at this share of the gate: the model above is a model


class LayerDamage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What rounding one weight costs, as relative L2 errors on calibration inputs.

    `product`: of the weight's own product; `layer`: of its layer's output, nothing else quantised; `chain`: its
    contribution at the engine's end by the model above, None until `calibrate` knows it. `elements`: of the weight.
    """

    weight: str
    scheme: Scheme
    product: float
    layer: float
    elements: int
    chain: float | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A plan that should pass: `predicted` relative L2 of the chain under it; `raised` maps weights to schemes."""

    plan: Plan
    predicted: float
    raised: dict[str, Scheme]
    added_bytes: int


def rank(damages: Iterable[LayerDamage]) -> list[LayerDamage]:
    """The most harmful first; of equal harm, in the order of their names."""
    return sorted(damages, key=lambda damage: (-damage.layer, natural(damage.weight)))


def hurts_most(damages: Iterable[LayerDamage]) -> LayerDamage:
    """The weight whose rounding costs its layer most; ValueError when there are none."""
    return min(damages, key=lambda damage: (-damage.layer, natural(damage.weight)))


def combined(damages: Iterable[LayerDamage]) -> float:
    """√Σ layer², the chain's error but for floor and gain. One entry per weight, please."""
    return math.sqrt(sum(damage.layer**2 for damage in damages))


def calibrate(damages: Sequence[LayerDamage], measured: float, *, floor: float = 0.0) -> list[LayerDamage]:
    """The same damages (one per weight) with `chain` filled in, so that they and `floor` add up to `measured`."""
    gain = _gain(combined(damages), measured, floor)
    return [msgspec.structs.replace(damage, chain=gain * damage.layer) for damage in damages]


def suggest(
    plan: Plan,
    engine: str,
    damages: Sequence[LayerDamage],
    *,
    limit: float,
    measured: float | None = None,
    floor: float = 0.0,
    ladder: Mapping[Scheme, Scheme] = LADDER,
    margin: float = MARGIN,
    most_added_bytes: int | None = None,
) -> Suggestion:
    """Raise weights of `engine` until its predicted error is at most `margin` × `limit` (relative L2).

    Of all raises the one that removes most squared error per added byte comes next. `damages` holds every weight under
    its present scheme, and may hold other schemes of it, which then need not be estimated. `measured` is the error of
    the whole engine under the present plan, by which the model is calibrated (without it the gain is 1). Raises
    `MemrtError` when no plan within `most_added_bytes` passes.
    """
    present = plan.engine(engine)
    known = {(damage.weight, damage.scheme): damage.layer for damage in damages}
    sizes = {damage.weight: damage.elements for damage in damages}
    schemes: dict[str, Scheme] = {weight: present.scheme_of(weight) for weight in sizes}
    errors = {weight: _error(weight, scheme, known, scheme) for weight, scheme in schemes.items()}
    gain = 1.0 if measured is None else _gain(math.sqrt(sum(e**2 for e in errors.values())), measured, floor)
    goal, added = margin * limit, 0.0
    raised: dict[str, Scheme] = {}

    def predicted() -> float:
        return math.sqrt(floor**2 + gain**2 * sum(error**2 for error in errors.values()))

    while predicted() > goal:
        best: tuple[float, tuple[object, ...], str, Scheme, float] | None = None
        for weight, scheme in schemes.items():
            better = next_better(scheme, present, ladder)
            if better is None:
                continue
            error = _error(weight, better, known, scheme)
            cost = sizes[weight] * (BITS[better] - BITS[scheme]) / 8
            if most_added_bytes is not None and added + cost > most_added_bytes:
                continue
            gained = (errors[weight] ** 2 - error**2) / max(cost, 1.0)
            if gained > 0 and (best is None or (-gained, natural(weight)) < best[:2]):
                best = (-gained, natural(weight), weight, better, error)
        if best is None:
            raise MemrtError(
                f"no plan for {engine} passes its gate",
                expected=f"a predicted relative L2 error of at most {goal:.2e}",
                found=f"{predicted():.2e} with {len(raised)} weights raised",
                fix=f"use another scheme, or compute in a better precision than {present.compute}",
            )
        _, _, weight, better, error = best
        added += sizes[weight] * (BITS[better] - BITS[schemes[weight]]) / 8
        schemes[weight] = raised[weight] = better
        errors[weight] = error
    ordered = {weight: raised[weight] for weight in sorted(raised, key=natural)}
    older = {pattern: scheme for pattern, scheme in present.keep.items() if pattern not in ordered}
    revised = msgspec.structs.replace(present, keep={**ordered, **older})  # the first match wins
    return Suggestion(
        plan=msgspec.structs.replace(plan, engines={**plan.engines, plan_key(engine): revised}),
        predicted=predicted(),
        raised=ordered,
        added_bytes=round(added),
    )


def refuse_with_plan(
    failure: GateError,
    plan: Plan,
    engine: str,
    damages: Sequence[LayerDamage],
    file: Path,
    *,
    floor: float = 0.0,
    ladder: Mapping[Scheme, Scheme] = LADDER,
) -> MemrtError:
    """The refusal of a failed gate that names the weight which hurts most and a plan that passes.

    A gate that counts (answers, gripper commands) has no error to aim at: there the plan halves the error. The plan is
    written to `file`, for `--plan`. Where no plan helps (an overflow, or the computing precision itself is at fault)
    the refusal says so. Give it to `raise`; `failure` stays its cause.
    """
    measured, limit, aim = _goal(failure.record, damages)
    worst = hurts_most(damages)
    what = f"{failure.what}; {worst.weight} ({worst.scheme}) hurts most, {worst.layer:.2e} of its layer's output"
    fix = f"compute in fp32 or bf16: a value left the range of {plan.engine(engine).compute}"
    if math.isfinite(measured):
        try:
            suggestion = suggest(plan, engine, damages, limit=limit, measured=measured, floor=floor, ladder=ladder)
        except MemrtError as hopeless:
            fix = f"{hopeless.what}: {hopeless.fix}"
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(plan_bytes(suggestion.plan))
            fix = (
                f"a plan that {aim} (predicted relative L2 {suggestion.predicted:.2e}; {len(suggestion.raised)} "
                f"weights in a better scheme, {suggestion.added_bytes / 1e6:.1f} MB more) was written to {file}; run "
                f"the export again with --plan {file}"
            )
    refusal = MemrtError(what, expected=failure.expected, found=failure.found, fix=fix)
    refusal.__cause__ = failure
    return refusal


def _goal(record: Mapping[str, Any], damages: Sequence[LayerDamage]) -> tuple[float, float, str]:
    """(measured error, the error to reach, what a plan that reaches it does), from a gate's record."""
    if "relative_l2" not in record:
        return combined(damages), combined(damages) / 2, "halves the error"
    limits = record["threshold"]
    limit = min(limits["relative_l2"], distance_of(limits["cosine"]))
    return float(record["relative_l2"]), limit, "should pass"


def distance_of(cosine: float) -> float:
    """The relative L2 error at which an error independent of the signal gives this cosine."""
    return math.sqrt(1.0 / cosine**2 - 1.0)


def next_better(scheme: Scheme, engine: EnginePlan, ladder: Mapping[Scheme, Scheme] = LADDER) -> Scheme | None:
    """The scheme above `scheme`; the last is what the engine computes in, and above that there is None."""
    above = ladder.get(scheme, engine.compute)
    return above if ROUNDING[above] < ROUNDING[scheme] else None


def natural(name: str) -> tuple[object, ...]:
    """A key that sorts `layers.2` before `layers.10`."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def _gain(total: float, measured: float, floor: float) -> float:
    if total <= 0.0:
        return 1.0
    return math.sqrt(max(measured**2 - floor**2, 0.0)) / total


def _error(weight: str, scheme: Scheme, known: Mapping[tuple[str, Scheme], float], present: Scheme) -> float:
    """Measured if it was, else scaled from the present scheme's, else from any other that was measured."""
    if (weight, scheme) in known:
        return known[weight, scheme]
    measured = [s for (name, s) in known if name == weight and ROUNDING[s] > 0]
    base = present if (weight, present) in known and ROUNDING[present] > 0 else (measured or [None])[0]
    return 0.0 if base is None else known[weight, base] * ROUNDING[scheme] / ROUNDING[base]
