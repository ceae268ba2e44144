"""Raw ticks and times: whatever the rate, a tick's own time is that tick, and calls start on the grid."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.sampling import Sampling

AUTHORS = KeyframesConfig(views=("wrist", "front"))
configs = st.builds(
    KeyframesConfig,
    views=st.just(("front",)),
    raw_rate_hz=st.one_of(st.sampled_from([15.0, 20.0, 30.0, 29.97]), st.floats(0.5, 200.0)),
    stride=st.integers(1, 9),
    recent=st.integers(1, 9),
    align=st.booleans(),
)
starts = st.integers(0, 10**15)


@given(configs, starts, st.integers(0, 10**6))
def test_a_ticks_own_time_is_that_tick_or_the_grids_last(config, start_ns, tick):
    sampling = Sampling.of(config)
    found = sampling.tick(start_ns, sampling.t_ns(start_ns, tick))
    assert found == (tick - tick % config.stride if config.align else tick)


@given(configs, starts, st.integers(0, 3600 * NS_PER_S))
def test_the_newest_tick_is_never_in_the_future_nor_older_than_a_stride(config, start_ns, passed_ns):
    sampling, t_ns = Sampling.of(config), start_ns + passed_ns
    tick = sampling.tick(start_ns, t_ns)
    assert (
        sampling.t_ns(start_ns, tick) <= t_ns < sampling.t_ns(start_ns, tick + (config.stride if config.align else 1))
    )
    recent = sampling.recent_ticks(start_ns, t_ns)
    assert recent[-1] == tick
    assert recent[0] >= 0


@given(configs, starts, st.integers(0, 3600 * NS_PER_S))
def test_an_aligned_call_shows_the_frame_of_its_own_moment(config, start_ns, passed_ns):
    sampling, t_ns = Sampling.of(config), start_ns + passed_ns
    at_ns = sampling.next_call_ns(start_ns, t_ns)
    assert at_ns >= t_ns
    assert sampling.next_call_ns(start_ns, at_ns) == at_ns
    if config.align:
        tick = sampling.tick(start_ns, at_ns)
        assert tick % config.stride == 0
        assert sampling.t_ns(start_ns, tick) == at_ns
        assert sampling.tick(start_ns, t_ns) >= tick - config.stride  # no grid moment is passed over
    else:
        assert at_ns == t_ns


def test_aligned_calls_share_recent_frames():
    sampling = Sampling.of(AUTHORS)
    first = sampling.recent_ticks(0, 3 * NS_PER_S)
    assert first == (10, 15, 20, 25, 30, 35, 40, 45)
    assert sampling.recent_ticks(0, 4 * NS_PER_S + 70_000_000)[:5] == first[3:]  # a call that came a tick late


def test_robommes_window_ends_one_step_before_the_call():
    robomme = msgspec.structs.replace(AUTHORS, raw_rate_hz=20.0, stride=2, lag=1, align=False)
    assert Sampling.of(robomme).recent_ticks(0, 16 * 50_000_000) == (1, 3, 5, 7, 9, 11, 13, 15)
    assert Sampling.of(robomme).recent_ticks(0, 0) == (0,)
