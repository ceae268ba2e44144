"""A graph with an input per layer is run with one array for all of them, and reads that array's own memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from memrt.runtime.engine import open_engine
from memrt.runtime.engine.stacked_inputs import StackedInputs
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec

ROWS = 3


@pytest.fixture
def weighted_sum(tmp_path: Path) -> Path:
    """y = x + keys.0 − keys.1 + keys.2; the length of all of them is dynamic."""
    names = [f"keys.{row}" for row in range(ROWS)]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["length"]) for name in ("x", *names)]
    nodes = [
        helper.make_node("Add", ["x", "keys.0"], ["a"]),
        helper.make_node("Sub", ["a", "keys.1"], ["b"]),
        helper.make_node("Add", ["b", "keys.2"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["length"])
    graph = helper.make_graph(nodes, "sum", inputs, [output])
    path = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_rows_are_one_input(weighted_sum: Path) -> None:
    engine = open_engine(weighted_sum)
    assert engine.inputs == (TensorSpec("x", "float32", (-1,)), TensorSpec("keys", "float32", (ROWS, -1)))
    keys = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    found = engine.run({"x": np.ones(4, np.float32), "keys": keys})["y"]
    np.testing.assert_array_equal(found, 1 + keys[0] - keys[1] + keys[2])


def test_a_bound_run_reads_the_array_in_place(weighted_sum: Path) -> None:
    x, keys, y = np.zeros(2, np.float32), np.zeros((ROWS, 2), np.float32), np.zeros(2, np.float32)
    bound = open_engine(weighted_sum).bind({"x": x, "keys": keys}, {"y": y})
    for value in (5.0, -1.0):
        keys[1] = value
        bound.run()
        np.testing.assert_array_equal(y, -keys[1])


def test_another_number_of_rows_is_refused(weighted_sum: Path) -> None:
    feeds = {"x": np.zeros(2, np.float32), "keys": np.zeros((ROWS + 1, 2), np.float32)}
    with pytest.raises(MemrtError, match="keys"):
        open_engine(weighted_sum).run(feeds)


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


@pytest.mark.parametrize(
    "graph",
    [
        (spec("k.0", 2), spec("k.2", 2)),
        (spec("k.1", 2), spec("k.2", 2)),
        (spec("k.0", 2), spec("k.1", 3)),
        (spec("k.0", 2), spec("k.1", 2, dtype="int64")),
        (spec("k.0", 2), spec("k.1", 2), spec("k", 2)),
        (spec("k.x", 2), spec("k", 2)),
    ],
)
def test_what_is_no_row_of_a_stack_stays_an_input_of_its_own(graph: tuple[TensorSpec, ...]) -> None:
    stacked = StackedInputs(graph)
    assert stacked.specs == graph
    feeds = {one.name: np.zeros(one.shape, one.dtype) for one in graph}
    assert stacked.spread(feeds) == feeds
