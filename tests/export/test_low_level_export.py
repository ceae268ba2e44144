"""The low level's share of an export with the step for clean beginnings, which the packaged policies do not ask for."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parents[1] / "calib"))

from recorded import GOAL, SUBGOALS, write_dataset
from tiny_action_expert import HORIZON, IMAGE_SIZE, write_tiny_pi05

from memrt.calib.calibration_set import load_calibration_set
from memrt.calib.record import Counts, record_calibration_set
from memrt.export.engine_build import build_engine
from memrt.export.low_level_export import TAPPED_STEPS, LowLevelExport
from memrt.export.target import load_target
from memrt.runtime.config import load_policy


def test_the_step_for_clean_beginnings_is_listened_to_and_gated(tmp_path: Path) -> None:
    write_tiny_pi05(tmp_path / "weights", [GOAL, *SUBGOALS["simple"], *SUBGOALS["grounded"]])
    dataset = write_dataset(tmp_path / "data", low_level_size=IMAGE_SIZE, high_level_size=64)
    record_calibration_set(dataset, tmp_path / "calibration", name="tiny", counts=Counts(4, 3, 2, 2))
    recorded = load_calibration_set(tmp_path / "calibration")
    policy = load_policy("oracle_simple")
    low_level = msgspec.structs.replace(policy.low_level, image_size=IMAGE_SIZE, horizon=HORIZON, execute=HORIZON)
    policy = msgspec.structs.replace(policy, low_level=low_level)
    export = LowLevelExport(policy, tmp_path / "weights", tmp_path / "ll", recorded, step_rtc=True)

    samples = recorded.low_level("gate")
    feeds = export.tap(samples, tmp_path / "taps")
    assert {name: len(store) for name, store in feeds.items()} == {
        "vision": 2 * len(samples),
        "prefix": len(samples),
        "step": len(samples) * len(TAPPED_STEPS),
        "step_rtc": len(samples) * len(TAPPED_STEPS),
    }
    clean = [int(feed["row"].sum()) for feed in feeds["step_rtc"]]
    assert clean[:: len(TAPPED_STEPS)] == [1 + index % (HORIZON // 2) for index in range(len(samples))]
    for feed in feeds["step_rtc"]:
        assert np.array_equal(np.sort(feed["row"])[::-1], feed["row"]), "clean tokens come first"

    part = next(part for part in export.parts(feeds, feeds) if part.name == "ll/step_rtc")
    record = build_engine(part, tmp_path, "fp32", load_target("cpu"))
    assert record.gate["relative_l2"] < 1e-5
    assert [spec.name for spec in record.inputs] == ["x", "modulation", "row", "positions", "keys", "values"]
