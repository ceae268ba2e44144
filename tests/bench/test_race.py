"""The race itself: turns, warm-up, medians, processes of their own, kept engines, memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from memrt.export.bench import engines
from memrt.export.bench.decode import group
from memrt.export.bench.race import Race, relative_l2
from memrt.runtime.bench import hardware
from memrt.runtime.errors import MemrtError


class Counting:
    """A contestant that takes as many milliseconds as it has run."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name, self.diary, self.count = name, diary, 0

    def run(self) -> dict[str, float]:
        self.count += 1
        self.diary.append(self.name)
        return {"step": float(self.count)}

    def outputs(self) -> dict[str, np.ndarray]:
        return {"count": np.asarray(self.count)}

    def close(self) -> None:
        self.diary.append(f"{self.name} closed")


def test_contestants_take_turns_and_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[str] = []
    module = ModuleType("counting_contestants")
    module.contestant = lambda name, settings: Counting(name + settings["suffix"], diary)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    told: list[str] = []
    found = Race(module.__name__, {"suffix": "!"}, runs=4, warm_up=2).together(["a", "b"], told.append)
    assert diary == ["a!", "b!"] * 6 + ["b! closed", "a! closed"]
    assert found["a"].times == {"step": [3.0, 4.0, 5.0, 6.0]}
    assert found["a"].median("step") == 4.5
    assert int(found["b"].outputs["count"]) == 6
    assert sum("warm-up" in line for line in told) == 4


def test_a_refusal_in_another_process_arrives_as_it_is() -> None:
    race = Race("memrt.export.bench.step", {"size": "pi05-huge", "threads": 1}, runs=1)
    with pytest.raises(MemrtError, match=r"size of the π0.5: expected one of pi05, .*found pi05-huge"):
        race.apart(["ours"], lambda _: None)


def test_as_many_run_together_as_fit() -> None:
    needed = {"ours": 3, "bf16": 9, "fp32": 17}
    assert group(needed, 30) == ([["ours", "bf16", "fp32"]], {})
    assert group(needed, None) == ([["ours", "bf16", "fp32"]], {})
    assert group(needed, 20) == ([["ours", "bf16"], ["fp32"]], {})
    assert group(needed, 10) == ([["ours"], ["bf16"]], {"fp32": "needs 0.0 GiB, 0.0 GiB available"})


def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_bytes", lambda: 2 * hardware.GIB)
    hardware.check_memory(2 * hardware.GIB, "this", "nothing")
    with pytest.raises(MemrtError, match=r"for that: expected 3.0 GiB available, found 2.0 GiB. Fix: close programs"):
        hardware.check_memory(3 * hardware.GIB, "that", "close programs")


def test_hardware_says_what_this_computer_is() -> None:
    found = hardware.hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert set(found["instruction_sets"]) <= set(hardware._INSTRUCTION_SETS)
    assert hardware.versions()["numpy"] == np.__version__


def test_engines_are_kept_by_what_they_follow_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(folder: Path) -> None:
        made.append(len(made))
        (folder / "file").write_text(str(made[-1]))

    first = engines.kept(tmp_path, "step", {"seed": 1}, make)
    assert engines.kept(tmp_path, "step", {"seed": 1}, make) == first
    assert made == [0]
    second = engines.kept(tmp_path, "step", {"seed": 2}, make)
    assert (second / "file").read_text() == "1"
    assert not first.exists()
    monkeypatch.setattr(engines, "code_digest", lambda: "other code")
    assert engines.kept(tmp_path, "step", {"seed": 2}, make) != second

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engines.kept(tmp_path, "other", {}, fail)
    assert engines.kept(tmp_path, "other", {}, make).joinpath("file").exists()
    assert not list(tmp_path.glob("other/*/half"))


def test_relative_l2() -> None:
    assert relative_l2(np.asarray([3.0, 4.0]), np.asarray([3.0, 4.5])) == pytest.approx(0.1)
