"""A camera's clock on ours: never late by more than the way here takes, never in the future."""

from hypothesis import example, given
from hypothesis import strategies as st

from memrt.robot_io.cameras.device_time import OLDEST_NS, WINDOW_ARRIVALS, DeviceClock, wall_to_monotonic

MS = 1_000_000
S = 1_000 * MS
PERIOD = 33 * MS


@given(
    offset=st.integers(-(10**15), 10**15),
    delays=st.lists(st.integers(4 * MS, 300 * MS), min_size=2, max_size=200),
    drift_ppm=st.integers(-100, 100),
)
def test_estimates_lie_between_the_moment_and_its_arrival(offset, delays, drift_ppm):
    clock = DeviceClock()
    received, quickest = 0, S
    for index, delay in enumerate(delays):
        taken = 10 * S + index * PERIOD
        received = max(received, taken + delay)  # arrivals come in order
        device = taken + offset + taken * drift_ppm // 10**6
        estimate = clock.to_monotonic(device, received)
        assert estimate <= received
        quickest = min(quickest, received - taken)
        assert taken - MS <= estimate <= taken + quickest + MS  # 100 ppm over the 6.6 s of this test are 0.66 ms
    assert clock.restarts == 0


@given(st.integers(0, 10**12))
def test_a_counter_that_begins_again_is_followed_at_once(start):
    clock = DeviceClock()
    assert clock.to_monotonic(start + 5 * S, 100 * S) == 100 * S
    assert clock.to_monotonic(start, 101 * S) == 101 * S
    assert clock.restarts == 1


def test_drift_is_followed_because_old_arrivals_are_forgotten():
    clock = DeviceClock()
    for index in range(20_000):  # 11 minutes at 100 ppm: 66 ms if nothing were forgotten
        taken = index * PERIOD
        estimate = clock.to_monotonic(taken + taken // 10_000, taken + 5 * MS)
    assert taken <= estimate <= taken + 7 * MS


def test_memory_is_bounded_at_any_rate():
    clock = DeviceClock()
    for index in range(3 * WINDOW_ARRIVALS):
        clock.to_monotonic(index * 1000, index * 1000 + index)  # each one slower: none can be forgotten early
    assert len(clock._offsets) <= WINDOW_ARRIVALS


@given(age=st.integers(-2 * S, 2 * S), received=st.integers(10 * S, 10**15), wall=st.integers(10**18, 2 * 10**18))
@example(age=OLDEST_NS, received=10 * S, wall=10**18)
def test_wall_clock_stamps_are_believed_within_a_second(age, received, wall):
    taken = wall_to_monotonic(wall - age, wall, received)
    assert taken == (received - age if 0 <= age <= OLDEST_NS else received)
