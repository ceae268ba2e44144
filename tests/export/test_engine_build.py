from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graphs import feeds, tiny_graph  # noqa: E402

from memrt.export.engine_build import Part, build_engine, canonicalise_file, evenly  # noqa: E402
from memrt.export.reproducible import save_model  # noqa: E402
from memrt.export.taps import MAX_FEEDS, FeedStore, TappedEngine  # noqa: E402
from memrt.export.target import Target, load_target  # noqa: E402
from memrt.runtime.engine import open_engine  # noqa: E402
from memrt.runtime.engine.golden import reproduce  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.manifest import sha256_of  # noqa: E402

WIDE = 256


def reference(feed: dict[str, np.ndarray], disturb: float = 0.0) -> dict[str, np.ndarray]:
    """What `tiny_graph` computes, by hand."""
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in tiny_graph(width=WIDE).graph.initializer}
    x = feed["x"]
    s = x + np.tanh(x @ weights["w_up"].T) @ weights["w_down"]
    return {"y": (s @ weights["w_out"] + weights["b_out"]) * (1 + disturb)}


def part(disturb: float = 0.0) -> Part:
    return Part(
        name="ll/step",
        file="ll/step.onnx",
        reference=lambda feed: reference(dict(feed), disturb),
        calibration=feeds(8, seed=1, width=WIDE),
        gate=feeds(5, seed=2, width=WIDE),
    )


def cpu_target() -> Target:
    """The CPU target with patterns for `tiny_graph`'s nodes; the packaged ones are about pi0.5's."""
    target = load_target("cpu")
    quantisation = msgspec.structs.replace(target.int8_settings(), keep_fp32={"ll/step": ("action_out*",)})
    return msgspec.structs.replace(target, quantisation=quantisation)


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    save_model(tiny_graph(width=WIDE), tmp_path / "staging" / "ll" / "step.onnx")
    canonicalise_file(tmp_path / "staging" / "ll" / "step.onnx")
    return tmp_path / "staging"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_builds_a_gated_engine_with_golden_samples(staging: Path, precision: str) -> None:
    record = build_engine(part(), staging, precision, cpu_target())
    path = staging / record.file
    assert record.precision == precision
    assert [(t.name, t.dtype, t.shape) for t in record.inputs] == [("x", "float32", (-1, WIDE))]
    assert record.gate["bytes"] == path.stat().st_size
    assert (record.gate["relative_l2"] > 1e-3) == (precision == "int8")
    agreement = reproduce("ll/step", open_engine(path), staging / record.gate["golden"], record.gate["threshold"])
    assert agreement.samples == 2
    assert sorted(p.name for p in (staging / "ll").iterdir()) == ["step.onnx"]


def test_int8_keeps_what_the_target_says(staging: Path) -> None:
    record = build_engine(part(), staging, "int8", cpu_target())
    assert record.gate["quantisation"]["nodes_kept_fp32"] == ["action_out_proj/Gemm"]


def test_a_wrong_graph_is_refused_before_it_is_quantised(staging: Path) -> None:
    before = sha256_of(staging / "ll" / "step.onnx")
    with pytest.raises(MemrtError, match=r"ll/step \(fp32\)"):
        build_engine(part(disturb=0.01), staging, "int8", load_target())
    assert sha256_of(staging / "ll" / "step.onnx") == before


def test_an_engine_without_gate_samples_is_refused(staging: Path) -> None:
    ungated = Part("ll/step", "ll/step.onnx", reference, calibration=feeds(2, width=WIDE), gate=[])
    with pytest.raises(MemrtError, match="no gate samples"):
        build_engine(ungated, staging, "fp32", load_target())


def test_evenly_spreads_over_the_whole_sequence() -> None:
    every = [{"x": np.array(i)} for i in range(100)]
    assert [int(f["x"]) for f in evenly(every, 4)] == [0, 25, 50, 75]
    assert len(evenly(every, 200)) == 100


def test_tapped_engine_keeps_the_chosen_calls_of_every_moment(staging: Path, tmp_path: Path) -> None:
    engine = TappedEngine(open_engine(staging / "ll" / "step.onnx"), calls=(0, 2))
    engine.store = FeedStore(tmp_path / "feeds")
    calls = feeds(8, width=WIDE)
    for moment in (calls[:4], calls[4:]):
        engine.begin()
        for feed in moment:
            engine.run(feed)
    kept = [calls[i]["x"] for i in (0, 2, 4, 6)]
    assert len(engine.store) == len(kept)
    for read, written in zip(engine.store, kept, strict=True):
        np.testing.assert_array_equal(read["x"], written)
    np.testing.assert_array_equal(engine.store[-1]["x"], kept[-1])


def test_a_store_is_bounded(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    for i in range(MAX_FEEDS + 3):
        store.append({"x": np.array([i], np.int32)})
    assert len(store) == MAX_FEEDS == len(list(tmp_path.iterdir()))


def test_targets() -> None:
    target = load_target("cpu")
    target.check("int8")
    with pytest.raises(MemrtError, match="does not run"):
        target.check("fp8")
    with pytest.raises(MemrtError, match="cpu"):
        load_target("toaster")


def test_a_target_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nbackend: onnxruntime\nprecisions: [fp32]\nspeed: 3\n")
    with pytest.raises(MemrtError, match="speed"):
        load_target(tmp_path / "mine.yaml")
