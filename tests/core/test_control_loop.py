"""The control thread: follows chunks, stops when told, counts what happened."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from memrt.runtime._core import ControlEvent, ControlLoop, SeamLimits, TraceRing, now_ns

pytestmark = pytest.mark.real_time

MS = 1_000_000
LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])


def still(offset: float, horizon: int = 20) -> np.ndarray:
    return np.column_stack([np.tile(HOME + offset, (horizon, 1)), np.zeros(horizon)])


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(2000):  # up to 20 s, however slow the machine
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def trace() -> TraceRing:
    return TraceRing(1 << 14)


@pytest.fixture
def loop(trace: TraceRing) -> Iterator[ControlLoop]:
    loop = ControlLoop(LIMITS, 500.0, trace=trace)
    loop.start(HOME, 1.0)
    yield loop
    loop.shutdown()


def events(trace: TraceRing) -> list[int]:
    return [int(name) for name in trace.drain()[:, 0] if name != ControlEvent.MISSED_TICKS]


def test_follows_a_chunk_then_rests_on_its_end(loop: ControlLoop, trace: TraceRing) -> None:
    q, dq, gripper, _ = loop.command()
    np.testing.assert_array_equal(q, HOME)
    assert not dq.any()
    assert gripper == 1.0
    assert loop.push(still(0.1), now_ns() + 20 * MS, 50 * MS, 7) == ""
    assert eventually(lambda: loop.stats()["starved_ticks"] > 0)
    assert eventually(lambda: loop.at_rest)
    q, _, gripper, _ = loop.command()
    np.testing.assert_allclose(q, HOME + 0.1, atol=1e-6)
    assert gripper == 0.0
    stats = loop.stats()
    assert stats["revision"] == 7
    assert stats["accepted"] == 1
    assert events(trace) == [ControlEvent.CHUNK_TAKEN, ControlEvent.STARVED]


def test_commands_are_for_deadlines_on_a_fixed_grid(loop: ControlLoop) -> None:
    times = []
    for _ in range(50):
        times.append(loop.command()[3])
        time.sleep(0.003)
    steps = np.diff(times)
    assert (steps >= 0).all()
    assert steps.max() > 0
    np.testing.assert_array_equal(steps % (2 * MS), 0)


def test_stop_is_true_when_it_says_stopped(loop: ControlLoop, trace: TraceRing) -> None:
    assert loop.push(still(0.5, 60), now_ns() + 20 * MS, 50 * MS, 1) == ""
    assert eventually(lambda: np.abs(loop.command()[1]).max() > 0.1)
    assert loop.stop()
    assert loop.stopped
    assert loop.push(still(0.5), now_ns() + 20 * MS, 50 * MS, 2) == "stopped"
    assert eventually(lambda: loop.at_rest)
    at = loop.command()[0]
    assert np.abs(at - (HOME + 0.5)).max() > 0.05
    assert loop.resume()
    assert not loop.stopped
    ticks = loop.stats()["ticks"]
    assert eventually(lambda: loop.stats()["ticks"] > ticks + 50)
    np.testing.assert_allclose(loop.command()[0], at, atol=1e-9)
    assert loop.push(still(0.0), now_ns() + 20 * MS, 50 * MS, 3) == ""
    assert eventually(lambda: loop.stats()["revision"] == 3)
    assert events(trace)[:3] == [ControlEvent.CHUNK_TAKEN, ControlEvent.STOP, ControlEvent.RESUME]
    assert loop.stats()["rejected"] == 1


def test_statistics_fit_together(loop: ControlLoop) -> None:
    assert loop.push(with_nan(), now_ns() + 20 * MS, 50 * MS, 1) == "non-finite"
    assert loop.push(still(0.0), now_ns() - 5000 * MS, 50 * MS, 1) == "too late"
    assert eventually(lambda: loop.stats()["ticks"] >= 200)
    loop.shutdown()
    stats = loop.stats()
    assert not stats["running"]
    assert stats["rejected"] == 2
    assert stats["starved_ticks"] == 0, "before the first chunk there is nothing to run out of"
    for name in ("late_ns", "work_ns"):
        durations = stats[name]  # type: ignore[literal-required]
        assert durations["count"] == stats["ticks"]
        percentiles = [durations[key] for key in ("median", "p90", "p99", "p999", "max")]
        assert percentiles[0] > 0
        assert percentiles == sorted(percentiles)


def with_nan() -> np.ndarray:
    actions = still(0.0)
    actions[0, 0] = np.nan
    return actions


def test_a_thread_that_holds_pythons_lock_does_not_stop_the_ticks(loop: ControlLoop) -> None:
    hold = ctypes.PyDLL(None).usleep  # PyDLL keeps the interpreter's lock during the call
    before = loop.stats()["ticks"]
    hold(300_000)
    assert loop.stats()["ticks"] > before + 1


def test_runs_once_at_a_time_and_again_after_shutdown(loop: ControlLoop) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        loop.start(HOME, 1.0)
    loop.shutdown()
    loop.shutdown()
    assert loop.push(still(0.0), now_ns() + 20 * MS, 50 * MS, 1) == "not reset"
    loop.start(HOME + 0.1, 0.5)
    assert loop.stats()["accepted"] == 0
    q, _, gripper, _ = loop.command()
    np.testing.assert_array_equal(q, HOME + 0.1)
    assert gripper == 0.5


@pytest.mark.parametrize("rate", [0.0, 4001.0, float("nan")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        ControlLoop(LIMITS, rate)
