"""The trace: bounded, valid Chrome JSON, written whole."""

import json

from memrt.runtime.trace import Trace


def test_spans_and_instants_become_chrome_events_on_named_tracks(tmp_path):
    trace = Trace()
    trace.span("call", "low level", 5_000, 9_500, revision=3)
    trace.instant("hold", "supervisor", 7_000, reason="operator")
    trace.write(tmp_path / "trace.json")
    written = json.loads((tmp_path / "trace.json").read_text())
    names, call, hold = written["traceEvents"][:2], written["traceEvents"][2], written["traceEvents"][3]
    assert [row["args"]["name"] for row in names] == ["low level", "supervisor"]
    assert (call["ph"], call["ts"], call["dur"], call["args"]) == ("X", 5.0, 4.5, {"revision": 3})
    assert (hold["ph"], hold["ts"], hold["tid"]) == ("i", 7.0, names[1]["tid"])
    assert list(tmp_path.iterdir()) == [tmp_path / "trace.json"]


def test_the_oldest_events_make_room_and_are_counted():
    trace = Trace(capacity=3)
    for number in range(5):
        trace.instant(str(number), "t", number)
    assert [event.name for event in trace.events()] == ["2", "3", "4"]
    assert trace.to_chrome()["otherData"] == {"dropped": 2}
