from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from product_graphs import WIDTH, reference, save, skeleton, weights
from rtx_engine import engine_bytes
from torch import Tensor, nn

from memrt.export.quantisers.insert import attach, packed_bytes, quantise_product, to_compute_type
from memrt.export.quantisers.packed import Compute, pack
from memrt.runtime.engine.onnxruntime import OnnxRuntimeEngine
from memrt.runtime.errors import MemrtError

FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


class Attention(nn.Module):
    """One attention layer with a K/V cache, a norm in front and a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Buffer(torch.rand(32) + 0.5)
        self.qkv = nn.Buffer(torch.randn(32, 96) / 6)
        self.out = nn.Buffer(torch.randn(32, 32) / 6)
        self.cos = nn.Buffer(torch.rand(64, 1, 4))

    def forward(self, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [n, 32], positions [n], keys and values [4, m, 8]."""
        h = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.norm
        q, k, v = (h @ self.qkv).reshape(-1, 12, 8).split(4, 1)
        turn = torch.cat((self.cos[positions], self.cos[positions]), -1)
        q, k, v = (q * turn).transpose(0, 1), (k * turn).transpose(0, 1), v.transpose(0, 1)
        scores = q @ torch.cat((keys, k), 1).transpose(1, 2) * 8**-0.5
        mixed = F.softmax(scores, -1) @ torch.cat((values, v), 1)
        return x + mixed.transpose(0, 1).reshape(-1, 32) @ self.out, k, v


@pytest.fixture(scope="module")
def attention() -> tuple[ir.Model, tuple[Tensor, ...], tuple[Tensor, ...]]:
    torch.manual_seed(0)
    module = Attention().eval()
    feeds = (torch.randn(3, 32), torch.arange(3), torch.randn(4, 5, 8), torch.randn(4, 5, 8))
    program = torch.onnx.export(
        module,
        feeds,
        dynamo=True,
        opset_version=23,
        verbose=False,
        input_names=["x", "positions", "cache.keys", "cache.values"],
        output_names=["y", "cache.new_keys", "cache.new_values"],
    )
    assert program is not None
    return program.model, feeds, module(*feeds)


def types(model: ir.Model, operator: str) -> set[ir.DataType | None]:
    return {node.outputs[0].dtype for node in model.graph if node.op_type == operator}


def test_an_attention_layer_in_fp16_keeps_what_must_be_precise(
    attention: tuple[ir.Model, tuple[Tensor, ...], tuple[Tensor, ...]], tmp_path: Path
) -> None:
    model, feeds, expected = attention
    model = model.clone()
    changed = to_compute_type(model, "fp16", cache=["cache.*"], cache_type="fp16")
    assert sorted(changed) == ["out", "qkv"]
    assert types(model, "MatMul") == {FLOAT16}
    assert types(model, "Softmax") == types(model, "Sqrt") == types(model, "Add") == {FLOAT}
    assert model.graph.initializers["qkv"].dtype == FLOAT16
    others = [value for name, value in model.graph.initializers.items() if name not in changed]
    assert FLOAT16 not in {value.dtype for value in others}
    assert [value.dtype for value in model.graph.inputs] == [FLOAT, ir.DataType.INT64, FLOAT16, FLOAT16]
    assert [value.dtype for value in model.graph.outputs] == [FLOAT, FLOAT16, FLOAT16]
    assert types(model, "Concat") <= {FLOAT, FLOAT16}
    path = save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    names = ["x", "positions", "cache.keys", "cache.values"]
    arrays = {name: feed.numpy() for name, feed in zip(names, feeds, strict=True)}
    for name in names[2:]:
        arrays[name] = arrays[name].astype(np.float16)
    found = OnnxRuntimeEngine(path).run(arrays)
    for name, tensor in zip(("y", "cache.new_keys", "cache.new_values"), expected, strict=True):
        assert np.allclose(found[name].astype(np.float32), tensor.numpy(), atol=5e-3), name


@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_tensorrt_builds_the_attention_layer_with_int4_weights(
    attention: tuple[ir.Model, tuple[Tensor, ...], tuple[Tensor, ...]], compute: Compute, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = attention[0].clone()
    matrices = {name: torch.from_numpy(model.graph.initializers[name].const_value.numpy()) for name in ("qkv", "out")}
    to_compute_type(model, compute, cache=["cache.*"], cache_type=compute)
    for name, matrix in matrices.items():
        packed = pack(matrix, "int4", scale_type=compute)
        for new in quantise_product(model, name, "int4", compute=compute):
            attach(model, new, packed_bytes(packed, new.role))
    path = save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    assert all(engine_bytes(path, (sm,)) for sm in ("SM86", "SM89", "SM120"))


@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_weights_without_data_change_their_type(compute: Compute) -> None:
    model = skeleton()
    wanted = FLOAT16 if compute == "fp16" else BFLOAT16
    assert sorted(to_compute_type(model, compute)) == sorted(weights())
    assert {value.dtype for value in model.graph.initializers.values()} == {wanted}
    casts = [node.name for node in model.graph if node.op_type == "Cast"]
    assert len(casts) == 5  # x and hidden to 16 bits, three products back
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == FLOAT
    assert types(model, "Sigmoid") == types(model, "Mul") == types(model, "Add") == {FLOAT}


def test_products_can_stay_and_others_can_follow(tmp_path: Path) -> None:
    model = skeleton(data=True)
    changed = to_compute_type(model, "fp16", keep_fp32=["down.weight"], also_compute=["hidden/*", "sigmoid/*"])
    assert sorted(changed) == ["gate.weight", "up.weight"]
    assert model.graph.initializers["down.weight"].dtype == FLOAT
    assert types(model, "Mul") == types(model, "Sigmoid") == {FLOAT16}
    x = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
    found = OnnxRuntimeEngine(save(model, tmp_path / "model.onnx")).run({"x": x})["y"]
    assert np.allclose(found, reference(x, weights()), atol=5e-3)


def test_bf16_is_a_valid_graph(tmp_path: Path) -> None:
    model = skeleton(data=True)
    to_compute_type(model, "bf16")
    onnx.checker.check_model(str(save(model, tmp_path / "model.onnx")), full_check=True)
    stored = model.graph.initializers["up.weight"].const_value
    assert stored is not None
    assert np.array_equal(stored.numpy().astype(np.float32), weights()["up.weight"].bfloat16().float().numpy())


def test_a_graph_in_fp32_stays_as_it_is() -> None:
    model = skeleton()
    before = [node.op_type for node in model.graph]
    assert to_compute_type(model, "fp32") == []
    assert [node.op_type for node in model.graph] == before


def test_values_without_a_type_are_refused() -> None:
    model = skeleton()
    next(node for node in model.graph if node.op_type == "Mul").outputs[0].type = None
    with pytest.raises(MemrtError, match="hidden"):
        to_compute_type(model, "fp16")


def test_stand_ins_of_fake_weights_are_not_read() -> None:
    from onnx_ir.tensor_adapters import TorchTensor
    from torch._subclasses import FakeTensorMode

    model = skeleton()
    with FakeTensorMode():
        for name, value in model.graph.initializers.items():
            value.const_value = TorchTensor(torch.empty(tuple(value.shape.numpy())), name=name)
    assert sorted(to_compute_type(model, "bf16")) == sorted(weights())
    assert {(v.dtype, v.const_value) for v in model.graph.initializers.values()} == {(BFLOAT16, None)}
