"""The recorder's queue: within its bounds, in order, and nothing lost without being counted."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.recording.bounded_queue import BoundedQueue

PUTS = st.tuples(st.just("put"), st.integers(0, 60), st.sampled_from(["call", "frame"]))
STEPS = st.lists(st.one_of(PUTS, st.just(("get", 0, ""))), max_size=200)
SHARES = {"call": 1.0, "frame": 0.5}


@given(STEPS, st.integers(1, 12), st.integers(1, 200))
def test_it_keeps_its_bounds_its_order_and_its_counts(steps, items, size_bytes):
    queue: BoundedQueue[int] = BoundedQueue(items, size_bytes)
    waiting: list[tuple[int, int]] = []
    offered = {"call": 0, "frame": 0}
    accepted = {"call": 0, "frame": 0}
    for number, (action, size, kind) in enumerate(steps):
        if action == "put":
            held = sum(size for _, size in waiting)
            fits = len(waiting) + 1 <= SHARES[kind] * items and held + size <= SHARES[kind] * size_bytes
            assert queue.put(number, size, kind, SHARES[kind]) == fits
            offered[kind] += 1
            accepted[kind] += fits
            waiting += [(number, size)] * fits
        else:
            assert queue.get() == (waiting.pop(0)[0] if waiting else None)
        assert queue.items_waiting == len(waiting) <= items
        assert queue.bytes_waiting == sum(size for _, size in waiting) <= size_bytes
    assert {kind: accepted[kind] + queue.dropped[kind] for kind in offered} == offered


def test_producers_in_several_threads_lose_nothing_uncounted():
    queue: BoundedQueue[tuple[int, int]] = BoundedQueue(50, 10_000)
    each, got = 2_000, []

    def produce(who: int) -> None:
        for number in range(each):
            queue.put((who, number), 100, "call")

    threads = [threading.Thread(target=produce, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or queue.items_waiting:
        assert queue.items_waiting <= 50
        if (item := queue.get()) is not None:
            got.append(item)
    assert len(got) + queue.dropped["call"] == 3 * each
    for who in range(3):
        numbers = [number for producer, number in got if producer == who]
        assert numbers == sorted(numbers)
