"""What is read out of a recording: texts and their changes, votes, bounds; and what is said of one that broke off."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reported_runs import GOAL, HOSTILE, cut_off

from memrt.runtime.errors import MemrtError
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.report.run import told as told_module
from memrt.runtime.report.run.build import build, find_recording
from memrt.runtime.report.run.document import RunReport
from memrt.runtime.report.run.page import page
from memrt.runtime.report.run.words import MAX_WORDS, changes


@pytest.fixture(scope="module")
def texts(texts_run) -> RunReport:
    return build(texts_run, video=False)[0]


@pytest.fixture(scope="module")
def keyframes(keyframes_run) -> RunReport:
    return build(keyframes_run, video=False)[0]


def whole(parts) -> str:
    return "".join(text for what, text in parts if what != "-")


def test_the_run_is_named_by_what_its_recording_says(texts):
    about = texts.about
    assert (about.goal, about.outcome, about.outcome_by, about.setting) == (GOAL, "success", "robot", "simulated")
    assert (about.policy, about.bundle_sha256) == ("am_grounded", "ab" * 32)
    assert about.recorded.endswith(" UTC")


def test_subgoals_follow_each_other_without_a_gap(texts):
    assert [subgoal.text for subgoal in texts.subgoals] == [
        "swing left <64, 192>",
        "swing right <64, 192>",
        "swing right <65, 192>",
    ]
    assert [subgoal.group for subgoal in texts.subgoals] == [0, 1, 1]
    assert [s.end_s for s in texts.subgoals] == [*(s.start_s for s in texts.subgoals[1:]), texts.duration_s]
    assert texts.subgoals[0].marks == [(192.5 / 256, 64.5 / 256)]  # row, column: x comes second


def test_memories_hold_every_text_with_its_changes(texts):
    first, second, third = texts.memories
    assert first.parts["action"] == [("=", "I have not swung yet.")]
    assert whole(second.parts["action"]) == f"I swung once {HOSTILE}."
    assert ("-", "left") in second.parts["spatial"]
    assert ("+", "right") in second.parts["spatial"]
    assert [memory.boundary for memory in (first, second, third)] == [True, True, False]  # a pixel is no boundary


def test_seams_are_those_that_the_run_measured(texts_run, texts):
    seams = [chunk.seam for chunk in texts.chunks if chunk.seam is not None]
    end = msgspec.json.decode(Recording(texts_run).summary().end["report"])
    measured = end["amounts"]["seam [µrad]"]
    assert len(seams) == measured["count"]
    assert max(seams) * 1e6 == pytest.approx(measured["max"], abs=6)


def test_keyframes_are_kept_shown_and_dropped(keyframes):
    found = keyframes.keyframes
    dropped = [frame for frame in found.frames if frame.dropped_s is not None]
    assert dropped
    assert all(frame.t_s <= frame.voted_s < (frame.dropped_s or 1e9) for frame in found.frames)
    for state in found.states:
        assert len(state.events) <= 2  # as the policy says
        held = {number for number, _ in (*state.events, *state.reserve)}
        gone = {n for n, frame in enumerate(found.frames) if frame.dropped_s and frame.dropped_s <= state.start_s}
        assert not held & gone
        assert set(state.voted) <= held
    assert all(frame.image is not None for frame in found.frames)


def test_bounds_hold_and_are_told(texts_run, monkeypatch):
    for name, most in (("MAX_CALLS", 2), ("MAX_CHUNKS", 3), ("MAX_EVENTS", 1), ("MAX_TEXT", 700)):
        monkeypatch.setattr(told_module, name, most)
    report, _ = build(texts_run, video=False)
    assert (len(report.calls), len(report.chunks), len(report.subgoals)) == (2, 3, 1)
    assert any("not shown" in remark for remark in report.remarks)
    assert [bool(call.reply) for call in report.calls] == [True, False]
    assert any("left out" in remark for remark in report.remarks)


def test_a_recording_that_was_cut_off_is_shown_up_to_there(texts_run, tmp_path):
    report, _ = build(cut_off(texts_run, tmp_path / "cut.mcap"), video=False)
    assert report.about.outcome == "broken off"
    assert any("ends early" in remark for remark in report.remarks)


def test_a_folder_stands_for_the_one_recording_in_it(texts_run, tmp_path):
    assert find_recording(texts_run.parent) == texts_run
    assert find_recording(texts_run) == texts_run
    with pytest.raises(MemrtError, match="one recording"):
        find_recording(tmp_path)


def test_the_page_holds_no_text_of_a_run_as_html(texts_run):
    written = page(*build(texts_run, video=False))
    assert "<img" not in written
    assert "window.owned = 1</" not in written
    assert written.count("<script") == written.count("</script>") == 4
    assert "\u2028" not in written[written.index("<script") :]


WORDS = st.lists(st.sampled_from(["a", "b", "once", "twice", ".", "<1,", "2>", "\n"]), max_size=12).map(" ".join)


@settings(max_examples=25)
@given(WORDS, st.text(max_size=40))
def test_changes_hold_both_texts(before, after):
    for old, new in ((before, after), (after, before), (before, before + after)):
        parts = changes(old, new)
        assert "".join(text for what, text in parts if what != "+") == old
        assert "".join(text for what, text in parts if what != "-") == new
        assert all(text for _, text in parts)


def test_of_very_long_texts_all_between_the_common_ends_changes():
    old, new = "one " * MAX_WORDS, "two " * MAX_WORDS
    assert changes(f"It was {old}times.", f"It was {new}times.") == [
        ("=", "It was "),
        ("-", old.rstrip()),
        ("+", new.rstrip()),
        ("=", " times."),
    ]
    assert changes(old, f"{old}more") == [("=", old), ("+", "more")]


def test_holds_last_until_someone_resumes_or_until_the_end(tmp_path):
    with McapRecorder(tmp_path / "run.mcap", {"goal": "wait"}) as recorder:
        for name, second in (("goal", 0), ("hold", 2), ("hold", 3), ("resume", 5), ("hold", 7), ("end", 8)):
            recorder.event(name, "supervisor", 10**12 + second * 10**9, reason="the operator")
    report, _ = build(tmp_path / "run.mcap")
    assert report.holds == [(2.0, 5.0), (7.0, 8.0)]
    assert [event.level for event in report.events[:2]] == ["info", "warning"]
    assert (report.video, report.about.setting, report.about.outcome) == (None, "not recorded", "broken off")
