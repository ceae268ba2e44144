from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.policy.remote.breaker import FIRST_PAUSE_NS, CircuitBreaker

LONGEST_NS = 8 * NS_PER_S

# A question is asked after so long, if the breaker lets it, and ends so.
STEPS = st.lists(
    st.tuples(st.integers(0, 10 * NS_PER_S), st.sampled_from(["answered", "missed", "withdrawn", "under way"]))
)


@given(st.integers(1, 4), STEPS)
def test_rules_of_the_breaker(limit, steps):
    """Against the rules said in words: never asked in a pause, one try at a time, pauses double up to the bound."""
    breaker, now_ns = CircuitBreaker(limit, LONGEST_NS), 0
    missed, pauses, resting_until_ns, trying = 0, 0, 0, False
    for wait_ns, ending in steps:
        now_ns += wait_ns
        choice = breaker.choose(now_ns)
        if missed < limit:
            assert choice == "ask"
            assert not breaker.paused
        else:
            assert breaker.paused
            assert choice == ("leave" if trying or now_ns < resting_until_ns else "try")
            trying = trying or choice == "try"
        if choice == "leave" and not trying:
            continue
        if ending == "answered":
            breaker.answered()
            missed, pauses, trying = 0, 0, False
        elif ending == "missed":
            breaker.missed(now_ns)
            missed, trying = missed + 1, False
            if missed >= limit:
                resting_until_ns = now_ns + min(FIRST_PAUSE_NS << pauses, LONGEST_NS)
                pauses += 1
        elif ending == "withdrawn":
            breaker.withdrawn()
            trying = False


@given(st.lists(st.integers(0, 100 * NS_PER_S), min_size=1))
def test_a_server_that_never_answers_is_asked_ever_less_often_but_for_ever(waits_ns):
    breaker, now_ns, asked = CircuitBreaker(3, LONGEST_NS), 0, 0
    for wait_ns in waits_ns:
        now_ns += wait_ns
        if breaker.choose(now_ns) != "leave":
            asked += 1
            breaker.missed(now_ns)
    assert asked <= 3 + sum(1 for _ in range(int(now_ns // FIRST_PAUSE_NS)))
    assert breaker.choose(now_ns + LONGEST_NS) in ("ask", "try")


def test_a_bound_below_the_first_pause_holds_too():
    breaker = CircuitBreaker(1, NS_PER_S // 4)
    breaker.missed(0)
    assert breaker.choose(NS_PER_S // 4 - 1) == "leave"
    assert breaker.choose(NS_PER_S // 4) == "try"
