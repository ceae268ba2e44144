"""Does a policy fit its device? Asked before anything is built, answered from sizes alone.

Both halves of a policy are resident at once. What the device's memory must hold:

- **weights** of every engine, by scheme, scales included (`tensorrt_build.scheme_bytes`);
- **K/V**: the decoder's static cache, and π0.5's per-layer keys and values of the longest prefix;
- **activations**: TensorRT gives an engine one scratch buffer for the profile that needs most. Per engine
      peak = bytes * tokens * (2 * width + max(2 * mlp, heads * context, 3 * width))
  the residual stream and its normalised copy, and the widest of a block's inner tensors: gate and up, the attention
  scores against `context` rows, or queries, keys and values. Layers follow one another and share. TensorRT fuses
  scores away where it can, so the estimate is on the safe side;
- **inputs and outputs**: K/V above is the only large one, the rest is counted with the activations (`io_bytes`);
- **runtime**: CUDA context, kernels, library: `RUNTIME_BYTES` per process, both halves share one.

The embedding tables stay in the host's memory. On devices whose CPU and GPU share one memory (Jetson) they count too,
and the reserve there is for the operating system, cameras and recorder as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from memrt.export.plan import Scheme
from memrt.export.target import DeviceMemory
from memrt.export.tensorrt_build import scheme_bytes
from memrt.runtime.errors import MemrtError

Verdict = Literal["fits", "tight", "does not fit"]

GIB = 1 << 30
RUNTIME_BYTES = 600 << 20  # CUDA context, kernels and TensorRT's own; an estimate: NVIDIA documents no figure
WORTH_SHARE = 0.2  # of an engine's weights, or of what is missing: advice that saves less is not given
TIGHT_SHARE = 0.9  # of what is left after the reserve: above it, fragmentation and other programs decide


@dataclass(frozen=True, slots=True)
class EngineSize:
    """One engine: weight elements by scheme, K/V bytes that stay on the device, and the activation peak in bytes."""

    name: str
    elements: Mapping[Scheme, int]
    kv_bytes: int = 0
    activation_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        """Weights as stored, scales included."""
        return scheme_bytes(self.elements)

    @property
    def total(self) -> int:
        """Everything that this engine holds on the device."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class MemoryVerdict:
    """The answer. Sizes in bytes; `needed` and `available` compare, `advice` is empty when it fits."""

    verdict: Verdict
    engines: tuple[EngineSize, ...]
    runtime: int
    host_tables: int
    needed: int
    available: int
    memory: DeviceMemory
    advice: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, sizes in bytes."""
        return {
            "verdict": self.verdict,
            "engines": {
                engine.name: {
                    "weights": engine.weight_bytes,
                    "kv": engine.kv_bytes,
                    "activations": engine.activation_bytes,
                }
                for engine in self.engines
            },
            "runtime": self.runtime,
            "host_tables": self.host_tables,
            "needed": self.needed,
            "available": self.available,
            "device_gib": self.memory.gib,
            "reserve_gib": self.memory.reserve_gib,
            "shared": self.memory.shared,
            "advice": list(self.advice),
        }

    def table(self) -> str:
        """For people: one row per engine, GiB."""
        rows = [("", "weights", "K/V", "activations", "sum")]
        for engine in self.engines:
            sizes = (engine.weight_bytes, engine.kv_bytes, engine.activation_bytes, engine.total)
            rows.append((engine.name, *map(_gib, sizes)))
        rows.append(("runtime", "", "", "", _gib(self.runtime)))
        where = "on the device" if self.memory.shared else "on the host, not counted"
        rows.append((f"embedding tables ({where})", "", "", "", _gib(self.host_tables)))
        rows.append(("needed", "", "", "", _gib(self.needed)))
        left = f"available: {self.memory.gib:g} GiB less a reserve of {self.memory.reserve_gib:g}"
        rows.append((left, "", "", "", _gib(self.available)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))])
            for first, *rest in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), f"verdict: {self.verdict}", *self.advice])


def kv_bytes(*, layers: int, kv_heads: int, rows: int, head_dim: int, element_bytes: int = 2) -> int:
    """Keys and values of all layers."""
    return 2 * layers * kv_heads * rows * head_dim * element_bytes


def activation_bytes(
    *, tokens: int, width: int, mlp: int, heads: int, context: int, element_bytes: int = 2, io_bytes: int = 0
) -> int:
    """Peak activations of one transformer (formula in the module's head); `context` is the rows a token attends to."""
    inner = max(2 * mlp, heads * context, 3 * width)
    return element_bytes * tokens * (2 * width + inner) + io_bytes


def judge(engines: Sequence[EngineSize], memory: DeviceMemory, *, host_tables: int = 0) -> MemoryVerdict:
    """Whether engines of both halves fit together; `host_tables`: bytes of the embedding tables."""
    needed = sum(engine.total for engine in engines) + RUNTIME_BYTES + (host_tables if memory.shared else 0)
    available = math.floor((memory.gib - memory.reserve_gib) * GIB)
    verdict: Verdict = "fits"
    if needed > available:
        verdict = "does not fit"
    elif needed > TIGHT_SHARE * available:
        verdict = "tight"
    advice = () if verdict == "fits" else _advice(engines, needed - math.floor(TIGHT_SHARE * available))
    return MemoryVerdict(
        verdict=verdict,
        engines=tuple(engines),
        runtime=RUNTIME_BYTES,
        host_tables=host_tables,
        needed=needed,
        available=available,
        memory=memory,
        advice=advice,
    )


def require_fit(verdict: MemoryVerdict) -> None:
    """Raise `MemrtError` when the policy does not fit; `tight` passes."""
    if verdict.verdict == "does not fit":
        parts = ", ".join(f"{engine.name} {_gib(engine.total)}" for engine in verdict.engines)
        raise MemrtError(
            "the policy does not fit the device",
            expected=f"at most {_gib(verdict.available)} GiB ({verdict.memory.gib:g} GiB less a reserve of "
            f"{verdict.memory.reserve_gib:g})",
            found=f"{_gib(verdict.needed)} GiB: {parts}, runtime {_gib(verdict.runtime)}",
            fix="; or ".join(verdict.advice),
        )


def _advice(engines: Sequence[EngineSize], excess: int) -> tuple[str, ...]:
    """What to change, most effective first. Of the narrower schemes of an engine, the widest that is enough."""
    advice: list[tuple[int, str]] = []
    for engine in engines:
        weights = sum(engine.elements.values())
        schemes: tuple[Scheme, ...] = ("int8", "int4")
        saved = {scheme: engine.weight_bytes - scheme_bytes({scheme: weights}) for scheme in schemes}
        worth = [scheme for scheme in schemes if saved[scheme] > WORTH_SHARE * engine.weight_bytes]
        chosen = next((scheme for scheme in worth if saved[scheme] >= excess), worth[-1] if worth else None)
        if chosen is not None:
            enough = ", enough" if saved[chosen] >= excess else ""
            text = f"store {engine.name} in {chosen} (saves {_gib(saved[chosen])} GiB{enough})"
            advice.append((saved[chosen], text))
        half = engine.kv_bytes // 2
        if half > WORTH_SHARE * excess:
            advice.append((half, f"halve the K/V capacity of {engine.name} (saves {_gib(half)} GiB)"))
    ordered = [text for _, text in sorted(advice, key=lambda item: -item[0])]
    return (*ordered[:3], f"choose a device with {_gib(excess)} GiB more")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
