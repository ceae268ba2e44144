"""Percentiles from buckets against percentiles from all samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.distribution import SUB_BUCKETS, Distribution

SAMPLES = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**62)), min_size=1, max_size=60)


def filled(values) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


@given(SAMPLES, st.floats(0, 100))
def test_percentiles_are_within_half_a_bucket_of_the_exact_ones(values, percent):
    exact = np.percentile(np.array(values, np.float64), percent)
    assert filled(values).percentile(percent) == pytest.approx(exact, rel=0.5 / SUB_BUCKETS + 1e-9, abs=1e-6)


@given(SAMPLES)
def test_counts_and_extremes_are_exact(values):
    found = filled(values)
    assert (found.count, found.max, sum(found.buckets().values())) == (len(values), max(values), len(values))
    assert found.percentile(100) == max(values)


@given(SAMPLES, SAMPLES)
def test_a_merged_distribution_is_that_of_all_samples(first, second):
    merged, whole = Distribution.merged([filled(first), filled(second)]), filled(first + second)
    assert (merged.buckets(), merged.count, merged.max) == (whole.buckets(), whole.count, whole.max)


def test_it_stays_small_however_many_samples_come():
    found = filled(int(value) for value in np.random.default_rng(0).lognormal(17, 1.5, 50_000))
    assert found.count == 50_000
    assert len(found.buckets()) < 2_000
    assert set(filled(range(SUB_BUCKETS)).buckets()) == set(range(SUB_BUCKETS))


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentile_of_nothing_or_beyond_everything_is_refused(percent):
    with pytest.raises(ValueError, match="0 samples"):
        Distribution().percentile(50)
    with pytest.raises(ValueError, match="percent"):
        filled([1]).percentile(percent)


def test_a_negative_duration_counts_as_none():
    assert filled([-5]).buckets() == {0: 1}
