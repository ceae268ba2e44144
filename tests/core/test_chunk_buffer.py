"""The mailbox into the control thread: the newest chunk wins, none is seen twice, none is torn."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memrt.runtime._core import ChunkBuffer


class Mailbox(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = ChunkBuffer()
        self.waiting: tuple[np.ndarray, int] | None = None
        self.lost = 0
        self.put_count = 0

    @rule(horizon=st.integers(1, 128), value=st.floats(-3, 3))
    def put(self, horizon: int, value: float) -> None:
        actions = np.full((horizon, 8), value)
        self.put_count += 1
        self.buffer.put(actions, 10 * self.put_count, 5, self.put_count)
        self.lost += self.waiting is not None
        self.waiting = (actions, self.put_count)

    @rule()
    def take(self) -> None:
        taken = self.buffer.take()
        if self.waiting is None:
            assert taken is None
            return
        assert taken is not None
        actions, t0_ns, dt_ns, revision = taken
        np.testing.assert_array_equal(actions, self.waiting[0])
        assert (t0_ns, dt_ns, revision) == (10 * self.waiting[1], 5, self.waiting[1])
        self.waiting = None

    @invariant()
    def lost_chunks_are_counted(self) -> None:
        assert self.buffer.replaced == self.lost


TestMailbox = Mailbox.TestCase
TestMailbox.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)


def test_two_producers_and_a_consumer_never_mix_chunks() -> None:
    buffer = ChunkBuffer()
    per_producer = 3000

    def produce(first: int) -> None:
        for i in range(first, first + per_producer):
            buffer.put(np.full((16, 8), float(i)), i, i, i)

    producers = [threading.Thread(target=produce, args=(k * per_producer,)) for k in range(2)]
    for producer in producers:
        producer.start()
    newest = [-1, -1]
    taken = 0
    while True:
        alive = any(producer.is_alive() for producer in producers)
        chunk = buffer.take()
        if chunk is None:
            if not alive:
                break
            continue
        actions, t0_ns, dt_ns, revision = chunk
        taken += 1
        assert (actions == revision).all()
        assert t0_ns == dt_ns == revision
        assert revision > newest[revision // per_producer]
        newest[revision // per_producer] = revision
    assert taken + buffer.replaced == 2 * per_producer
    assert max(newest) in (per_producer - 1, 2 * per_producer - 1)


@pytest.mark.parametrize("shape", [(0, 8), (129, 8), (16, 7)])
def test_chunks_of_the_wrong_size_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ChunkBuffer().put(np.zeros(shape), 0, 1, 1)
