"""What a TensorRT target gets in place of ONNX Runtime's graph: an engine built here, or a recipe to build it there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.export.plan import EnginePlan, Scheme
from memrt.export.streaming.made import Dims, Made
from memrt.export.streaming.resume import WorkFolder
from memrt.export.streaming.stream import Progress
from memrt.export.target import Target, TensorRtBuild
from memrt.export.tensorrt_build import audit_engine, build_engine_file
from memrt.export.vlm_graphs import ASKED
from memrt.runtime.engine.tensorrt_profiles import Profile, length_profiles
from memrt.runtime.policy.drafting import LONGEST
from memrt.runtime.recipe import Recipe, write_recipe

SUFFIX = ".rtx"  # engines of TensorRT for RTX
# Schemes whose weights every further profile stores once more in the file (measured with TensorRT for RTX 1.7).
ONE_PROFILE: frozenset[Scheme] = frozenset({"int8", "fp8"})


@dataclass(frozen=True, slots=True)
class ForDevice:
    """The file that the manifest names for the engine, and what its build says in the record of its gate."""

    file: Path
    record: dict[str, Any]


def build_for_device(
    name: str, made: Made, plan: EnginePlan, target: Target, work: WorkFolder, progress: Progress
) -> ForDevice | None:
    """Build the engine for the target's GPUs, or write its recipe; None where ONNX Runtime runs the graph itself.

    Raises MemrtError when TensorRT refuses the graph, or the engine is not what the plan says.
    """
    if target.build is None:
        return None
    elements = _elements(made)
    profiles = _profiles(name, made.dims, plan, target.build)
    graph = made.graph.relative_to(work.staging).as_posix()
    if target.backend == "tensorrt":
        recipe = Recipe(
            engine=name,
            graph=graph,
            precision=plan.scheme,
            profiles=profiles,
            workspace_bytes=target.build.workspace_mib << 20,
            weights_bytes=int(made.audit["nbytes"]),
            timing_cache=target.build.timing_cache,
        )
        write_recipe(work.staging, recipe)
        return ForDevice(made.graph, {"sm": list(target.sm), "built": "on the device, by its recipe"})
    file = made.graph.with_suffix(SUFFIX)
    known = work.note(f"{name} engine")
    if known is None:
        sm = target.sms_for({plan.scheme, *plan.keep.values()})
        progress(f"{name}: building for SM {', '.join(map(str, sm))}, {len(profiles)} profiles")
        report = build_engine_file(
            made.graph,
            file,
            backend="tensorrt_rtx",
            sm=sm,
            profiles=profiles,
            workspace_bytes=target.build.workspace_mib << 20,
        )
        progress(
            f"{name}: engine of {report.engine_bytes / 1e6:.1f} MB in {report.seconds:.0f} s, "
            f"peak {report.peak_bytes / 2**30:.1f} GiB"
        )
        audit = audit_engine(name, report, elements, fp32_products=elements["fp32"] - made.audit["other_elements"])
        known = {
            "sm": list(sm),
            "tensorrt_rtx": report.version,
            "profiles": len(profiles),
            "weight_types": report.weight_types,
            "precision_warnings": list(report.precision_warnings),
            "audit": audit.to_dict(),
        }
        work.leave_note(f"{name} engine", known)
    return ForDevice(file, known)


def _elements(made: Made) -> dict[Scheme, int]:
    """Weights by the type they are stored in; what no product multiplies by stays fp32."""
    found: Counter[Scheme] = Counter({"fp32": int(made.audit["other_elements"])})
    for product in made.audit["products"]:
        found[product["scheme"]] += int(product["elements"])
    return dict(found)


def _profiles(name: str, dims: Dims, plan: EnginePlan, build: TensorRtBuild) -> tuple[Profile, ...]:
    """The ranges of the one dimension that varies: new tokens of a decoder, the prefix of π0.5."""
    if not any(isinstance(size, str) for shape in dims.values() for size in shape):
        return ()
    kept = slice(-1, None) if plan.scheme in ONE_PROFILE else slice(None)
    if name == "hl/decoder":
        capacity = int(dims["keys"][2])
        lengths = [*(length for length in build.decoder_lengths if length < capacity), capacity]
        return length_profiles(dims, lengths[kept], few=(ASKED, LONGEST + 1))
    return length_profiles(dims, build.prefix_lengths[kept], shortest=2)
