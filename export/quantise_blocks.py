"""int8 in blocks: weights with one scale per 32 input channels, activations rounded block by block as they come.

ONNX Runtime's MatMulNBits kernel takes both. No range has to be known beforehand, so an outlier costs the 31 channels
beside it and not the whole tensor: every layer of a language model can be int8, the first one and the head included.
The scales cost an eighth more bytes and some time against the static scheme of `memrt.export.quantise`, which stays the
better choice where activations are tame and the same engine runs ten times per call (an action expert).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memrt.export.quantise import QuantisationReport, audit, chosen_products, count_weights
from memrt.export.reproducible import canonicalise, graph_bytes, save_model

OPERATOR = "MatMulNBits"
BLOCK = 32  # input channels per scale: the smallest that the kernel has integer code for
INT8_ACTIVATIONS = 4  # the kernel's accuracy level at which it multiplies integers


def quantise_int8_blocks(onnx_in: str | Path, onnx_out: str | Path, *, exclude: Sequence[str] = ()) -> dict[str, Any]:
    """Quantise the fp32 graph `onnx_in` to `onnx_out`; return `QuantisationReport.to_dict()`.

    `exclude` are node name patterns that stay fp32. Only MatMul nodes are replaced. Raises `MemrtError` when there is
    nothing to quantise or when the result fails its audit.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    source, target = Path(onnx_in), Path(onnx_out)
    model = onnx.load(str(source))
    canonicalise(model)
    products, chosen = chosen_products(model, exclude, source.name)
    chosen = {name: node for name, node in chosen.items() if node.op_type == "MatMul"}  # the kernel adds no bias
    total, quantised = count_weights(model, products.values()), count_weights(model, chosen.values())
    settings = DefaultWeightOnlyQuantConfig(
        bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS, op_types_to_quantize=("MatMul",)
    )
    quantiser = MatMulNBitsQuantizer(model, nodes_to_exclude=sorted(set(products) - set(chosen)), algo_config=settings)
    logging.getLogger(type(quantiser).__module__).setLevel(logging.WARNING)  # it tells of every node otherwise
    quantiser.process()
    result = quantiser.model.model
    canonicalise(result)
    save_model(result, target)
    operators = Counter(node.op_type for node in result.graph.node)
    report = QuantisationReport(
        nodes_quantised=len(chosen),
        nodes_kept_fp32=tuple(sorted(set(products) - set(chosen))),
        weights_quantised=quantised,
        weights_total=total,
        bytes_fp32=graph_bytes(source),
        bytes_int8=graph_bytes(target),
        fused={OPERATOR: operators[OPERATOR]},
        range_method=f"dynamic, blocks of {BLOCK}",
    )
    audit(report, target.name, bytes_per_weight=1.0 + 4.0 / BLOCK)
    return report.to_dict()
