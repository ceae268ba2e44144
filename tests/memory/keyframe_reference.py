"""A reader of keyframe votes who keeps everything, and random episodes to hold the bounded ones against it."""

from __future__ import annotations

from statistics import median_high, median_low

from hypothesis import strategies as st

from memrt.runtime.memory.keyframes import KeyframeSettings


class KeepsEverything:
    """SPECS 1.2, read aloud: a sorted multiset of ticks, clustered anew at every call."""

    def __init__(self, chosen: KeyframeSettings) -> None:
        self.settings, self.votes = chosen, []

    def medians(self) -> list[int]:
        clusters: list[list[int]] = []
        for tick in sorted(self.votes):
            if clusters and tick - clusters[-1][-1] <= self.settings.merge_distance:
                clusters[-1].append(tick)
            else:
                clusters.append([tick])
        middle = median_low if self.settings.median == "lower" else median_high
        return [middle(cluster) for cluster in clusters]

    def recent(self, tick: int) -> list[int]:
        return list(range(tick % self.settings.stride, tick + 1, self.settings.stride))[-self.settings.recent :]

    def shown(self, tick: int) -> tuple[int, ...]:
        medians = self.medians()[-self.settings.keyframes :]
        return tuple(m for m in medians if m not in self.recent(tick))

    def vote(self, tick: int, positions: list[int]) -> None:
        recent = self.recent(tick)
        if self.settings.destructive_merge:
            self.votes = self.medians()
        self.votes += [recent[p - 1] for p in positions if 1 <= p <= len(recent)]


chosen_settings = st.builds(
    KeyframeSettings,
    stride=st.integers(1, 6),
    recent=st.integers(1, 9),
    keyframes=st.integers(1, 5),
    merge_distance=st.integers(0, 30),
    median=st.sampled_from(["lower", "upper"]),
    destructive_merge=st.booleans(),
    max_open_frames=st.just(100_000),
)
# (ticks since the last call, positions of the answer): calls in quick succession and long pauses.
episodes = st.lists(
    st.tuples(st.one_of(st.integers(0, 12), st.integers(0, 90)), st.lists(st.integers(-1, 10), max_size=5)),
    max_size=60,
)
