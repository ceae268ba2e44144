"""Which frames of an episode MemER shows its VLM again: votes, clusters, representatives (SPECS 1.2).

Every answer votes for some of the recent frames. Votes that lie close together are one cluster, and a cluster is shown
by its median, so that an event is remembered once however often it was pointed at. Frames are named by raw tick, the
data's own clock, never by a camera's counter.

An episode may last an hour, so what can no longer be shown is forgotten. Votes fall on recent frames only: a median
that lies before them can only move forward, hence what is left of it is kept as a number of votes, and a cluster that
no vote can reach any more is its median alone. The frames shown are those of a reader that keeps everything, until the
open clusters hold more than `max_open_frames` frames and are thinned.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class KeyframeSettings:
    """Defaults are those that MemER's authors released."""

    stride: int = 5  # raw ticks between recent frames
    recent: int = 8
    keyframes: int = 8
    merge_distance: int = 25  # raw ticks: five recent frames
    median: Literal["lower", "upper"] = "lower"  # of an even number of votes; RoboMME's takes the upper
    destructive_merge: bool = False  # a cluster becomes one vote for its median at every call, as RoboMME's does
    max_open_frames: int = 256

    def recent_ticks(self, tick: int) -> tuple[int, ...]:
        """The recent frames at raw tick `tick` ≥ 0, oldest first; fewer at the start of an episode."""
        oldest = max(tick % self.stride, tick - (self.recent - 1) * self.stride)
        return tuple(range(oldest, tick + 1, self.stride))

    def oldest_vote(self, tick: int) -> int:
        """No answer to a call at `tick` or later can vote for a frame before this one."""
        return max(0, tick - (self.recent - 1) * self.stride)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Votes of one event: `ticks`, ascending, each with its number of `votes`; `forgotten` more lie left of them."""

    ticks: tuple[int, ...]
    votes: tuple[int, ...]
    forgotten: int = 0

    def median(self, kind: Literal["lower", "upper"]) -> int:
        """The tick of the middle vote."""
        return self.ticks[self._middle(kind)]

    def without_left_of_median(self, kind: Literal["lower", "upper"]) -> Cluster:
        """The same median now and after any votes to the right of it."""
        middle = self._middle(kind)
        return Cluster(self.ticks[middle:], self.votes[middle:], self.forgotten + sum(self.votes[:middle]))

    def thinned(self) -> Cluster:
        """One frame fewer: the one between the two closest others, whose votes fall to the nearer of them.

        So the frames that remain are spread evenly, and the median stays where it was but for their spacing. The first
        and the last remain while there is another: the last decides what joins the cluster.
        """
        gaps = [later - earlier for earlier, later in zip(self.ticks, self.ticks[2:], strict=False)]
        gone = min(range(len(gaps)), key=gaps.__getitem__) + 1 if gaps else 0
        votes = list(self.votes)
        to_left = gone > 0 and self.ticks[gone] - self.ticks[gone - 1] < self.ticks[gone + 1] - self.ticks[gone]
        votes[gone - 1 if to_left else gone + 1] += votes[gone]
        del votes[gone]
        return Cluster(self.ticks[:gone] + self.ticks[gone + 1 :], tuple(votes), self.forgotten)

    def _middle(self, kind: Literal["lower", "upper"]) -> int:
        total = self.forgotten + sum(self.votes)
        wanted = (total - 1) // 2 if kind == "lower" else total // 2
        seen = self.forgotten
        for index, votes in enumerate(self.votes):
            seen += votes
            if wanted < seen:
                return index
        raise AssertionError("a median lies among the votes that are kept")


@dataclass(frozen=True, slots=True)
class KeyframeVotes:
    """The votes of an episode so far. Immutable: every method gives a new one."""

    clusters: tuple[Cluster, ...] = ()  # by time; those that no vote reaches any more hold one tick
    thinned: int = 0  # frames given up for the cap: from the first on, those shown are an approximation

    def shown(self, settings: KeyframeSettings, tick: int, recent: Sequence[int] | None = None) -> tuple[int, ...]:
        """The keyframes of a call at `tick`, oldest first: medians that are not recent frames anyway.

        `recent` are the ticks of the recent frames that are shown, by default all of them.
        """
        medians = [cluster.median(settings.median) for cluster in self.clusters][-settings.keyframes :]
        seen = set(settings.recent_ticks(tick) if recent is None else recent)
        return tuple(median for median in medians if median not in seen)

    def held(self) -> tuple[int, ...]:
        """The frames that must be kept, oldest first: only those can ever be shown."""
        return tuple(tick for cluster in self.clusters for tick in cluster.ticks)

    def only(self, kept: Container[int]) -> KeyframeVotes:
        """Without the frames that are not in `kept`, as after a restart: their votes are lost."""
        if all(tick in kept for tick in self.held()):
            return self
        clusters = [
            Cluster(tuple(tick for tick, _ in left), tuple(votes for _, votes in left), cluster.forgotten)
            for cluster in self.clusters
            if (left := [pair for pair in zip(cluster.ticks, cluster.votes, strict=True) if pair[0] in kept])
        ]
        return KeyframeVotes(tuple(clusters), self.thinned + len(self.held()) - sum(len(c.ticks) for c in clusters))

    def with_one_frame_fewer(self) -> KeyframeVotes:
        """For a reader who has no room for `held()`: the longest cluster is thinned, or the oldest single frame goes.

        So an event loses detail before any event is forgotten. Without a frame there is nothing left to give up.
        """
        clusters = list(self.clusters)
        if not _thin_longest(clusters):
            clusters = clusters[1:]
        return KeyframeVotes(tuple(clusters), self.thinned + bool(self.clusters))

    def vote(
        self, settings: KeyframeSettings, tick: int, positions: Iterable[int], recent: Sequence[int] | None = None
    ) -> KeyframeVotes:
        """Take in the answer to the call at `tick`: positions count the recent frames from 1, others are dropped.

        `recent` are the ticks of those that were shown, by default all of them.
        """
        recent = settings.recent_ticks(tick) if recent is None else recent
        chosen = [recent[position - 1] for position in positions if 1 <= position <= len(recent)]
        clusters = self.clusters
        if settings.destructive_merge:
            clusters = tuple(Cluster((cluster.median(settings.median),), (1,)) for cluster in clusters)
        joined = _join([*clusters, *(Cluster((frame,), (1,)) for frame in sorted(chosen))], settings.merge_distance)
        return KeyframeVotes(joined, self.thinned)._bounded(settings, tick)

    def _bounded(self, settings: KeyframeSettings, tick: int) -> KeyframeVotes:
        oldest = settings.oldest_vote(tick)
        frozen, open_clusters = [], []
        for cluster in self.clusters:
            short = cluster
            if cluster.median(settings.median) < oldest:
                short = cluster.without_left_of_median(settings.median)
            if cluster.ticks[-1] < oldest - settings.merge_distance:
                frozen.append(Cluster(short.ticks[:1], (1,)))
            else:
                open_clusters.append(short)
        # Open clusters may merge into one, and older ones are then shown again: as many frozen ones must be at hand.
        kept = (*frozen[-settings.keyframes :], *open_clusters)
        return replace(self, clusters=kept)._capped(settings, len(kept) - len(open_clusters))

    def _capped(self, settings: KeyframeSettings, frozen: int) -> KeyframeVotes:
        clusters, thinned = list(self.clusters), self.thinned
        while sum(len(cluster.ticks) for cluster in clusters[frozen:]) > settings.max_open_frames:
            if not _thin_longest(clusters, frozen):
                break  # single frames inside the window of recent frames: bounded by that window
            thinned += 1
        return KeyframeVotes(tuple(clusters), thinned)


def _thin_longest(clusters: list[Cluster], first: int = 0) -> bool:
    """Take a frame from the longest cluster, none before `first`; False when all of those hold one frame or none."""
    longest = max(range(first, len(clusters)), key=lambda index: len(clusters[index].ticks), default=None)
    if longest is None or len(clusters[longest].ticks) == 1:
        return False
    clusters[longest] = clusters[longest].thinned()
    return True


def _join(clusters: Sequence[Cluster], distance: int) -> tuple[Cluster, ...]:
    """Single linkage: a cluster joins the one before it if its first tick is at most `distance` after that one's last.

    Only new votes are out of order. They lie at or after every tick but those of clusters that are still open, whose
    ticks are all there, or all but those left of a median that lies before the votes.
    """
    joined: list[Cluster] = []
    for cluster in sorted(clusters, key=lambda one: one.ticks[0]):
        if joined and cluster.ticks[0] - joined[-1].ticks[-1] <= distance:
            joined[-1] = _merged(joined[-1], cluster)
        else:
            joined.append(cluster)
    return tuple(joined)


def _merged(first: Cluster, second: Cluster) -> Cluster:
    count: dict[int, int] = {}
    for cluster in (first, second):
        for tick, votes in zip(cluster.ticks, cluster.votes, strict=True):
            count[tick] = count.get(tick, 0) + votes
    ticks = tuple(sorted(count))
    return Cluster(ticks, tuple(count[tick] for tick in ticks), first.forgotten + second.forgotten)
