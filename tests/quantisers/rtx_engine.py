"""TensorRT for RTX as a judge of graphs: does it parse and compile them, and how large is the engine?"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def engine_bytes(path: Path, sms: tuple[str, ...]) -> int:
    """Build `path` for `sms`; size of the engine in bytes, 0 if it is refused."""
    import tensorrt_rtx

    trt: Any = tensorrt_rtx
    logger = trt.Logger(trt.Logger.Severity.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        return 0
    config = builder.create_builder_config()
    # Without a GPU there is no default.
    config.num_compute_capabilities = len(sms)
    for index, name in enumerate(sms):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    engine = builder.build_serialized_network(network, config)
    return 0 if engine is None else int(engine.nbytes)
