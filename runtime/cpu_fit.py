"""A bundle's engines for ONNX Runtime, and the processor that they come to: what is to be said of the two."""

from __future__ import annotations

from memrt.runtime.manifest import CpuRecord
from memrt.runtime.processor import Processor, this_processor


def cpu_remark(record: CpuRecord | None, processor: Processor | None = None) -> str | None:
    """One phrase where this computer computes otherwise than the one that the gates ran on; None where it does not.

    On a CPU without VNNI, engines with codes of the full range run in exact kernels that give the same integers, more
    slowly (`memrt.runtime.engine.onnxruntime`). Bundles of schema 1 say nothing of it.
    """
    processor = processor or this_processor()
    if record is None or not record.full_range or not processor.saturates:
        return None
    engines = ", ".join(record.full_range)
    return (
        f"{processor.name} has no VNNI: {engines} run in exact int8 kernels, slower than those of the export; "
        "faster ones: `memrt export --reduced-range`"
    )
