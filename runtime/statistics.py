"""The few statistics that evaluation and benchmarks report, from closed forms or exact root finding: no resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
_BISECTIONS = 100  # more than the 53 bits of a double need


def wilson95(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a success rate (Wilson 1927), as fractions; (0, 1) when nothing was tried.

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, found {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    rate, z2 = successes / n, Z95 * Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Success rate of `first` minus that of `second` over the same seeds, with its 95 % interval [low, high]."""

    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    n: int


def paired_difference95(first: Sequence[bool], second: Sequence[bool]) -> PairedDifference:
    """Tango's score interval for the difference of two rates measured on matched seeds.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998) 891-908: all differences that his score test does not reject. Unlike the
    textbook interval it has a width even when the two never disagree. Raises ValueError unless both have the same
    length of at least one.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"expected two outcomes per seed, found {len(first)} and {len(second)}")
    n = len(first)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    difference = (only_first - only_second) / n

    def excess(candidate: float) -> float:
        """Decreasing in the candidate; its roots at +-z are the ends of the interval."""
        return _tango_score(only_first, only_second, n, candidate)

    low = -1.0 if only_second == n else _root(lambda d: excess(d) - Z95, -1.0, difference)
    high = 1.0 if only_first == n else _root(lambda d: excess(d) + Z95, difference, 1.0)
    return PairedDifference(difference, low, high, only_first, only_second, n)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two. Raises ValueError for no values."""
    return percentile(values, 50.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the closest ranks (Hyndman and Fan's type 7, as numpy and spreadsheets do).

    Raises ValueError for no values, or unless 0 <= percent <= 100.
    """
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"expected values and 0..100 percent, found {len(values)} values and {percent}")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _tango_score(b: int, c: int, n: int, difference: float) -> float:
    """Score of "the true difference is `difference`" given b and c disagreements (Tango 1998, equations 6 to 9)."""
    numerator = b - c - n * difference
    linear = -b - c + (2 * n - b + c) * difference
    discriminant = max(0.0, linear * linear + 8 * n * c * difference * (1 - difference))
    q21 = max(0.0, (math.sqrt(discriminant) - linear) / (4 * n))  # constrained maximum-likelihood estimate of P(c)
    variance = n * (2 * q21 + difference * (1 - difference))
    if variance <= 0.0:
        return 0.0 if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def _root(decreasing: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if decreasing(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
