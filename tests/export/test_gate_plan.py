"""The mixed-precision plan: first match wins, the same plan gives the same bytes, every mistake is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.export.plan import BLOCKS, ENGINES, SCHEMES, EnginePlan, Plan, load_plan, plan_bytes, uniform_plan
from memrt.runtime.errors import MemrtError

TEXT = """
engines:
  hl/decoder:
    scheme: int4
    compute: bf16
    keep:
      layers.0.*: bf16
      layers.*.down.weight: int8
      head*: fp32
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_the_first_pattern_that_matches_wins(tmp_path: Path) -> None:
    decoder = load_plan(written(tmp_path, TEXT)).engine("hl/decoder")
    assert decoder.block == 128
    schemes = {
        "layers.0.down.weight": "bf16",
        "layers.10.down.weight": "int8",
        "layers.10.qkv.weight": "int4",
        "head.weight": "fp32",
    }
    assert {name: decoder.scheme_of(name) for name in schemes} == schemes


patterns = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters=".*[]-:# '\""), min_size=1)
engine_plans = st.builds(
    EnginePlan,
    scheme=st.sampled_from(SCHEMES),
    compute=st.sampled_from(["fp32", "fp16", "bf16"]),
    block=st.sampled_from(BLOCKS),
    keep=st.dictionaries(patterns, st.sampled_from(SCHEMES), max_size=4),
)


@given(st.dictionaries(st.sampled_from(ENGINES), engine_plans, min_size=1))
def test_a_written_plan_reads_back_with_its_order(tmp_path_factory: pytest.TempPathFactory, engines: dict) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    path.write_bytes(plan_bytes(Plan(engines=engines)))
    found = load_plan(path)
    assert found == Plan(engines=engines)
    assert {n: list(e.keep) for n, e in found.engines.items()} == {n: list(e.keep) for n, e in engines.items()}
    assert plan_bytes(found) == path.read_bytes()


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"engines": {"ll/step": {"scheme": "int8", "compute": "fp32", "block": 32}}}')
    assert load_plan(path) == uniform_plan({"ll/step": "int8"}, compute="fp32", block=32)


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        (TEXT.replace("hl/decoder", "hl/decodr"), "engines.hl/decodr", "did you mean `hl/decoder`"),
        (TEXT.replace("fp32", "fp23"), r"engines.hl/decoder.keep.head\*", "did you mean `fp32`"),
        (TEXT.replace("compute: bf16", "compute: int8"), "engines.hl/decoder.compute", "fp32, fp16, bf16"),
        (TEXT.replace("scheme:", "schema:"), "`schema` in `engines.hl/decoder`", "scheme"),
        (TEXT.replace("int4\n", "int4\n    block: 100\n"), "`block` in `engines.hl/decoder`", "128"),
        ("engines: {hl/vision: int8}", "engines.hl/vision", "scheme: int4"),
        ("engine: {}", "the keys engine", "engines:"),
        ("engines: {}", r"found \{\}", "hl/decoder"),
        (TEXT.replace("head*: fp32", "layers.0.*: fp32"), "given twice", "correct the line"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, named: str, hint: str) -> None:
    with pytest.raises(MemrtError, match=named) as refused:
        load_plan(written(tmp_path, text))
    assert hint in str(refused.value)


def test_a_pattern_for_no_weight_is_refused(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, TEXT))
    names = [f"layers.{i}.{part}.weight" for i in range(2) for part in ("qkv", "down")]
    plan.check_names("hl/decoder", [*names, "head.weight"])
    with pytest.raises(MemrtError, match=r"keep\.head\*"):
        plan.check_names("hl/decoder", names)
    with pytest.raises(MemrtError, match="says nothing about ll/step"):
        plan.check_names("ll/step", names)


def test_variants_of_an_engine_share_its_plan() -> None:
    plan = uniform_plan({"hl/vision": "int8"}, compute="fp32")
    assert plan.engine("hl/vision_320x360") is plan.engine("hl/vision")
