"""The store has every frame that can be shown, and stays within its bounds however long the episode is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyframe_reference import KeepsEverything, chosen_settings, episodes

from memrt.runtime.memory.keyframes import KeyframeSettings, KeyframeVotes
from memrt.runtime.memory.store import JpegFrame, KeyframeStore


@dataclass(frozen=True)
class Frame:
    tick: int
    nbytes: int


def frame(tick: int) -> Frame:
    return Frame(tick, 10 + tick * 7 % 13)


@settings(max_examples=300, deadline=None)
@given(chosen_settings, episodes, st.integers(1, 2_000))
def test_named_frames_are_there_and_bounds_hold(chosen, episode, max_bytes):
    store: KeyframeStore[Frame] = KeyframeStore(max_bytes)
    naive, votes, tick, exact = KeepsEverything(chosen), KeyframeVotes(), 0, True
    for passed, positions in episode:
        tick += passed
        recent = chosen.recent_ticks(tick)

        def capture(asked: int, recent: tuple[int, ...] = recent) -> Frame:
            assert asked in recent  # nothing but a recent frame can be new
            return frame(asked)

        naive.vote(tick, positions)
        votes = store.follow(votes.vote(chosen, tick, positions), capture)
        exact = exact and votes.thinned == 0
        assert len(store) == len(votes.held())
        assert all(store[held].tick == held for held in votes.held())
        assert store.nbytes == sum(frame(held).nbytes for held in votes.held()) <= max_bytes
        if exact:
            assert votes.shown(chosen, tick) == naive.shown(tick)


def test_bytes_run_out_an_event_loses_detail_before_one_is_forgotten():
    chosen = KeyframeSettings(stride=5, merge_distance=5)
    votes = KeyframeVotes().vote(chosen, 35, [1, 6, 7, 8])  # 0, and 25, 30, 35
    store: KeyframeStore[Frame] = KeyframeStore(1000)
    assert store.follow(votes, frame).held() == (0, 25, 30, 35)
    for room, left in ((3, (0, 25, 35)), (2, (0, 35)), (1, (35,)), (0, ())):
        small: KeyframeStore[Frame] = KeyframeStore(22 * room + 1)
        fewer = small.follow(votes, lambda tick: Frame(tick, 22))
        assert (fewer.held(), fewer.thinned) == (left, 4 - len(left))
        assert len(small) == room
    store.clear()
    assert (len(store), store.nbytes) == (0, 0)


def test_votes_forget_frames_that_a_store_does_not_have():
    chosen = KeyframeSettings(stride=5, merge_distance=5)
    votes = KeyframeVotes().vote(chosen, 35, [1, 6, 7, 7, 8])
    assert votes.only({0, 25, 30, 35}) is votes
    assert votes.only({30, 35}).held() == (30, 35)
    assert votes.only({30, 35}).thinned == 2
    assert votes.only(()).clusters == ()


def test_jpeg_gives_the_picture_back_within_its_tolerance():
    rows, columns = np.mgrid[0:180, 0:320]
    image = np.stack([rows, columns * 3 // 4, 255 - rows], axis=2).astype(np.uint8)
    image[40:60, 40:60] = (220, 30, 30)
    kept = JpegFrame.compress(image, 7, 90)
    back = kept.image()
    assert (back.shape, back.dtype) == (image.shape, image.dtype)
    assert np.abs(back.astype(int) - image).mean() < 2.0
    assert back[50, 50].astype(int) == pytest.approx(image[50, 50].astype(int), abs=12)
    assert kept.nbytes == len(kept.data) < image.nbytes / 10
