"""`memrt bench lowlevel`: what it compares, and what it refuses. Not how fast anything is."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from memrt.runtime.bench import low_level
from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli import build_app
from memrt.runtime.cli.bench_low_level_command import low_level_table
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.thread_budget import ThreadBudget


class Sleeper:
    """A policy that takes as long as it is told, either level."""

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds, self.calls = milliseconds, 0

    def act(self, observation, subgoal, goal, noise):
        self.calls += 1
        time.sleep(self.milliseconds / 1e3)

    def call(self, goal, observation, state):
        self.calls += 1
        time.sleep(self.milliseconds / 1e3)
        return SimpleNamespace(state=state + 1)

    def initial(self):
        return 0

    def noise(self, seed, call_index):
        return np.zeros((1, 1), np.float32)

    def close(self):
        pass


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(find_bundle(None, None, "int8"), verify=False)


@pytest.fixture
def asleep(monkeypatch):
    def conditions(bundle, budget, cores, stack: ExitStack):
        make = low_level.Condition
        return [
            make("off, 1 threads", Sleeper(6), 1),
            make("off, 2 threads", Sleeper(2), 2),
            make("on, 2,1", Sleeper(4), 2, Sleeper(10), 1),
            make("on, 2,2, equal", Sleeper(12), 2, Sleeper(1), 2, behind=False),
        ]

    monkeypatch.setattr(low_level, "_conditions", conditions)
    monkeypatch.setattr(low_level, "BLOCK_S", 0.3)


def test_the_report_compares_with_the_fastest_setting_of_the_low_level_alone(asleep, bundle):
    report = low_level.bench_low_level(bundle, seconds=0.6, threads=ThreadBudget(2, 1), progress=lambda line: None)
    assert report["fastest_off"] == "off, 2 threads"
    conditions = report["conditions"]
    assert report["ratio_p99"] == pytest.approx(
        conditions["on, 2,1"]["p99"] / conditions["off, 2 threads"]["p99"], abs=1e-3
    )
    assert report["speedup"]["equal"] == pytest.approx(
        conditions["on, 2,2, equal"]["p99"] / conditions["on, 2,1"]["p99"], abs=0.01
    )
    assert report["within_target"] == (report["ratio_p99"] <= 1.5 and report["high_level_calls_per_s"] >= 0.5)
    assert conditions["off, 1 threads"]["high_level_calls_per_s"] == 0.0
    assert 0 < conditions["on, 2,1"]["high_level_calls_per_s"] <= 100
    assert [found["high_level_stands_back"] for found in conditions.values()] == [False, False, True, False]
    assert {found["runs"] for found in conditions.values()} == {2}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert low_level_table(report).row_count == 4


def test_a_high_level_that_fails_ends_the_bench(asleep, bundle, monkeypatch):
    monkeypatch.setattr(Sleeper, "initial", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        low_level.bench_low_level(bundle, seconds=0.3, threads=None, progress=lambda line: None)


def test_observations_are_the_same_every_time_and_have_every_camera(bundle):
    first, again = (low_level.synthetic_observations(bundle) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert set(one.frames) == {"front", "wrist"}
        np.testing.assert_array_equal(one.proprioception, other.proprioception)
        np.testing.assert_array_equal(one.frames["front"].image, other.frames["front"].image)
    assert not np.array_equal(first[0].frames["front"].image, first[1].frames["front"].image)


def test_the_committed_bundle_is_measured_with_its_own_engines():
    result = CliRunner().invoke(build_app(), ["bench", "lowlevel", "--seconds", "1", "--threads", "1,1", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bench"] == "lowlevel"
    assert report["policy"] == "am_grounded"
    assert all(found["calls"] > 0 for found in report["conditions"].values())
