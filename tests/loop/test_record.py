"""What a run leaves behind, and what of it is measured after a restart."""

from dataclasses import dataclass

import pytest

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.stages import stage_durations, trace_call
from memrt.runtime.trace import Trace


@dataclass(frozen=True)
class Reply:
    """The stages of a VLM's reply, in an order of its own."""

    decode_ns: int = 5_000
    vision_ns: int = 1_000
    prefill_ns: int = 2_000
    new_tokens: int = 40
    reused_tokens: int = 12


def recorded(calls: int, latency_ms: int) -> RunRecord:
    record = RunRecord("realtime", "goal", 0, duration_ns=10 * NS_PER_S)
    for _ in range(calls):
        record.latency("high level", latency_ms * NS_PER_MS)
        record.stages("high level", Reply())
    return record


def test_stages_and_amounts_are_kept_by_the_call_they_belong_to():
    values = recorded(calls=5, latency_ms=90).to_dict()
    assert values["high_level_hz"] == 0.5
    assert values["latency_ms"]["high level"]["p50"] == pytest.approx(90, rel=0.004)
    assert values["latency_ms"]["high level: vision"]["max"] == 0.001
    assert values["amounts"]["high level: new tokens"] == {"count": 5, "p50": 40, "max": 40}


def test_what_came_before_a_restart_is_not_measured():
    record = recorded(calls=50, latency_ms=900)
    record.counts["late chunks"], record.starved_ns = 7, NS_PER_S
    before = record.restart_measurement(10 * NS_PER_S)
    assert (before.duration_ns, before.latencies["high level"].count) == (10 * NS_PER_S, 50)
    assert (before.counts["late chunks"], before.starved_ns) == (7, NS_PER_S)
    assert (record.counts["late chunks"], record.starved_ns, record.amounts) == (0, 0, {})
    record.duration_ns = 12 * NS_PER_S
    for _ in range(4):
        record.latency("high level", 90 * NS_PER_MS)
    assert record.rate_hz("high level") == 2.0
    after = record.restart_measurement(14 * NS_PER_S)
    assert (after.duration_ns, after.latencies["high level"].max) == (4 * NS_PER_S, 90 * NS_PER_MS)


def test_a_traced_call_holds_its_stages_end_to_end():
    trace = Trace()
    trace_call(trace, "high level", 100, 10_000, Reply(), held=False)
    assert [(e.name, e.t_ns, e.duration_ns) for e in trace.events()] == [
        ("call", 100, 9_900),
        ("vision", 100, 1_000),
        ("prefill", 1_100, 2_000),
        ("decode", 3_100, 5_000),
    ]
    assert stage_durations(object()) == []
