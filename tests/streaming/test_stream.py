"""A streamed export of a small network: the files compute what the pass predicted, in every scheme of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from memrt.export.plan import EnginePlan
from memrt.export.streaming import products
from memrt.export.streaming.artefact import Artefact, product_weights
from memrt.export.streaming.data_file import DataFile
from memrt.export.streaming.engine import explicit
from memrt.export.streaming.products import ProductSettings
from memrt.export.streaming.skeleton import fake_mode, trace
from memrt.export.streaming.stages import LockStep
from memrt.export.streaming.stream import relative_l2, stream
from memrt.runtime.engine import open_engine

from .staged_network import DEPTH, HIDDEN, INPUTS, OUTPUTS, WIDTH, Network, checkpoint, units


def skeleton():
    with fake_mode():
        blocks, head = checkpoint()
    length = torch.export.Dim("length", min=1, max=64)
    return Network(blocks, head), trace(
        Network(blocks, head), (torch.zeros(3, WIDTH),), INPUTS, OUTPUTS, ({0: length},)
    )


def samples(count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4 + 3 * index, WIDTH, generator=generator),) for index in range(count)]


class Sink:
    def __init__(self, *artefacts: Artefact) -> None:
        self._artefacts = artefacts

    def constant(self, name, value):
        for artefact in self._artefacts:
            artefact.constant(name, value)

    def product(self, product):
        for artefact in self._artefacts:
            artefact.product(product)


def export(folder, plan: EnginePlan, *, tensorrt: bool):
    """The streamed network in `folder`: (streamed, graph for ONNX Runtime, graph for the target)."""
    graph, traced = skeleton()
    target = Artefact.begin(traced, plan, DataFile(folder / "net.data"), tensorrt=tensorrt)
    artefacts = [target]
    if tensorrt:
        proof = Artefact.begin(traced, plan, DataFile(folder / "proof.data"), tensorrt=True, proof_of=target)
        artefacts.append(proof)
    settings = ProductSettings(plan, symmetric=tensorrt)
    streamed = stream(graph, units(*checkpoint()), samples(6, 1), samples(3, 2), settings, Sink(*artefacts), print)
    for artefact, name in zip(artefacts, ("net.onnx", "proof.onnx"), strict=False):
        artefact.data.close()
        artefact.finish(folder / name, streamed.products)
    return streamed, folder / ("proof.onnx" if tensorrt else "net.onnx"), folder / "net.onnx"


def plan(scheme, compute="fp32", **keep):
    return EnginePlan(scheme=scheme, compute=compute, block=32, keep=keep)


def run(path, x):
    engine = open_engine(path)
    try:
        return torch.from_numpy(engine.run({"x": x.numpy()})["y"])
    finally:
        engine.close()


def test_skeleton_has_names_and_no_data():
    _, traced = skeleton()
    assert traced.weights["layers.1.up.weight"] == (WIDTH, HIDDEN)
    assert len(traced.weights) == 5 * DEPTH + 2
    assert product_weights(traced.model) == {
        **{f"layers.{n}.{name}.weight": rows for n in range(DEPTH) for name, rows in (("up", WIDTH), ("down", HIDDEN))},
        "head.weight": WIDTH,
    }
    assert all(traced.model.graph.initializers[name].const_value is None for name in traced.weights)
    assert {node.name.split("/")[0] for node in traced.model.graph} >= {"layers.0.norm", "layers.1.down", "head"}


def test_lock_step_is_the_forward_pass():
    network = Network(*checkpoint())
    steps, inputs = None, samples(3, 3)
    steps = LockStep(network, inputs)
    order = []
    while steps.unit is not None:
        order.append(steps.unit)
        steps.advance()
    assert order == ["layers.0", "layers.1", "head"]
    for (x,), (y,) in zip(inputs, steps.outputs, strict=True):
        torch.testing.assert_close(y, network(x), rtol=0, atol=0)


def test_unquantised_export_is_exact(tmp_path):
    streamed, path, _ = export(tmp_path, plan("fp32"), tensorrt=False)
    for (x,), (reference,) in zip(samples(3, 2), streamed.reference, strict=True):
        torch.testing.assert_close(Network(*checkpoint())(x), reference, rtol=0, atol=0)
        assert relative_l2(reference, run(path, x)) < 1e-5
    assert all(damage.relative_l2 == 0.0 for damage in streamed.damage)


@pytest.mark.parametrize("tensorrt", [False, True])
@pytest.mark.parametrize(("scheme", "limit"), [("int8", 0.03), ("int4", 0.2)])
def test_engine_computes_what_the_pass_predicted(tmp_path, scheme, limit, tensorrt):
    streamed, path, _ = export(tmp_path, plan(scheme, "bf16" if tensorrt else "fp32", head="fp32"), tensorrt=tensorrt)
    for (x,), (reference,), (predicted,) in zip(samples(3, 2), streamed.reference, streamed.predicted, strict=True):
        found = run(path, x)
        assert relative_l2(reference, predicted) < limit
        assert relative_l2(predicted, found) < (0.02 if scheme == "int4" or tensorrt else 2e-3)
    assert 0 < streamed.damage[0].relative_l2 <= limit
    assert all(0 < p.relative_l2 < limit for p in streamed.products.values())


def test_two_exports_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(tmp_path / name, plan("int4"), tensorrt=False)
    for file in ("net.onnx", "net.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_kept_weights_are_stored_as_the_plan_says(tmp_path):
    streamed, path, _ = export(tmp_path, plan("int8", **{"layers.0.*": "fp32"}), tensorrt=False)
    assert streamed.products["layers.0.up"].scheme == "fp32"
    assert streamed.damage[0].relative_l2 == 0.0 < streamed.damage[1].relative_l2
    assert np.isfinite(run(path, samples(1, 4)[0][0]).numpy()).all()


@pytest.mark.parametrize(("scheme", "limit"), [("fp8", 0.06), ("nvfp4", 0.25)])
def test_schemes_without_cpu_kernels_are_proven_by_what_their_codes_stand_for(tmp_path, scheme, limit):
    streamed, path, target = export(tmp_path, plan(scheme, "bf16", head="fp32"), tensorrt=True)
    for (x,), (reference,), (predicted,) in zip(samples(3, 2), streamed.reference, streamed.predicted, strict=True):
        assert relative_l2(reference, predicted) < limit
        assert relative_l2(reference, run(path, x)) < limit
    assert b"DequantizeLinear" in target.read_bytes()
    assert b"DequantizeLinear" not in path.read_bytes()


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_products_that_need_no_smoothing_have_no_multiplication(tmp_path, monkeypatch, gain):
    monkeypatch.setattr(products, "SMOOTHING_GAIN", gain)
    plan = EnginePlan(scheme="int8", compute="fp32")
    streamed, path, _ = export(tmp_path, plan, tensorrt=False)
    multiplied = {node.name for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "Mul"}
    smoothed = {f"{product.weight_name}/smoothing/Mul" for product in streamed.products.values() if product.smoothed}
    assert {name for name in multiplied if "/smoothing/" in name} == smoothed
    assert len(smoothed) == (0 if gain else len(streamed.products))


@pytest.mark.parametrize(("scheme", "stored"), [("int4", "bf16"), ("nvfp4", "bf16"), ("int8", "int8")])
def test_a_weight_that_no_block_divides_is_stored_in_the_compute_type(scheme, stored):
    # 3420: the MLP of Qwen2.5-VL-7B's vision tower
    spelled = explicit(
        plan(scheme, "bf16", **{"up*": "int8"}), {"down": 3420, "up": 3420, "out": 64, "head": 64}, ["head"]
    )
    assert {name: spelled.scheme_of(name) for name in ("down", "up", "out", "head")} == {
        "down": stored,
        "up": "int8",
        "out": scheme,
        "head": "fp32",
    }
