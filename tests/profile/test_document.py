"""The document's shape is a promise to other programs; the page and the trace are made from the same windows."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.distribution import Distribution
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.chrome_trace import combined, write_trace
from memrt.runtime.profile.document import as_document
from memrt.runtime.profile.page import page
from memrt.runtime.profile.protocol import OFF, ON, ORDER, ProfileProtocol
from memrt.runtime.profile.window import Control, Episode, Window

SHAPE = Path(__file__).with_name("document_shape.json")
SETTINGS = LoopSettings(dt_ns=50 * NS_PER_MS, horizon=16, execute=8, every_steps=16)
ABOUT = {
    "policy": "am_<grounded>",
    "precision": "int8",
    "robot": "sim",
    "engines_ready_s": 1.5,
    "memory": {"resident_bytes": 200_000_000, "peak_bytes": 250_000_000},
    "hardware": {"cpu": "a & b", "cores": 2, "load_before": 0.1, "device": "cpu", "realtime_priority": True},
    "versions": {"memrt": "0.1.0"},
    "measured_on": "CPU",
}


def filled(*values_ms: float) -> Distribution:
    found = Distribution()
    for value in values_ms:
        found.add(round(value * NS_PER_MS))
    return found


def window(condition: str, repetition: int) -> Window:
    made = Window(
        condition, repetition, duration_ns=10 * NS_PER_S, first_subgoal="pick up <1, 2>", measured_from_ns=1000
    )
    made.latencies = {"low level": filled(20, 21, 22 + repetition), "observation to chunk": filled(60, 61)}
    made.trace.span("call", "low level", 2_000, 22_000_000, revision=1)
    made.trace.span("step", "low level", 2_000, 12_000_000)
    if condition == ON:
        made.latencies["high level"] = filled(100, 110, 120)
        made.amounts["high level: new tokens"] = Distribution.merged([_tokens()])
        made.held_bytes = {"K/V": 1_000_000}
        made.silence_ns = 900 * NS_PER_MS
        made.trace.span("call", "high level", 5_000, 100_000_000, subgoal="x")
    made.counts.update({"chunks": 25})
    made.controls = [Control(10_000, 0, 0, {"p50": 0.01, "p99": 0.03, "max": 0.2})]
    made.episodes = [Episode(7, 10.0, "time_over", "the run's duration has passed")]
    return made


def _tokens() -> Distribution:
    found = Distribution()
    found.add(40)
    return found


@pytest.fixture(scope="module")
def windows():
    return [window(condition, ORDER[: number + 1].count(condition)) for number, condition in enumerate(ORDER)]


@pytest.fixture(scope="module")
def document(windows):
    return as_document(ABOUT, SETTINGS, ProfileProtocol(seconds=10), windows)


def shape(value):
    """Keys and types; a list by its first element."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_document_has_the_shape_that_was_promised(document):
    assert shape(json.loads(json.dumps(document, allow_nan=False))) == json.loads(SHAPE.read_text())


def test_both_repetitions_are_one_condition(document):
    on = document["conditions"][ON]
    assert on["stages"]["high level"]["count"] == 6
    assert on["rates_hz"] == {"high level calls": 0.3, "chunks": 2.5}
    assert on["misses"]["control_ticks"] == 20_000
    assert on["amounts"]["high level: new tokens"]["p50"] == 40
    assert "high level" not in document["conditions"][OFF]["stages"]
    assert document["verdict"]["met"]


def test_the_histograms_hold_every_call(document):
    for found in document["windows"]:
        for stage, buckets in found["histograms_ms"].items():
            assert sum(count for _, count in buckets) == found["stages"][stage]["count"]


def test_remarks_warn_of_few_calls_and_a_busy_computer(windows):
    about = ABOUT | {"hardware": ABOUT["hardware"] | {"load_before": 3.0, "cpu_clocks": {"governors": ["powersave"]}}}
    found = " ".join(as_document(about, SETTINGS, ProfileProtocol(seconds=10), windows)["remarks"])
    for words in ("load 3 on 2 cores", "powersave", "high level: 3 calls", "low level: 3 calls"):
        assert words in found


class Page(HTMLParser):
    """Collects tags and text; every opened element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(document):
    text = page(document)
    found = Page(text)
    assert found.open == []
    assert found.tags.count("svg") == 4  # three stages and the timeline
    assert found.tags.count("polyline") == 10  # four windows, two of them with the high level
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    for outside in ("http:", "https:", "//", "@import", "url("):
        assert outside not in text
    said = " ".join(found.texts)
    assert "am_<grounded>" in said
    assert "a & b" in said
    assert "What the policy's rates ask for is met." in said
    assert "NaN" not in text


def test_a_broken_budget_is_said_with_what_to_try(windows):
    slow = LoopSettings(dt_ns=2 * NS_PER_MS, horizon=16, execute=8, every_steps=16)
    document = as_document(ABOUT, slow, ProfileProtocol(seconds=10), windows)
    assert not document["verdict"]["met"]
    text = page(document)
    assert "does not keep the budget" in text
    assert "raise high_level.every_steps to" in text


def test_the_trace_shows_every_window_as_a_process(windows, tmp_path):
    write_trace(tmp_path / "trace.json", windows)
    rows = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {row["pid"]: row["args"]["name"] for row in rows if row["name"] == "process_name"}
    assert list(names.values()) == [f"{n}: {w.condition}, repetition {w.repetition}" for n, w in enumerate(windows, 1)]
    calls = [row for row in rows if row["ph"] == "X" and row["name"] == "call"]
    assert sorted(row["pid"] for row in calls) == [1, 1, 2, 3, 3, 4]
    threads = {(row["pid"], row["tid"]) for row in rows if row["name"] == "thread_name"}
    assert {(row["pid"], row["tid"]) for row in calls} <= threads
    assert combined([])["traceEvents"] == []
