"""The clock estimate: its bound is honest whatever the network does, and arming asks for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.robot_io.link.clock_sync import ClockEstimate, ClockSync, check_arm
from memrt.runtime.errors import MemrtError

delays = st.integers(0, 50_000_000)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(delays, delays), min_size=1, max_size=30))
def test_the_true_offset_lies_within_the_uncertainty(offset_ns, trips):
    sync, now_ns = ClockSync(), 0
    for there_ns, back_ns in trips:
        sync.add(now_ns, now_ns + there_ns + offset_ns, now_ns + there_ns + back_ns)
        now_ns += there_ns + back_ns + 1
    estimate = sync.estimate
    assert estimate is not None
    assert abs(estimate.offset_ns - offset_ns) <= estimate.uncertainty_ns
    assert estimate.uncertainty_ns == (min(there + back for there, back in trips) + 1) // 2


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**15))
def test_converting_there_and_back_changes_nothing(offset_ns, t_ns):
    estimate = ClockEstimate(offset_ns, 0)
    assert estimate.to_local(estimate.to_remote(t_ns)) == t_ns
    assert estimate.to_remote(t_ns) == t_ns + offset_ns


def test_old_round_trips_are_forgotten_and_impossible_ones_ignored():
    sync = ClockSync(window=2)
    sync.add(0, 5, -1)
    assert sync.estimate is None
    sync.add(0, 1_000, 2)
    sync.add(0, 500, 200)
    assert sync.estimate == ClockEstimate(999, 1)
    sync.add(0, 500, 300)
    assert sync.estimate == ClockEstimate(400, 100)


@pytest.mark.parametrize(("estimate", "found"), [(None, "no round trip"), (ClockEstimate(0, 5_000_001), "5.0 ms")])
def test_a_badly_known_clock_does_not_arm(estimate, found):
    with pytest.raises(MemrtError, match=found):
        check_arm(estimate)


def test_a_well_known_clock_arms():
    estimate = ClockEstimate(7, 5_000_000)
    assert check_arm(estimate) is estimate
