"""The bounded votes show what a reader shows who keeps every vote of the episode."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyframe_reference import KeepsEverything, chosen_settings, episodes

from memrt.runtime.memory.keyframes import Cluster, KeyframeSettings, KeyframeVotes

AUTHORS = KeyframeSettings()


@settings(max_examples=400, deadline=None)
@given(chosen_settings, episodes)
def test_shows_what_a_reader_shows_who_keeps_everything(chosen, episode):
    naive, votes, tick = KeepsEverything(chosen), KeyframeVotes(), 0
    for passed, positions in episode:
        tick += passed
        assert votes.shown(chosen, tick) == naive.shown(tick)
        assert set(votes.shown(chosen, tick)) <= set(votes.held())
        naive.vote(tick, positions)
        votes = votes.vote(chosen, tick, positions)
        assert votes.shown(chosen, tick) == naive.shown(tick)
    assert votes.thinned == 0


@settings(max_examples=200, deadline=None)
@given(chosen_settings, st.integers(1, 12), episodes)
def test_memory_is_bounded_and_stays_in_order(chosen, cap, episode):
    chosen = KeyframeSettings(
        stride=chosen.stride,
        recent=chosen.recent,
        keyframes=chosen.keyframes,
        merge_distance=chosen.merge_distance,
        max_open_frames=cap,
    )
    window = (chosen.recent - 1) * chosen.stride + chosen.merge_distance
    lone = window // (chosen.merge_distance + 1) + 1  # clusters of one frame that can be open at a time
    votes, tick = KeyframeVotes(), 0
    for passed, positions in episode:
        tick += passed
        votes = votes.vote(chosen, tick, positions)
        held = votes.held()
        assert len(held) <= chosen.keyframes + max(cap, lone)
        assert all(a < b for a, b in pairwise(held))
        assert len(votes.shown(chosen, tick)) <= chosen.keyframes


@given(chosen_settings, st.integers(0, 4000))
def test_recent_ticks_are_those_of_the_specification(chosen, tick):
    assert chosen.recent_ticks(tick) == tuple(range(tick % chosen.stride, tick + 1, chosen.stride))[-chosen.recent :]


def test_recent_ticks_of_a_month_take_no_longer_than_the_first():
    assert len(AUTHORS.recent_ticks(10**18)) == 8  # a walk from the episode's start would not end


@given(chosen_settings, st.integers(0, 400), st.integers(0, 400))
def test_no_later_vote_falls_before_the_oldest(chosen, tick, passed):
    assert chosen.recent_ticks(tick + passed)[0] >= chosen.oldest_vote(tick)


def test_the_authors_settings():
    assert AUTHORS.recent_ticks(42) == (7, 12, 17, 22, 27, 32, 37, 42)
    assert AUTHORS.recent_ticks(3) == (3,)
    votes = KeyframeVotes().vote(AUTHORS, 42, [1, 2, 2, 8])
    assert [cluster.ticks for cluster in votes.clusters] == [(7, 12), (42,)]  # thirty ticks apart: two events
    assert votes.shown(AUTHORS, 60) == (12, 42)
    assert votes.shown(AUTHORS, 62) == (12,)  # 42 is a recent frame again: 27, 32, 37, 42, …


def test_an_hour_of_votes_costs_no_more_than_a_minute():
    """One vote per second, 15 Hz: every vote links to the one before, so the cluster never closes."""
    votes, most = KeyframeVotes(), 0
    for tick in range(0, 60 * 60 * 15, 15):
        votes = votes.vote(AUTHORS, tick, [8])
        most = max(most, len(votes.held()))
    assert most <= AUTHORS.max_open_frames
    assert len(votes.clusters) == 1
    assert votes.thinned > 0
    # The middle vote of an hour lies near its half, thinned or not.
    assert votes.shown(AUTHORS, 60 * 60 * 15)[0] == pytest.approx(30 * 60 * 15, rel=0.05)


def test_a_bridge_makes_two_clusters_one():
    chosen = KeyframeSettings(stride=10, recent=8, merge_distance=25)
    votes = KeyframeVotes().vote(chosen, 70, [1, 5])
    assert votes.shown(chosen, 200) == (0, 40)
    votes = votes.vote(chosen, 70, [3])
    assert [cluster.ticks for cluster in votes.clusters] == [(0, 20, 40)]


def test_thinning_gives_up_the_frame_between_the_closest_and_keeps_every_vote():
    cluster = Cluster((10, 20, 24, 26, 40), (1, 2, 3, 4, 5), 7)
    assert cluster.thinned() == Cluster((10, 20, 26, 40), (1, 2, 7, 5), 7)
    assert cluster.thinned().thinned() == Cluster((10, 26, 40), (1, 9, 5), 7)
    assert Cluster((1, 2), (3, 4)).thinned() == Cluster((2,), (7,))
