"""The packaged targets, and what a target file must say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from memrt.export.plan import ENGINES
from memrt.export.target import DeviceMemory, load_target
from memrt.runtime.engine.tensorrt_builder import AHEAD_OF_TIME_SMS
from memrt.runtime.errors import MemrtError

PACKAGED = Path(__file__).parents[2] / "configs" / "targets"
ON_GPU = ("rtx", "orin", "thor", "h200")


def edited(folder: Path, name: str, change) -> Path:
    data = yaml.safe_load((PACKAGED / f"{name}.yaml").read_text())
    change(data)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("name", ON_GPU)
def test_packaged_gpu_targets_are_complete(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    plan = target.default_plan(ENGINES)
    assert plan.engine("hl/decoder").scheme == "int4"
    for engine in plan.engines.values():
        assert target.sms_for([engine.scheme, *engine.keep.values()]) == target.sm
    assert target.build is not None
    assert target.build.decoder_lengths[0] == 1
    assert set(target.fp32) == set(ENGINES)
    assert target.memory is not None
    assert target.memory.shared == (name in {"orin", "thor"})
    assert (target.backend == "tensorrt_rtx") == set(target.sm).issubset(AHEAD_OF_TIME_SMS)
    with pytest.raises(MemrtError, match=f"target {name} has no graphs for ONNX Runtime"):
        target.int8_settings()


def test_the_cpu_target_keeps_its_int8_settings() -> None:
    target = load_target("cpu")
    assert target.int8_settings().blockwise == ("hl/vision", "hl/decoder")
    assert (target.backend, target.precisions, target.sm) == ("onnxruntime", ("fp32", "int8", "int4"), ())
    assert target.default_plan(ENGINES).engine("hl/decoder").scheme == "int4"


def test_new_schemes_are_for_the_gpus_that_have_them() -> None:
    target = load_target("rtx")
    assert target.sms_for(["int4", "bf16"]) == (86, 89, 120)
    assert target.sms_for(["fp8", "bf16"]) == (89, 120)
    assert target.sms_for(["nvfp4"]) == (120,)
    with pytest.raises(MemrtError, match=r"no GPU of target orin has hardware.*fp8: SM 89 or newer"):
        load_target("orin").sms_for(["fp8"])
    with pytest.raises(MemrtError, match="the plan says nothing about hl/nothing"):
        target.default_plan(["hl/nothing"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(speed=3), "unknown key `speed`"),
        (lambda d: d["memory"].update(giga=3), r"unknown key `memory\.giga`"),
        (lambda d: d["plan"]["ll/step"].update(schem="int8"), r"`plan\.ll/step\.schem`"),
        (lambda d: d.pop("memory"), "`memory`.*found none"),
        (
            lambda d: d.update(quantisation=yaml.safe_load((PACKAGED / "cpu.yaml").read_text())["quantisation"]),
            "remove",
        ),
        (lambda d: d.update(sm=[86, 87]), r"`sm`.*found \[87\]"),
        (
            lambda d: (
                d["plan"]["ll/step"].update(keep={"a*": "fp8"}) or d.update(precisions=["bf16", "fp16", "int8", "int4"])
            ),
            "fp8",
        ),
        (lambda d: d["memory"].update(gib=13), r"`memory\.gib`.*found 13"),
        (lambda d: d["memory"].update(reserve_gib=12), r"`memory\.reserve_gib`"),
        (lambda d: d["build"].update(decoder_lengths=[128, 1]), r"`build\.decoder_lengths`.*ascending"),
        (lambda d: d["build"].update(timing_cache="../x"), r"build\.timing_cache"),
    ],
)
def test_mistakes_in_a_target_are_named(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(MemrtError, match=message):
        load_target(edited(tmp_path, "rtx", change))


def test_another_memory_size_can_be_given() -> None:
    memory = load_target("orin").memory
    assert memory is not None
    assert memory.with_size(16) == DeviceMemory(gib=16, reserve_gib=memory.reserve_gib, shared=True)
    with pytest.raises(MemrtError, match="more than the reserve"):
        memory.with_size(3)
