"""The gates of a report's page: what each measured, and how much room it has left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from memrt.runtime.report.tables import flat, in_digits

# How far a figure may go: its name in a gate's `threshold` (or `floor`), and which way is worse.
HIGHER_IS_BETTER = ("cosine", "identical", "identical_tokens", "identical_subgoal", "identical_gripper")


def gate_rows(gates: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """(gate, figure, measured, threshold, margin, worst sample) for every figure that has a threshold."""
    for name, gate in sorted(gates.items()):
        shown = False
        for figure, measured, limit in _limited(gate):
            remark = " · ".join(str(gate[key]) for key in ("worst", "label") if gate.get(key)) if not shown else ""
            yield (
                "" if shown else escape(name),
                escape(figure.replace("_", " ")),
                in_digits(measured),
                in_digits(limit),
                _margin(figure, measured, limit),
                escape(remark) + (_samples(gate) if not shown else ""),
            )
            shown = True
        if not shown:  # measured for comparison only
            pairs = ", ".join(f"{key} {in_digits(value)}" for key, value in flat(gate))
            yield (escape(name), escape(pairs), "", "", "", "")


def _limited(gate: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Every measured figure of a gate with its limit, wherever in the record the two are."""
    limits = dict(gate.get("threshold", {}))
    if "floor" in gate:
        limits |= {key: gate["floor"] for key in ("identical", "identical_tokens") if key in gate}
    measured = {**gate, **(gate.get("high_level") or {}), **(gate.get("low_level") or {})}
    if "most_lost" in limits:  # the upper end of the paired interval decides
        measured["most_lost"] = gate["lost"]["paired95"][1]
    for figure, limit in limits.items():
        if figure in measured:
            yield figure, measured[figure], limit


def _margin(figure: str, measured: Any, limit: Any) -> str:
    """The share of the allowed deviation that is left, 100 % when there is none at all."""
    if not isinstance(measured, float | int) or not isinstance(limit, float | int):
        return '<span class="bad">none</span>'
    deviation, allowed = (1 - measured, 1 - limit) if figure in HIGHER_IS_BETTER else (measured, limit)
    passes = deviation <= allowed
    if allowed <= 0:
        return '<span class="good">exact</span>' if passes else '<span class="bad">missed</span>'
    share = 1 - max(deviation, 0.0) / allowed
    return f'<span class="{"good" if passes else "bad"}">{share:.0%}</span>'


def _samples(gate: Mapping[str, Any]) -> str:
    for key, unit in (("samples", "samples"), ("episodes", "episodes"), ("answers", "answers"), ("steps", "steps")):
        if key in gate:
            return f" ({gate[key]} {unit})"
    return ""
