"""Which plan an export follows, and that a target is asked before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from memrt.export.chosen_plan import chosen_plan
from memrt.export.target import load_target
from memrt.runtime.errors import MemrtError

DECODER = ("hl/decoder",)


def plan_file(folder: Path, scheme: str, kept: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(
        f"engines:\n  hl/decoder: {{scheme: {scheme}, compute: bf16, keep: {{layers.0.*: {kept}, head*: fp32}}}}\n"
    )
    return path


def test_a_file_is_followed(tmp_path: Path) -> None:
    plan = chosen_plan(load_target("orin"), DECODER, None, plan_file(tmp_path, "int4", "int8"))
    assert plan.engine("hl/decoder").scheme_of("layers.0.up.weight") == "int8"


@pytest.mark.parametrize(("scheme", "kept"), [("fp8", "int8"), ("int4", "nvfp4")])
def test_a_scheme_that_the_target_lacks_is_refused(tmp_path: Path, scheme: str, kept: str) -> None:
    with pytest.raises(MemrtError, match="orin does not run this precision"):
        chosen_plan(load_target("orin"), DECODER, None, plan_file(tmp_path, scheme, kept))


def test_one_precision_for_all_engines(tmp_path: Path) -> None:
    plan = chosen_plan(load_target("cpu"), ("hl/vision", *DECODER), "int8", None)
    assert {engine.scheme for engine in plan.engines.values()} == {"int8"}
    with pytest.raises(MemrtError, match="two plans"):
        chosen_plan(load_target("cpu"), DECODER, "int8", plan_file(tmp_path, "int4", "int8"))
    with pytest.raises(MemrtError, match="does not run this precision"):
        chosen_plan(load_target("cpu"), DECODER, "nvfp4", None)
