"""int8 for ONNX Runtime's CPU kernels: static QDQ, unsigned activations × signed weights, per output channel.

U8 × S8 is the pair ONNX Runtime fuses into its integer kernels on x86 (signed activations stay unfused: six times
slower, measured). Only matrix products with constant weights are quantised; products of two activations (attention)
and everything else stay fp32, and so do the results: a product leaves the integer kernel as fp32, no second rounding.
Ranges come from `memrt.calib.ranges`, the nodes are inserted by onnxruntime.quantization.
"""

from __future__ import annotations

import fnmatch
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.calib.ranges import RangeMethod, observe_ranges
from memrt.export.reproducible import canonicalise, graph_bytes, save_model
from memrt.export.smooth import smooth
from memrt.runtime.engine.onnxruntime import DISABLED_OPTIMIZERS, PROVIDER, session_options
from memrt.runtime.errors import MemrtError

Feeds = Mapping[str, NDArray[Any]]

WEIGHT_OPERATORS = ("MatMul", "Gemm")
# What ONNX Runtime turns a quantised product into; a product that is none of these runs in fp32.
FUSED_OPERATORS = ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulInteger")

# At least this share of the weights of all matrix products must be int8, and this share of the quantised products
# must run in integer kernels: below that the file is called int8 but is not.
QUANTISED_WEIGHT_FLOOR = 0.60
FUSED_FLOOR = 0.95
# int8 file ≤ fp32 file − what the quantised weights save, plus this share for scales and graph nodes.
SIZE_SLACK = 0.10
SIZE_SLACK_BYTES = 64 * 1024


@dataclass(frozen=True)
class QuantisationReport:
    """What became int8 and what did not; sizes in bytes, weights in elements."""

    nodes_quantised: int
    nodes_kept_fp32: tuple[str, ...]
    weights_quantised: int
    weights_total: int
    bytes_fp32: int
    bytes_int8: int
    fused: dict[str, int]
    range_method: str

    @property
    def weight_share(self) -> float:
        """Share of all matrix products' weights that became int8."""
        return self.weights_quantised / max(1, self.weights_total)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "nodes_kept_fp32": list(self.nodes_kept_fp32), "weight_share": self.weight_share}


def quantise_int8(
    onnx_in: str | Path,
    onnx_out: str | Path,
    calibration: Iterable[Feeds],
    *,
    exclude: Sequence[str] = (),
    method: RangeMethod | None = None,
    smoothing: float = 0.0,
    reduce_range: bool = False,
    weight_floor: float = QUANTISED_WEIGHT_FLOOR,
    threads: int = 1,
) -> dict[str, Any]:
    """Quantise the fp32 graph `onnx_in` to `onnx_out`; return `QuantisationReport.to_dict()`.

    `calibration` holds feeds of the graph; its dynamic dimensions may differ from feed to feed. `exclude` are node
    name patterns that stay fp32. `smoothing` is the α of `memrt.export.smooth`. `reduce_range` keeps weights in 7 bits:
    for CPUs without VNNI, whose int16 sums of two products saturate. Raises `MemrtError` when there is nothing to
    quantise or when the result fails its audit (size, share of int8 weights, share that ONNX Runtime really fuses).
    """
    import onnx

    source, target = Path(onnx_in), Path(onnx_out)
    method = method or RangeMethod()
    model = onnx.load(str(source))
    canonicalise(model)
    feeds = calibration if isinstance(calibration, Sequence) else list(calibration)
    smooth(model, sorted(select_products(model, exclude, source.name).nodes), feeds, alpha=smoothing, threads=threads)
    selection = select_products(model, exclude, source.name)  # smoothed products have weights of their own
    activations = sorted({node.input[0] for node in selection.nodes.values()})
    ranges = observe_ranges(model, activations, feeds, method=method, threads=threads)
    save_model(_insert_qdq(model, sorted(selection.nodes), ranges, reduce_range), target)
    report = selection.report(source, target, fused=fused_operators(target), method=method.name)
    audit(report, target.name, weight_floor=weight_floor)
    return report.to_dict()


@dataclass(frozen=True)
class Selection:
    """Which weight products of a graph become int8, by name; weights in elements, one shared by two counted once."""

    nodes: dict[str, Any]
    kept_fp32: tuple[str, ...]
    weights: int
    weights_total: int

    def report(self, source: Path, target: Path, *, fused: dict[str, int], method: str) -> QuantisationReport:
        """What quantising `source` to `target` made of it."""
        return QuantisationReport(
            nodes_quantised=len(self.nodes),
            nodes_kept_fp32=self.kept_fp32,
            weights_quantised=self.weights,
            weights_total=self.weights_total,
            bytes_fp32=graph_bytes(source),
            bytes_int8=graph_bytes(target),
            fused=fused,
            range_method=method,
        )


