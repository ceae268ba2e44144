"""A job carried out: the engine's graph and weights on disk, proven against torch by ONNX Runtime.

Two questions, two gates. *Does the file compute what was planned?* Its outputs against the pass that emulated the plan
in torch (`plan` in the record): independent of what quantisation costs, so its limit is tight. *Does the plan keep the
model?* Its outputs against torch in fp32: the limit is the precision's, from the one table of thresholds.
"""

from __future__ import annotations

import ctypes
import gc
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
from torch import nn

from memrt.export.engine_runs import run_engine
from memrt.export.gate_thresholds import Threshold
from memrt.export.gates import GateError, gate
from memrt.export.plan import EnginePlan, Plan, Scheme, plan_key
from memrt.export.quantisers.audit import audit_products
from memrt.export.quantisers.packed import divides
from memrt.export.sensitivity import LayerDamage, refuse_with_plan
from memrt.export.streaming.artefact import Artefact, product_weights
from memrt.export.streaming.data_file import DataFile
from memrt.export.streaming.job import Job, named
from memrt.export.streaming.made import Made
from memrt.export.streaming.products import Product, ProductSettings
from memrt.export.streaming.resume import WorkFolder
from memrt.export.streaming.skeleton import Skeleton
from memrt.export.streaming.stream import Progress, Streamed, UnitDamage, product_layers, stream
from memrt.runtime.engine.agreement import Tensors, compare
from memrt.runtime.errors import MemrtError

# A file against the torch pass that emulated its plan. ONNX Runtime rounds the activations of int4 products to eight
# bits in blocks, and computes a proof's 16-bit products in fp32: both are far below what quantisation costs.
PLAN_THRESHOLD = Threshold(cosine=0.995, relative_l2=0.10)
GOLDEN = 1  # gate samples that travel in the bundle: a decoder's holds a whole K/V cache


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How jobs are carried out. `tensorrt`: the graph is TensorRT's, and ONNX Runtime proves a twin of it.

    `keep_fp32` are node and weight patterns by engine name; `plan_file` is where a failed gate writes a better plan.
    `step_rtc` asks for π0.5's step with a clean beginning too.
    """

    plan: Plan
    tensorrt: bool
    keep_fp32: Mapping[str, Sequence[str]]
    smoothing: float
    reduce_range: bool
    random_weights: bool
    plan_file: Path
    threads: int
    step_rtc: bool = False


def carry_out(job: Job, work: WorkFolder, settings: BuildSettings, progress: Progress) -> Made:
    """`make`, or what an interrupted run made already."""
    finished = work.finished(job.name)
    if finished is not None:
        progress(f"{job.name}: finished by an earlier run")
        return finished
    made = make(job, work.staging, settings, progress)
    work.finish(job.name, made)
    return made


def make(job: Job, staging: Path, settings: BuildSettings, progress: Progress) -> Made:
    """Trace, stream and prove `job`; the graph and its weights lie below `staging`, and so does a proof's twin.

    Raises `MemrtError` when the plan names weights that are not there, when a product is not stored as planned, and
    when a gate fails (with the weight that hurts most and a plan that should pass).
    """
    skeleton = job.skeleton()
    progress(
        f"{job.name}: {len(skeleton.weights)} weights, {sum(map(math.prod, skeleton.weights.values())) / 1e6:.1f} M"
    )
    settings.plan.check_names(job.name, skeleton.weights)
    path = staging / job.file
    keep = settings.keep_fp32.get(plan_key(job.name), ())
    plan = explicit(settings.plan.engine(job.name), product_weights(skeleton.model), keep)
    target = Artefact.begin(
        skeleton, plan, DataFile(path.with_name(f"{path.name}.data")), tensorrt=settings.tensorrt, keep_fp32=keep
    )
    artefacts, proof = [target], path
    if settings.tensorrt:
        # Beside the graph whose codes it shares: external data must lie in the same folder.
        proof = path.with_suffix(".proof.onnx")
        data = DataFile(proof.with_name(f"{proof.name}.data"))
        artefacts.append(Artefact.begin(skeleton, plan, data, tensorrt=True, keep_fp32=keep, proof_of=target))
    products = ProductSettings(
        plan, smoothing=settings.smoothing, reduce_range=settings.reduce_range, symmetric=settings.tensorrt
    )
    streamed = stream(job.graph, job.units, job.calibration, job.gate, products, _Files(artefacts), progress)
    for artefact, file in zip(artefacts, (path, proof), strict=False):
        artefact.data.close()
        artefact.finish(file, streamed.products)
    audit = audit_products(target.model, plan.scheme_of).to_dict()
    audit["other_elements"] = _other_elements(skeleton)
    damage = layer_damage(streamed.products, streamed.damage, plan)
    give_back_memory()
    run = run_engine(proof, (job.feed(sample) for sample in job.gate), settings.threads)
    give_back_memory()
    record = _judge(job, plan, settings, streamed, run.found, damage)
    return Made(
        graph=path,
        proof=proof,
        record=record,
        audit=audit,
        damage=damage,
        dims=job.dims,
        inputs=run.inputs,
        outputs=run.outputs,
        calibration=streamed.calibration,
        reference=streamed.reference,
        feeds=[job.feed(sample) for sample in job.gate[:GOLDEN]],
        expected=[named(job.outputs, job.comparable(outputs)) for outputs in streamed.reference],
        found=run.found,
    )


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps what a pass over gigabytes of weights has fragmented."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def layer_damage(products: Mapping[str, Product], units: Sequence[UnitDamage], plan: EnginePlan) -> list[LayerDamage]:
    """What each quantised weight costs. A product's error reaches the stream by the share that its unit writes."""
    written = {damage.unit: damage.written for damage in units}

    def unit_of(name: str) -> str:
        return max((unit for unit in written if name == unit or name.startswith(f"{unit}.")), key=len)

    return [
        LayerDamage(
            weight=product.weight_name,
            scheme=product.scheme,
            product=product.relative_l2,
            layer=product.relative_l2 * written[unit_of(product.name)],
            elements=product.elements,
        )
        for product in products.values()
        if product.scheme not in {plan.compute, "fp32"}
    ]


