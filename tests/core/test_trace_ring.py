"""Events come out in order and complete, or are counted as dropped."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime._core import TraceRing


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(st.one_of(st.integers(1, 30).map(lambda n: ("record", n)), st.just(("drain", 7)))))
def test_behaves_as_a_bounded_queue(steps: list[tuple[str, int]]) -> None:
    ring = TraceRing(16)
    model: list[int] = []
    recorded = dropped = 0
    for name, count in steps:
        if name == "record":
            for _ in range(count):
                fits = len(model) < 16
                assert ring.record(recorded % 5, recorded, 2 * recorded, -recorded) == fits
                if fits:
                    model.append(recorded)
                dropped += not fits
                recorded += 1
        else:
            rows = ring.drain(count)
            expected, model = model[:count], model[count:]
            assert rows.shape == (len(expected), 5)
            np.testing.assert_array_equal(rows[:, 0], np.array(expected, dtype=np.int64) % 5)
            np.testing.assert_array_equal(rows[:, 2], expected)
            np.testing.assert_array_equal(rows[:, 3], 2 * np.array(expected, dtype=np.int64))
            np.testing.assert_array_equal(rows[:, 4], -np.array(expected, dtype=np.int64))
    assert ring.dropped == dropped
    np.testing.assert_array_equal(ring.drain()[:, 2], model)


def test_every_thread_keeps_its_order() -> None:
    ring = TraceRing(1 << 16)
    per_thread = 4000

    def record(name: int) -> None:
        for i in range(per_thread):
            ring.record(name, i)

    threads = [threading.Thread(target=record, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = ring.drain()
    assert ring.dropped == 0
    for name in range(3):
        mine = rows[rows[:, 0] == name]
        np.testing.assert_array_equal(mine[:, 2], np.arange(per_thread))
        assert len(np.unique(mine[:, 1])) == 1


def test_capacity_is_a_bounded_power_of_two() -> None:
    assert TraceRing(100).capacity == 128
    for capacity in (0, 1, (1 << 20) + 1):
        with pytest.raises(ValueError, match="capacity"):
            TraceRing(capacity)