def select_products(
    model: Any, exclude: Sequence[str], name: str, operators: Sequence[str] = WEIGHT_OPERATORS
) -> Selection:
    """The products by `operators` outside the `exclude` patterns; raises `MemrtError` if none is left."""
    products = _weight_products(model)
    chosen = {
        node: product
        for node, product in products.items()
        if product.op_type in operators and not any(fnmatch.fnmatchcase(node, pattern) for pattern in exclude)
    }
    if not chosen:
        raise MemrtError(
            f"nothing to quantise in {name}",
            expected=f"{'/'.join(operators)} nodes with constant weights outside {list(exclude)}",
            found=f"{len(products)} weight products, none of them left",
            fix="export this engine as fp32, or narrow the exclude patterns",
        )
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}

    def count(nodes: Iterable[Any]) -> int:
        return sum(sizes[weight] for weight in {node.input[1] for node in nodes})

    kept = tuple(sorted(set(products) - set(chosen)))
    return Selection(chosen, kept, count(chosen.values()), count(products.values()))


def audit(
    report: QuantisationReport,
    name: str,
    *,
    weight_floor: float = QUANTISED_WEIGHT_FLOOR,
    bytes_per_weight: float = 1.0,
) -> None:
    """Refuse an int8 graph that is int8 in name only; raises `MemrtError` naming the check that failed.

    `bytes_per_weight` counts the weight's share of its scale, where one scale serves few weights.
    """
    if report.weight_share < weight_floor:
        raise MemrtError(
            f"{name}: too few weights became int8",
            expected=f"at least {weight_floor:.0%} of the weights of matrix products",
            found=f"{report.weight_share:.1%}; left in fp32: {', '.join(report.nodes_kept_fp32)}",
            fix="narrow the exclude patterns, or export this engine as fp32",
        )
    saved = (4 - bytes_per_weight) * report.weights_quantised
    limit = (report.bytes_fp32 - saved) * (1 + SIZE_SLACK) + SIZE_SLACK_BYTES
    if report.bytes_int8 > limit:
        raise MemrtError(
            f"{name}: the int8 file is too large, weights are still stored in fp32",
            expected=f"at most {limit:.0f} bytes",
            found=f"{report.bytes_int8} bytes (fp32 file: {report.bytes_fp32})",
            fix="check that no other operator shares the quantised weights",
        )
    fused = sum(report.fused.values())
    if fused < FUSED_FLOOR * report.nodes_quantised:
        raise MemrtError(
            f"{name}: ONNX Runtime leaves quantised products unfused, they would run in fp32",
            expected=f"at least {FUSED_FLOOR:.0%} of {report.nodes_quantised} products in integer kernels",
            found=f"{fused}: {report.fused}",
            fix="use U8 activations with S8 weights, and a version of onnxruntime that fuses them",
        )


def fused_operators(path: str | Path) -> dict[str, int]:
    """Count the integer matrix kernels in the graph as ONNX Runtime optimises it for this CPU."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = session_options(threads=1)
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 4  # it warns that the file is specific to this CPU: that is what we look at
        onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=[PROVIDER], disabled_optimizers=list(DISABLED_OPTIMIZERS)
        )
        counts = Counter(node.op_type for node in onnx.load(str(optimised), load_external_data=False).graph.node)
    return {name: counts[name] for name in FUSED_OPERATORS if counts[name]}


def _weight_products(model: Any) -> dict[str, Any]:
    """Nodes whose second operand is a constant matrix, by name."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return {n.name: n for n in model.graph.node if n.op_type in WEIGHT_OPERATORS and n.input[1] in matrices}


def _insert_qdq(model: Any, names: Sequence[str], ranges: Mapping[str, tuple[float, float]], reduce_range: bool) -> Any:
    """Let onnxruntime.quantization insert QuantizeLinear/DequantizeLinear around the named products."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    tensors = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in ranges.items()
        },
    )
    inferred = onnx.shape_inference.infer_shapes(model)
    quantizer = QDQQuantizer(
        inferred,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=tensors,
        nodes_to_quantize=list(names),
        nodes_to_exclude=[],
        op_types_to_quantize=list(WEIGHT_OPERATORS),
        extra_options={
            "MatMulConstBOnly": True,
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            "OpTypesToExcludeOutputQuantization": list(WEIGHT_OPERATORS),
        },
    )
    quantizer.quantize_model()
    quantised = quantizer.model.model
    _keep_fp32_for_others(quantised, set(names), set(ranges))
    _sort_initialisers(quantised)
    canonicalise(quantised)
    return quantised


def _keep_fp32_for_others(model: Any, names: set[str], activations: set[str]) -> None:
    """Give every other reader of a quantised activation the fp32 tensor back.

    The quantiser hands the rounded tensor to all readers. The residual stream is such a tensor: it would collect one
    rounding per layer for nothing.
    """
    from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

    rounded = {f"{name}{DEQUANT_OUTPUT_SUFFIX}": name for name in activations}
    for node in model.graph.node:
        if node.name not in names:
            for i, name in enumerate(node.input):
                node.input[i] = rounded.get(name, name)


def _sort_initialisers(model: Any) -> None:
    """The quantiser collects tensors in sets; their order in the file must not depend on it."""
    ordered = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(ordered)
    del model.graph.value_info[:]
