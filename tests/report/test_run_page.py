"""The page of a run in a real browser: it draws what was recorded, follows clicks and keys, and loads nothing."""

from __future__ import annotations

import pytest
from browser import PATIENCE_S, Browser
from reported_runs import GOAL, HOSTILE

from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.report.run.build import build
from memrt.runtime.report.run.page import page

pytestmark = pytest.mark.timeout(3 * PATIENCE_S)


@pytest.fixture(scope="module")
def texts_page(texts_run):
    report, pictures = build(texts_run)
    path = texts_run.with_suffix(".html")
    path.write_text(page(report, pictures), encoding="utf-8")
    return path, report


@pytest.fixture(scope="module")
def keyframes_page(keyframes_run):
    report, pictures = build(keyframes_run, video=False)
    path = keyframes_run.with_suffix(".html")
    path.write_text(page(report, pictures), encoding="utf-8")
    return path, report


def text(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector('{selector}')?.textContent ?? null")


def count(browser: Browser, selector: str) -> int:
    return browser.run(f"document.querySelectorAll('{selector}').length")


def clean(browser: Browser, path) -> bool:
    """No error, nothing asked for but the page and the film inside it."""
    assert browser.complaints() == []
    others = [url for url in browser.requested() if url.split("#")[0] != path.as_uri()]
    assert all(url.startswith(("blob:", "data:")) for url in others), others
    return True


def test_it_says_above_all_what_was_run_and_how_it_ended(browser, texts_page):
    path, _ = texts_page
    browser.open(path)
    assert text(browser, "#outcome") == "success"
    assert text(browser, "#setting") == "simulated robot"
    assert text(browser, "h1") == GOAL
    assert "ab" * 32 in text(browser, "#head")
    assert clean(browser, path)


def test_every_subgoal_and_memory_has_its_segment_and_the_table_its_rows(browser, texts_page):
    path, report = texts_page
    browser.open(path)
    assert count(browser, ".subgoal .segment") == len(report.subgoals)
    assert (
        count(browser, ".action-memory .segment") == count(browser, ".spatial-memory .segment") == len(report.memories)
    )
    assert count(browser, "#trace tbody tr") == sum(memory.boundary for memory in report.memories)
    assert "swing right" in text(browser, "#trace tbody tr:nth-child(2)")
    assert text(browser, "#trace tbody tr:nth-child(2) ins").startswith("once")


def test_a_click_on_the_timeline_seeks_the_film_and_shows_the_memory_of_then(browser, texts_page):
    path, report = texts_page
    browser.open(path, "#0.01")
    assert text(browser, "#memory-action") == "I have not swung yet."
    browser.run("document.querySelector('#lanes').scrollIntoView({block: 'center'})")
    box = browser.run(
        "(({left, top, width}) => ({left, top, width}))(document.querySelector('#lanes').getBoundingClientRect())"
    )
    browser.click(box["left"] + 0.7 * box["width"], box["top"] + 30)
    assert text(browser, "#subgoal") == "swing right <64, 192>"
    kept = browser.run(
        "[...document.querySelectorAll('#memory-action > :not(del)')].map((e) => e.textContent).join('')"
    )
    assert kept == f"I swung once {HOSTILE}."
    browser.wait("document.querySelector('#video').readyState >= 2 && !document.querySelector('#video').seeking")
    assert browser.run("document.querySelector('#video').currentTime") == pytest.approx(
        0.7 * report.duration_s, abs=0.03
    )
    assert count(browser, "#marks .over") == 1
    assert count(browser, "#trace tr[aria-current]") == 1
    assert clean(browser, path)


def test_markup_in_goals_and_memories_stays_text(browser, texts_page):
    path, _ = texts_page
    browser.open(path, "#1.5")
    assert HOSTILE in text(browser, "#memory-spatial")
    assert browser.run("window.owned === undefined")
    assert count(browser, "img") == 0
    assert clean(browser, path)


def test_even_a_script_that_came_into_the_page_is_not_executed(browser, texts_page):
    """What the content security policy is for: an injected handler does nothing but complain."""
    path, _ = texts_page
    browser.open(path)
    injected = '<img src="data:," onerror="window.owned = 1">'
    browser.run(f"document.body.insertAdjacentHTML('beforeend', '{injected}')")
    browser.wait("document.querySelector('img').complete")
    browser.wait("new Promise((done) => setTimeout(done, 50, true))")  # its error is reported by now
    assert browser.run("window.owned === undefined")


def test_arrows_go_from_call_to_call_and_with_shift_from_change_to_change(browser, texts_page):
    path, report = texts_page
    browser.open(path, "#0.01")
    browser.press("ArrowRight")
    assert text(browser, "#clock").startswith(f"{report.calls[1].answer_s:.2f} of ")
    browser.press("ArrowLeft")
    assert text(browser, "#clock").startswith("0.00 of ")
    browser.press("ArrowRight", shift=True)
    assert text(browser, "#clock").startswith(f"{report.memories[1].start_s:.2f} of ")
    browser.press("End")
    assert browser.run("document.querySelector('#lanes').getAttribute('aria-valuenow')") == f"{report.duration_s:.2f}"


def test_it_plays_to_the_end(browser, texts_page):
    path, _ = texts_page
    browser.open(path, "#1.5")
    browser.wait("document.querySelector('#video').readyState >= 2")
    browser.press(" ")
    browser.wait("document.querySelector('#play').textContent === '▶' && time > 1.8")
    assert clean(browser, path)


def test_keyframes_are_shown_with_their_votes_and_those_that_were_dropped(browser, keyframes_page):
    path, report = keyframes_page
    found = report.keyframes
    browser.open(path, f"#{report.duration_s}")
    last = found.states[-1]
    assert count(browser, "#kept .thumb img") == len(last.events)
    votes = [button["votes"] for button in thumbs(browser, "#kept")]
    assert votes == [f"{n} vote" if n == 1 else f"{n} votes" for _, n in last.events]
    assert count(browser, "#recent .thumb") == len(last.recent)
    assert count(browser, "#dropped .thumb") == sum(frame.dropped_s is not None for frame in found.frames)
    browser.wait(
        "[...document.querySelectorAll('#kept img')].every((image) => image.complete && image.naturalHeight === 96)"
    )
    assert not browser.run("document.querySelector('#screen').offsetParent")  # no video was asked for
    browser.run("document.querySelector('#kept .thumb').click()")
    assert text(browser, "#clock").startswith(f"{found.frames[last.events[0][0]].t_s:.2f} of ")
    assert clean(browser, path)


def thumbs(browser: Browser, selector: str) -> list[dict[str, str]]:
    return browser.run(
        f"[...document.querySelectorAll('{selector} .thumb')].map((e) => ({{votes: e.textContent.split(' · ')[1]}}))"
    )


def test_a_run_that_broke_off_before_its_first_call_is_a_page_too(browser, tmp_path):
    with McapRecorder(tmp_path / "run.mcap", {"goal": "wait", "simulated": False}) as recorder:
        for name, second in (("goal", 0), ("hold", 2)):
            recorder.event(name, "supervisor", 10**12 + second * 10**9, reason="the operator")
    path = tmp_path / "run.html"
    path.write_text(page(*build(tmp_path / "run.mcap")), encoding="utf-8")
    browser.open(path)
    assert (text(browser, "#outcome"), text(browser, "#setting")) == ("broken off", "real robot")
    assert text(browser, "#subgoal") == "none yet"
    browser.press("ArrowRight")
    assert text(browser, "#clock").startswith("1.00 of ")
    assert clean(browser, path)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, texts_page):
    path, _ = texts_page
    browser.send("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    try:
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("document.querySelector('#film').getBoundingClientRect().width") > 300
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")
