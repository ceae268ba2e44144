"""Counts non-negative integers, durations above all, in buckets that grow with the value: bounded however many come."""

from __future__ import annotations

import math
from collections.abc import Iterable

SUB_BUCKETS = 128  # per doubling: a bucket is at most 1/128 of its values wide, so its middle is within 0.4 %
_BITS = SUB_BUCKETS.bit_length()


class Distribution:
    """At most 57 doublings of `SUB_BUCKETS` buckets are ever held (values below 2**63); small integers are exact."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.max = 0

    def add(self, value: int) -> None:
        """Take in one sample; a negative one counts as 0."""
        value = max(0, value)
        index = _index(value)
        self._counts[index] = self._counts.get(index, 0) + 1
        self.count += 1
        self.max = max(self.max, value)

    def percentile(self, percent: float) -> float:
        """Between the closest ranks, as `memrt.runtime.statistics.percentile`, each sample at its bucket's middle.

        Raises ValueError without samples, or unless 0 <= percent <= 100.
        """
        if not self.count or not 0 <= percent <= 100:
            raise ValueError(f"expected samples and 0..100 percent, found {self.count} samples and {percent}")
        position = (self.count - 1) * percent / 100
        below = math.floor(position)
        first, second = self._of_rank(below), self._of_rank(min(below + 1, self.count - 1))
        return first + (second - first) * (position - below)

    def buckets(self) -> dict[int, int]:
        """Samples by lowest value of their bucket, ascending."""
        return {_low(index): count for index, count in sorted(self._counts.items())}

    @classmethod
    def merged(cls, parts: Iterable[Distribution]) -> Distribution:
        """All samples of `parts` in one."""
        whole = cls()
        for part in parts:
            for index, count in part._counts.items():
                whole._counts[index] = whole._counts.get(index, 0) + count
            whole.count += part.count
            whole.max = max(whole.max, part.max)
        return whole

    def _of_rank(self, rank: int) -> float:
        if rank == self.count - 1:
            return float(self.max)
        seen = 0
        for index, count in sorted(self._counts.items()):
            seen += count
            if rank < seen:
                return min(_middle(index), float(self.max))
        return float(self.max)


def _index(value: int) -> int:
    if value < SUB_BUCKETS:
        return value
    shift = value.bit_length() - _BITS
    return (shift + 1) * SUB_BUCKETS + (value >> shift) - SUB_BUCKETS


def _low(index: int) -> int:
    if index < SUB_BUCKETS:
        return index
    return (index % SUB_BUCKETS + SUB_BUCKETS) << (index // SUB_BUCKETS - 1)


def _middle(index: int) -> float:
    return (_low(index) + _low(index + 1) - 1) / 2
