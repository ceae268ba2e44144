"""The budget's demands at and around their limits."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.loop.scheduler import delay_steps
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import executed, feasible
from memrt.runtime.profile.verdict import Found, budget, met
from memrt.runtime.profile.window import Control

DT_NS = 50 * NS_PER_MS
SETTINGS = LoopSettings(dt_ns=DT_NS, horizon=16, execute=8, every_steps=16)
FINE = Found(
    high_level_p99_ns=100 * NS_PER_MS,
    silence_ns=NS_PER_S,
    low_level_p99_ns=20 * NS_PER_MS,
    chunk_p99_ns=60 * NS_PER_MS,
    late_chunks=0,
    starved_ns=0,
    control=Control(60_000, 0, 0, {}),
    broken_off=(),
)


def line(settings: LoopSettings, found: Found, what: str):
    (wanted,) = [line for line in budget(settings, found) if line.what == what]
    return wanted


def test_a_computer_that_keeps_up_meets_every_demand():
    lines = budget(SETTINGS, FINE)
    assert [line.met for line in lines] == [True] * 6
    assert met(lines)
    assert not any(line.advice for line in lines)


@pytest.mark.parametrize(("p99_ms", "kept"), [(799, True), (800, True), (800.001, False)])
def test_the_high_level_has_its_own_period_to_answer(p99_ms, kept):
    found = line(SETTINGS, replace(FINE, high_level_p99_ns=p99_ms * NS_PER_MS), "high level: period")
    assert found.met is kept
    assert "800 ms (16 steps at 20 Hz)" in found.asked


def test_the_advice_for_a_slow_high_level_is_a_period_that_it_keeps():
    slow = replace(FINE, high_level_p99_ns=1001 * NS_PER_MS)
    assert "every_steps to 21" in line(SETTINGS, slow, "high level: period").advice
    longer = replace(SETTINGS, every_steps=21)
    assert line(longer, slow, "high level: period").met


@pytest.mark.parametrize(("silence_ns", "kept"), [(3 * NS_PER_S, True), (3 * NS_PER_S + 1, False)])
def test_the_robot_holds_after_the_time_to_live(silence_ns, kept):
    assert line(SETTINGS, replace(FINE, silence_ns=silence_ns), "high level: time to live").met is kept


@given(
    horizon=st.integers(1, 64),
    execute=st.integers(1, 64),
    p99_ns=st.floats(1, 80 * DT_NS),
    speed=st.floats(0.1, 1.0),
    calls=st.sampled_from(["chunked", "every_tick"]),
)
def test_chunks_are_judged_as_the_scheduler_does_and_the_advice_helps(horizon, execute, p99_ns, speed, calls):
    settings = LoopSettings(
        dt_ns=DT_NS, horizon=horizon, execute=min(execute, horizon), every_steps=16, speed=speed, calls=calls
    )
    found = line(settings, replace(FINE, chunk_p99_ns=p99_ns), "low level: observation to chunk")
    delay = delay_steps(math.ceil(p99_ns), settings)
    assert found.met is feasible(delay, executed(calls, settings.execute, delay), horizon)
    if found.advice.startswith("set low_level.execute between"):
        low, high = (int(word) for word in found.advice.split() if word.isdigit())
        assert low <= high
        assert feasible(delay, low, horizon)
        assert feasible(delay, high, horizon)
    elif found.advice:
        assert not any(feasible(delay, s, horizon) for s in range(1, horizon + 1))


@pytest.mark.parametrize(("execute", "lead_ms"), [(8, 10), (12, 10), (8, 80)])
def test_the_latency_that_is_asked_for_is_the_largest_that_fits(execute, lead_ms):
    settings = replace(SETTINGS, execute=execute, send_lead_ns=lead_ms * NS_PER_MS)
    what = "low level: observation to chunk"
    limit_ns = float(line(settings, FINE, what).asked.split()[2]) * NS_PER_MS
    assert line(settings, replace(FINE, chunk_p99_ns=limit_ns), what).met
    assert not line(settings, replace(FINE, chunk_p99_ns=limit_ns + 1), what).met


@pytest.mark.parametrize(("p99_ms", "kept"), [(50, True), (51, False)])
def test_a_chunk_at_every_tick_needs_a_call_within_one(p99_ms, kept):
    settings = replace(SETTINGS, calls="every_tick")
    found = line(settings, replace(FINE, low_level_p99_ns=p99_ms * NS_PER_MS), "low level: every tick")
    assert found.met is kept
    assert ("chunked" in found.advice) is not kept


@pytest.mark.parametrize("stage", ["high_level_p99_ns", "chunk_p99_ns"])
def test_a_stage_of_which_no_call_ended_keeps_no_budget(stage):
    lines = budget(SETTINGS, replace(FINE, **{stage: None}))
    assert not met(lines)
    assert "no call ended" in {line.found for line in lines}


@pytest.mark.parametrize("change", [{"late_chunks": 1}, {"starved_ns": 1}])
def test_one_late_chunk_or_one_gap_is_one_too_many(change):
    assert not line(SETTINGS, replace(FINE, **change), "low level: gaps").met


def test_a_missed_control_tick_is_named_with_what_to_try():
    found = line(SETTINGS, replace(FINE, control=Control(60_000, 3, 0, {})), "control ticks")
    assert (found.met, found.found) == (False, "3 of 60000 missed")
    assert "real-time priority" in found.advice


def test_a_robot_without_control_is_neither_kept_nor_broken():
    lines = budget(SETTINGS, replace(FINE, control=None))
    assert lines[-2].met is None
    assert met(lines)


def test_holds_are_counted_and_each_reason_is_named_once():
    found = line(SETTINGS, replace(FINE, broken_off=("a camera is lost", "a camera is lost")), "holds and faults")
    assert (found.met, found.found) == (False, "2: a camera is lost")
