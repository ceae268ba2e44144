"""What is real and what is noise; what a window takes from its episodes."""

import pytest

from memrt.runtime.profile.comparison import judge
from memrt.runtime.profile.window import Control, longest_silence_ns
from memrt.runtime.trace import Trace

STATISTICS = {
    "control ticks": 5000.0,
    "control ticks missed": 2.0,
    "control ticks starved": 1.0,
    "control lateness p99 [ms]": 0.03,
    "control lateness max [ms]": 0.4,
    "frames": 100.0,
}


@pytest.mark.parametrize(
    ("on", "off", "noise", "real"),
    [
        ((20.0, 21.0), (10.0, 10.5), 1.0, True),
        ((20.0, 21.0), (19.5, 20.5), 1.0, False),
        ((20.0, 21.0), (19.5, 19.5), 1.0, False),  # exactly the noise is not more than it
        ((10.0, 10.0), (10.0, 10.0), 0.0, False),
        ((10.0, 10.0), (15.0, 12.0), 3.0, True),  # faster with the high level on is a difference, too
    ],
)
def test_a_difference_is_real_only_beyond_what_each_differs_from_itself(on, off, noise, real):
    found = judge("low level", "p99", on, off)
    assert (found.noise, found.real) == (noise, real)
    assert found.ratio == pytest.approx(sum(on) / sum(off))


def test_what_was_measured_once_or_in_one_condition_only_is_not_judged():
    assert judge("low level", "p99", (20.0,), (10.0, 11.0)).real is None
    own = judge("high level", "p99", (100.0, 104.0), ())
    assert (own.noise, own.difference, own.ratio, own.real) == (4.0, None, None, None)


def test_a_ratio_to_nothing_is_not_a_number():
    assert judge("x", "p50", (1.0, 1.0), (0.0, 0.0)).ratio is None


def test_ticks_are_those_of_the_window_and_lateness_is_the_nodes():
    before = dict.fromkeys(STATISTICS, 0.0) | {"control ticks": 1000.0, "control ticks missed": 2.0}
    control = Control.between(before, STATISTICS)
    assert control == Control(4000, 0, 1, {"p99": 0.03, "max": 0.4})
    assert Control.between({}, {"frames": 3}) is None


def test_several_episodes_add_their_ticks_and_show_the_worst_lateness():
    parts = [Control(10, 1, 2, {"p99": 0.3, "max": 9.0}), Control(20, 0, 1, {"p99": 0.5, "max": 1.0})]
    assert Control.of(parts) == Control(30, 1, 3, {"p99": 0.5, "max": 9.0})
    assert Control.of([]) is None


def test_silence_is_the_longest_time_between_two_answers():
    trace = Trace()
    for start, end in ((0, 50), (100, 300), (400, 450)):
        trace.span("call", "high level", start, end)
        trace.span("decode", "high level", start, end - 1)
        trace.span("call", "low level", start, end + 7)
    assert longest_silence_ns(trace.events(), 0, 500) == 250
    assert longest_silence_ns(trace.events(), 40, 1000) == 550
    assert longest_silence_ns([], 5, 25) == 20
