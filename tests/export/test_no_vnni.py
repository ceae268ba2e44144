"""int8 on x86 CPUs without VNNI: what the manifest says, which kernels are taken, and what they compute.

Where QEMU is installed, its emulation of a CPU with AVX2 alone runs ONNX Runtime's own kernels for such CPUs.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from memrt.export.cpu_record import cpu_record, with_reduced_range
from memrt.export.quantise import quantise_int8
from memrt.export.quantise_blocks import quantise_int8_blocks
from memrt.export.target import load_target
from memrt.runtime.cpu_fit import cpu_remark
from memrt.runtime.engine.onnxruntime import DISABLED_OPTIMIZERS, EXACT_PRODUCTS, session_options
from memrt.runtime.errors import MemrtError
from memrt.runtime.processor import Processor, this_processor

INPUTS, OUTPUTS, ROWS = 256, 64, 8
HASWELL = Processor("Haswell", "x86_64", frozenset({"avx2", "fma"}))
ICE_LAKE = Processor("Ice Lake", "x86_64", frozenset({"avx2", "avx512bw", "avx512_vnni"}))
ORIN = Processor("Cortex-A78AE", "aarch64", frozenset({"asimd", "asimddp"}))
# Runs without memrt, which would have to be emulated too.
EMULATED = """
import sys, numpy, onnxruntime
x = numpy.load("x.npy")
for name in sys.argv[1:]:
    graph, _, exact = name.partition("+")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("{exact}", "1")
    session = onnxruntime.InferenceSession(graph + ".onnx", options, providers=["CPUExecutionProvider"])
    numpy.save(name + ".npy", session.run(None, {{"x": x}})[0])
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One product, quantised in three ways; its first row and column are the largest codes throughout."""
    folder = tmp_path_factory.mktemp("graphs")
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((INPUTS, OUTPUTS)).astype(np.float32)
    x = np.abs(rng.standard_normal((ROWS, INPUTS))).astype(np.float32)
    weight[:, 0], x[0] = np.abs(weight).max(), x.max()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product/MatMul")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "fp32.onnx"
    )
    np.save(folder / "x.npy", x)
    np.save(folder / "true.npy", x @ weight)
    quantise_int8(folder / "fp32.onnx", folder / "full.onnx", [{"x": x}])
    quantise_int8(folder / "fp32.onnx", folder / "reduced.onnx", [{"x": x}], reduce_range=True)
    quantise_int8_blocks(folder / "fp32.onnx", folder / "blocks.onnx")
    return folder


def run_here(folder: Path, name: str, processor: Processor) -> tuple[np.ndarray, set[int]]:
    """The result, and the types of the weights that the kernels got, as if this computer were `processor`."""
    options = session_options(1, processor)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        folder / f"{name}.onnx", options, ["CPUExecutionProvider"], disabled_optimizers=list(DISABLED_OPTIMIZERS)
    )
    result = session.run(None, {"x": np.load(folder / "x.npy")})[0]
    tensors = onnx.load(folder / "optimised.onnx").graph.initializer
    return result, {tensor.data_type for tensor in tensors if len(tensor.dims) == 2}


def error(folder: Path, found: np.ndarray) -> float:
    """The largest deviation from the product in fp32, as a share of the largest value."""
    true = np.load(folder / "true.npy")
    return float(np.abs(found - true).max() / np.abs(true).max())


@pytest.mark.parametrize(
    ("text", "saturates", "sets"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu avx2 avx512bw avx512_vnni\n\nmodel name: other\nflags: none\n", False, 3),
        ("model name\t: Core\nflags\t\t: avx2 avx_vnni\n", False, 2),
        ("model name\t: Zen 3\nflags\t\t: avx2 fma\n", True, 1),
        ("", True, 0),
    ],
)
def test_a_processor_is_known_by_its_flags(tmp_path, monkeypatch, text, saturates, sets):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(text)
    processor = this_processor(tmp_path / "cpuinfo")
    assert (processor.saturates, len(processor.integer_sets)) == (saturates, sets)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not this_processor(tmp_path / "cpuinfo").saturates
    assert this_processor(tmp_path / "missing").flags == frozenset()


@pytest.mark.skipif(this_processor().architecture != "x86_64", reason="the kernels of x86")
def test_exact_kernels_give_the_same_numbers(graphs):
    if this_processor().saturates:
        pytest.skip("this CPU has no VNNI to compare with")
    fast, fast_types = run_here(graphs, "full", ICE_LAKE)
    exact, exact_types = run_here(graphs, "full", HASWELL)
    np.testing.assert_allclose(exact, fast, rtol=1e-5, atol=1e-5)
    assert (TensorProto.INT8 in fast_types, TensorProto.UINT8 in exact_types) == (True, True)
    assert TensorProto.INT8 not in exact_types


@pytest.mark.skipif(this_processor().architecture != "x86_64", reason="the kernels of x86")
def test_weights_in_7_bits_keep_the_fast_kernels(graphs):
    _, types = run_here(graphs, "reduced", HASWELL)
    assert TensorProto.INT8 in types


def test_the_option_is_set_where_it_is_needed_only():
    for processor, wanted in ((HASWELL, True), (ICE_LAKE, False), (ORIN, False)):
        options = session_options(1, processor)
        if wanted:
            assert options.get_session_config_entry(EXACT_PRODUCTS) == "1"
        else:
            with pytest.raises(RuntimeError):
                options.get_session_config_entry(EXACT_PRODUCTS)


@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64",
    reason="needs qemu-user, which emulates a CPU without VNNI",
)
def test_on_a_cpu_without_vnni(graphs):
    names = ("full", "full+exact", "reduced", "blocks")
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", EMULATED.format(exact=EXACT_PRODUCTS), *names]
    subprocess.run(command, cwd=graphs, check=True, capture_output=True, timeout=600)
    errors = {name: error(graphs, np.load(graphs / f"{name}.npy")) for name in names}
    assert errors["full"] > 0.1  # what all this is about
    assert max(errors[name] for name in names[1:]) < 0.002
    if not this_processor().saturates:
        here, _ = run_here(graphs, "full", ICE_LAKE)
        np.testing.assert_allclose(np.load(graphs / "full+exact.npy"), here, rtol=1e-5, atol=1e-5)


def test_what_the_manifest_says():
    target = load_target("cpu")
    record = cpu_record(target, ["ll/step", "ll/prefix"])
    assert record is not None
    assert (record.architecture, record.full_range) == (this_processor().architecture, ("ll/prefix", "ll/step"))
    assert set(record.instruction_sets) <= this_processor().flags
    reduced = cpu_record(with_reduced_range(target), ["ll/step"])
    assert reduced is not None
    assert reduced.full_range == ()
    assert cpu_record(load_target("rtx"), ["ll/step"]) is None
    with pytest.raises(MemrtError, match="--reduced-range with target rtx"):
        with_reduced_range(load_target("rtx"))


def test_what_is_said_of_a_bundle_and_a_cpu():
    record = cpu_record(load_target("cpu"), ["ll/step"])
    assert record is not None
    assert "Haswell has no VNNI: ll/step run in exact int8 kernels" in str(cpu_remark(record, HASWELL))
    reduced = msgspec.structs.replace(record, full_range=())
    for said in (
        cpu_remark(record, ICE_LAKE),
        cpu_remark(record, ORIN),
        cpu_remark(reduced, HASWELL),
        cpu_remark(None),
    ):
        assert said is None