def explicit(plan: EnginePlan, products: Mapping[str, int], keep_fp32: Sequence[str]) -> EnginePlan:
    """The plan with all exceptions spelled out, by the names of the `products` (and their input channels).

    The plan's own come first, then what the target keeps in fp32: patterns over weights (`head.weight`) and over nodes
    (`head/MatMul`). A weight whose input channels no block of the engine's scheme divides (3420 in the vision tower of
    Qwen2.5-VL-7B) is stored in the compute type.
    """
    kept: dict[str, Scheme] = {
        name: "fp32"
        for name in products
        for pattern in keep_fp32
        if fnmatchcase(name, pattern) or fnmatchcase(f"{name.removesuffix('.weight')}/MatMul", pattern)
    }
    for name, channels in products.items():
        if name not in kept and not divides(channels, plan.scheme, plan.block):
            kept[name] = plan.compute
    return msgspec.structs.replace(plan, keep={**plan.keep, **kept})


def stored_elements(graph: nn.Module, plan: EnginePlan, keep_fp32: Sequence[str]) -> dict[Scheme, int]:
    """Weights of a graph by the scheme that each will be stored in; all but the products' stay fp32."""
    products = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in product_layers(graph)}  # type: ignore[union-attr,arg-type]
    spelled = explicit(plan, {name: int(shape[0]) for name, shape in products.items()}, keep_fp32)
    total = sum(int(tensor.numel()) for tensor in (*graph.parameters(), *graph.buffers()))
    found: Counter[Scheme] = Counter({"fp32": total - sum(map(math.prod, products.values()))})
    for name, shape in products.items():
        found[spelled.scheme_of(name)] += math.prod(shape)
    return {scheme: count for scheme, count in found.items() if count}


class _Files:
    """Writes each weight to every graph's data file."""

    def __init__(self, artefacts: Sequence[Artefact]) -> None:
        self._artefacts = artefacts

    def constant(self, name: str, value: Any) -> None:
        for artefact in self._artefacts:
            artefact.constant(name, value)

    def product(self, product: Product) -> None:
        for artefact in self._artefacts:
            artefact.product(product)


def _judge(
    job: Job,
    plan: EnginePlan,
    settings: BuildSettings,
    streamed: Streamed,
    found: list[Tensors],
    damage: list[LayerDamage],
) -> dict[str, Any]:
    emulated = [named(job.outputs, job.comparable(outputs)) for outputs in streamed.predicted]
    predicted = compare(emulated, found)
    if not (predicted.cosine >= PLAN_THRESHOLD.cosine and predicted.relative_l2 <= PLAN_THRESHOLD.relative_l2):
        raise MemrtError(
            f"{job.name} does not compute what was planned",
            expected=f"cosine >= {PLAN_THRESHOLD.cosine}, relative L2 <= {PLAN_THRESHOLD.relative_l2} to its emulation",
            found=f"cosine {predicted.cosine:.6f}, relative L2 {predicted.relative_l2:.2e} ({predicted.worst})",
            fix="this is a defect of the export, report it with the plan",
        )
    reference = [named(job.outputs, job.comparable(outputs)) for outputs in streamed.reference]
    try:
        record = gate(job.name, plan.scheme, reference, found, random_weights=settings.random_weights)
        # A proof computes 16-bit products in fp32: what their rounding costs is known from the emulated pass.
        rounded = gate(job.name, plan.scheme, reference, emulated, random_weights=settings.random_weights)
    except GateError as failure:
        if not damage:
            raise
        raise refuse_with_plan(failure, settings.plan, job.name, damage, settings.plan_file) from failure
    return {
        **record,
        "plan": {**predicted.to_dict(), "threshold": PLAN_THRESHOLD.to_dict()},
        "emulated": {key: rounded[key] for key in ("cosine", "relative_l2", "worst", "samples", "threshold")},
    }


def _other_elements(skeleton: Skeleton) -> int:
    """Elements of all that no product multiplies by: norms, biases, tables of positions. They stay fp32."""
    products = set(product_weights(skeleton.model))
    tables = (v.const_value for v in skeleton.model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT)
    streamed = sum(math.prod(shape) for name, shape in skeleton.weights.items() if name not in products)
    return streamed + sum(int(table.size) for table in tables if table is not None)
