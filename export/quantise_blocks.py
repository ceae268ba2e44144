"""int8 in blocks: weights with one scale per 32 input channels, activations rounded block by block as they come.

ONNX Runtime's MatMulNBits kernel takes both. No range has to be known beforehand, so an outlier costs the 31 channels
beside it and not the whole tensor: every layer of a language model can be int8, the first one and the head included.
The scales cost an eighth more bytes than the static scheme of `memrt.export.quantise`, which stays for engines that
pass their gates with it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memrt.export.quantise import audit, select_products
from memrt.export.reproducible import canonicalise, save_model

OPERATOR = "MatMulNBits"
BLOCK = 32  # input channels per scale
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
    selection = select_products(model, exclude, source.name, ("MatMul",))  # the kernel adds no bias, as a Gemm does
    settings = DefaultWeightOnlyQuantConfig(
        bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS, op_types_to_quantize=("MatMul",)
    )
    quantiser = MatMulNBitsQuantizer(model, nodes_to_exclude=list(selection.kept_fp32), algo_config=settings)
    logging.getLogger(type(quantiser).__module__).setLevel(logging.WARNING)  # it tells of every node otherwise
    quantiser.process()
    result = quantiser.model.model
    canonicalise(result)
    save_model(result, target)
    operators = Counter(node.op_type for node in result.graph.node)
    fused = {OPERATOR: operators[OPERATOR]}
    report = selection.report(source, target, fused=fused, method=f"dynamic, blocks of {BLOCK}")
    audit(report, target.name, bytes_per_weight=1.0 + 4.0 / BLOCK)
    return report.to_dict()
