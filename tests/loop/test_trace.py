"""The trace: bounded, ordered, valid Chrome JSON, written whole; the control thread's events are in it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime import trace as module
from memrt.runtime._core import ControlLoop, SeamLimits, now_ns
from memrt.runtime.trace import MAX_TEXT, OTHER, Trace

MS = 1_000_000
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])


def test_spans_and_instants_become_chrome_events_on_named_tracks(tmp_path):
    trace = Trace()
    trace.span("call", "low level", 5_000, 9_500, revision=3)
    trace.instant("hold", "supervisor", 7_000, reason="operator")
    trace.write(tmp_path / "trace.json")
    rows = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {row["args"]["name"]: row["tid"] for row in rows if row["name"] == "thread_name"}
    call, hold = (row for row in rows if row["ph"] != "M")
    assert list(names) == ["low level", "supervisor"]
    assert (call["ph"], call["ts"], call["dur"], call["args"]) == ("X", 5.0, 4.5, {"revision": 3})
    assert (hold["ph"], hold["ts"], hold["s"], hold["args"]) == ("i", 7.0, "t", {"reason": "operator"})
    assert (call["tid"], hold["tid"]) == (names["low level"], names["supervisor"])
    assert list(tmp_path.iterdir()) == [tmp_path / "trace.json"]


def assert_chrome(document: dict[str, Any]) -> None:
    """The rules of the trace event format that Perfetto's importer relies on."""
    rows = json.loads(json.dumps(document, allow_nan=False))["traceEvents"]
    named = {(row["pid"], row["tid"]) for row in rows if row["ph"] == "M" and row["name"] == "thread_name"}
    assert [row["args"]["name"] for row in rows if row["name"] == "process_name"] == ["memrt"]
    assert len({row["pid"] for row in rows}) == 1
    spans: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        assert row["ph"] in {"M", "X", "i"}
        assert isinstance(row["name"], str)
        assert isinstance(row["args"], dict)
        if row["ph"] == "M":
            continue
        assert (row["pid"], row["tid"]) in named
        assert isinstance(row["ts"], float)
        if row["ph"] == "X":
            assert row["dur"] >= 0
            spans.setdefault(row["tid"], []).append((row["ts"], row["ts"] + row["dur"]))
    for line in spans.values():
        for (_, end), (start, _) in zip(sorted(line), sorted(line)[1:], strict=False):
            assert start >= end, "spans of one line overlap"


def test_threads_that_share_a_track_get_a_line_each() -> None:
    trace, together = Trace(), threading.Barrier(2)  # a thread that ended gives its number back

    def work() -> None:
        together.wait()
        for t in range(0, 100_000, 10_000):
            trace.span("call", "low level", t, t + 10_000, step=t)
        together.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = trace.to_chrome()
    assert_chrome(document)
    names = [row["args"]["name"] for row in document["traceEvents"] if row["name"] == "thread_name"]
    assert names[0] == "low level"
    assert names[1].startswith("low level, thread ")


arguments = st.dictionaries(
    st.sampled_from(["revision", "text", "error"]),
    st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=20)),
    max_size=2,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(events=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 10**12), arguments)))
def test_what_is_recorded_comes_back_in_order(events: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    trace, capacity = Trace(capacity=16), 16
    for name, track, t_ns, values in events:
        trace.instant(name, track, t_ns, **values)
    found = [(event.name, event.track, event.t_ns, dict(event.arguments)) for event in trace.events()]
    assert repr(found) == repr([(*event[:3], plain(event[3])) for event in events[-capacity:]])
    assert trace.dropped == max(0, len(events) - capacity)
    assert_chrome(trace.to_chrome())


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v if not isinstance(v, float) or np.isfinite(v) else str(v) for k, v in values.items()}


def test_the_oldest_events_make_room_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_CAPACITY", 2)  # as if nobody ever collected
    trace = Trace(capacity=3)
    for number in range(5):
        trace.instant(str(number), "t", number)
    assert [event.name for event in trace.events()] == ["2", "3", "4"]
    assert trace.to_chrome()["otherData"] == {"dropped": 2}


def test_names_texts_and_arguments_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LABELS", 9)  # seven are known from the beginning
    monkeypatch.setattr(module, "MAX_ARGUMENTS", 2)
    trace = Trace()
    for name in ("hold", "hold", "subgoal", "resume"):
        trace.instant(name, "supervisor", 1, reason="x" * 2 * MAX_TEXT)
    names, texts = zip(*((event.name, event.arguments.get("reason")) for event in trace.events()), strict=True)
    assert names == ("hold", "hold", "subgoal", OTHER)
    assert texts == (None, None, "x" * MAX_TEXT, None)


def test_events_of_the_control_thread_are_in_the_same_trace() -> None:
    trace = Trace()
    loop = ControlLoop(SeamLimits.fr3(), 500.0, trace=trace.ring)
    start_ns = now_ns()  # an event bears its tick's deadline, which may lie before the push that it tells of
    loop.start(HOME, 1.0)
    actions = np.column_stack([np.tile(HOME, (4, 1)), np.zeros(4)])
    trace.instant("sent", "low level", now_ns())
    assert loop.push(actions, now_ns() + 500 * MS, 20 * MS, 7) == ""  # in time on a computer that stalls, too
    give_up = time.monotonic() + 20.0
    while loop.stats()["starved_ticks"] == 0 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert loop.stop()
    loop.shutdown()
    control = [event for event in trace.events() if event.track == "control" and event.name != "missed ticks"]
    assert [(event.name, dict(event.arguments)) for event in control] == [
        ("chunk taken", {"revision": 7}),
        ("starved", {"revision": 7}),
        ("stop", {}),
    ]
    assert all(event.duration_ns is None and event.t_ns >= start_ns for event in control)
    assert len({event.thread for event in control} | {event.thread for event in trace.events()}) == 2
    assert_chrome(trace.to_chrome())


def test_why_the_control_thread_refused_a_chunk_is_told_in_words() -> None:
    trace = Trace()
    trace.ring.record(2, 5, -1, 9)  # as the control thread does; 9: too far ahead
    assert [event.arguments for event in trace.events()] == [{"reason": "too far ahead"}]
