from __future__ import annotations

import onnx_ir as ir
import pytest

from memrt.runtime.engine import open_engine


@pytest.fixture
def run_model(tmp_path):
    """A graph's output `y` in ONNX Runtime."""

    def run(model: ir.Model, feeds):
        path = tmp_path / "model.onnx"
        path.write_bytes(ir.to_proto(model).SerializeToString())
        engine = open_engine(path)
        try:
            return engine.run(feeds)["y"]
        finally:
            engine.close()

    return run
