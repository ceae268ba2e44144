"""What the manifest says of the CPU that engines for ONNX Runtime passed their gates on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from memrt.export.target import Target
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import CpuRecord
from memrt.runtime.processor import this_processor


def cpu_record(target: Target, static_int8: Iterable[str]) -> CpuRecord | None:
    """This computer, and which of the engines with static int8 use the full range; None for TensorRT.

    Blocks of int8 or int4 are no matter here: their kernels do not saturate without VNNI (measured, export/README.md).
    """
    if target.quantisation is None:
        return None
    processor = this_processor()
    return CpuRecord(
        architecture=processor.architecture,
        instruction_sets=processor.integer_sets,
        full_range=() if target.quantisation.reduce_range else tuple(sorted(static_int8)),
    )


def with_reduced_range(target: Target) -> Target:
    """The target with int8 weights in 7 bits. Raises MemrtError for TensorRT, whose GPUs add products in 32 bits."""
    if target.quantisation is None:
        raise MemrtError(
            f"--reduced-range with target {target.name}",
            expected="a target whose engines ONNX Runtime runs on the CPU",
            found=f"backend {target.backend}",
            fix="leave it out",
        )
    settings = msgspec.structs.replace(target.quantisation, reduce_range=True)
    return msgspec.structs.replace(target, quantisation=settings)
