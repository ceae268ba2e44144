"""ONNX graph to TensorRT engine on the workstation, and the audit that no engine passes which is not what it claims.

The build itself is `memrt.runtime.engine.tensorrt_builder`, which robots use too. Here the plan is known, so the engine
is held to it: the bytes its weights take, and the types that the compiled layers really read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from memrt.export.plan import Scheme
from memrt.runtime.engine.tensorrt_builder import BuildReport, build_engine_file
from memrt.runtime.errors import MemrtError

__all__ = ["EngineAudit", "audit_engine", "build_engine_file", "scheme_bytes"]

# Bits of a stored weight, its share of the scales included: an fp16 scale per 128 weights (int4), per output channel
# (int8: nothing worth counting), per 16 weights in fp8 (nvfp4).
WEIGHT_BITS: dict[Scheme, float] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "int8": 8,
    "fp8": 8,
    "int4": 4 + 16 / 128,
    "nvfp4": 4 + 8 / 16,
}
# TensorRT's names of the types that hold weights of a scheme.
_HELD_AS: dict[str, Scheme] = {
    "Float": "fp32",
    "Half": "fp16",
    "BFloat16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
    "Int4": "int4",
    "FP4": "nvfp4",
}
# An engine may hold a quarter more than the plan: layouts are padded, small tensors are kept wide.
SLACK, SLACK_BYTES = 1.25, 1 << 20
# Share of all weights that may be wider than planned (biases, norms, tables, scales: one per 16 weights in nvfp4), and
# share that may be narrower. Too few elements to matter, in a small engine, are let through.
WIDER_SHARE, NARROWER_SHARE, FEW_ELEMENTS = 0.08, 0.001, 1 << 17


@dataclass(frozen=True, slots=True)
class EngineAudit:
    """What an engine holds against what its plan says.

    `planned_bytes`, `held_bytes`: weights. `held_share`: share of the weight elements by scheme, as far as the library
    tells; empty where it does not, and then only bytes were judged. `narrowed_share`: share of all weights that the
    plan wants in fp32 and the engine holds in less.
    """

    planned_bytes: int
    held_bytes: int
    held_share: dict[str, float]
    narrowed_share: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def scheme_bytes(elements: Mapping[Scheme, int]) -> int:
    """Bytes of weights by scheme, scales included."""
    return round(sum(WEIGHT_BITS[scheme] * count for scheme, count in elements.items()) / 8)


def audit_engine(
    name: str,
    report: BuildReport,
    elements: Mapping[Scheme, int],
    *,
    fp32_products: int | None = None,
    allow_narrowed: bool = False,
) -> EngineAudit:
    """Hold a built engine to the plan's weight `elements` by scheme.

    `fp32_products` are the elements that matrix products must read in fp32, by default all fp32 `elements`. A bias that
    is fused into a 16-bit product may be narrowed with it.

    Raises `MemrtError` when its weights take more bytes than planned, when more of them are in a wider type than
    planned, or (unless `allow_narrowed`) when weights that must stay fp32 do not.
    """
    planned, total = scheme_bytes(elements), max(1, sum(elements.values()))
    held = report.weights_bytes if report.weights_bytes is not None else report.engine_bytes
    if held > planned * SLACK + SLACK_BYTES:
        raise MemrtError(
            f"{name} holds more weights than its plan: part of it fell back to a wider type, or is stored twice",
            expected=f"about {planned / 1e6:.1f} MB of weights",
            found=f"{held / 1e6:.1f} MB, types {report.weight_types or 'unknown'}",
            fix="check the graph's types, and that no profile beside others has fixed shapes only",
        )
    share = _share(report.weight_types)
    planned_share = {scheme: count / total for scheme, count in elements.items()}
    narrowed = 0.0
    if share:
        wide = _wider_than(share, planned_share)
        if wide > WIDER_SHARE and wide * total > FEW_ELEMENTS:
            raise MemrtError(
                f"{name} runs in a wider type than its plan",
                expected=_percent(planned_share),
                found=_percent(share),
                fix="this target does not compile the scheme for these operators: choose another scheme or target",
            )
        wanted = planned_share.get("fp32", 0.0) if fp32_products is None else fp32_products / total
        narrowed = max(0.0, wanted - share.get("fp32", 0.0))
        if narrowed > NARROWER_SHARE and not allow_narrowed:
            raise MemrtError(
                f"{name} does not keep in fp32 what its plan keeps",
                expected=_percent(planned_share),
                found=_percent(share),
                fix="give the product an fp32 output, or an fp32 bias before the cast back: TensorRT folds a cast that "
                "follows it straight away into the product, and narrows its weights",
            )
    return EngineAudit(planned, held, {k: round(v, 6) for k, v in sorted(share.items())}, round(narrowed, 6))


def _share(types: Mapping[str, int]) -> dict[str, float]:
    known = {_HELD_AS[name]: count for name, count in types.items() if name in _HELD_AS}
    total = sum(known.values())
    return {scheme: count / total for scheme, count in known.items()} if total else {}


def _wider_than(held: Mapping[str, float], planned: Mapping[Scheme, float]) -> float:
    """The largest share that lies above some width in the engine beyond what the plan has above that width."""
    worst = 0.0
    for floor in (4.9, 8.0, 16.0):
        above = sum(share for scheme, share in held.items() if WEIGHT_BITS[scheme] > floor)  # type: ignore[index]
        allowed = sum(share for scheme, share in planned.items() if WEIGHT_BITS[scheme] > floor)
        worst = max(worst, above - allowed)
    return worst


def _percent(share: Mapping[Any, float]) -> str:
    return ", ".join(f"{scheme} {value:.1%}" for scheme, value in sorted(share.items()))
