"""Frames in shared memory: never torn, never rewritten while borrowed, and nothing a dead process held is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memrt.runtime._core import BorrowedFrame, FrameRing

SHAPE = (48, 64, 3)


def fresh_name() -> str:
    return f"memrt-test-{uuid.uuid4().hex}"


@pytest.fixture
def name() -> str:
    return fresh_name()


@pytest.fixture
def writer(name: str) -> Iterator[FrameRing]:
    with FrameRing.create(name, 4, *SHAPE) as ring:
        yield ring


def frame(value: int) -> np.ndarray:
    return np.full(SHAPE, value % 251, np.uint8)


def test_reader_sees_the_newest_frame(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    assert reader.borrow() is None
    assert reader.latest_copy() is None
    for index in range(10):
        assert writer.write(frame(index), index, 1000 + index)
        copied = reader.latest_copy()
        assert copied is not None
        image, at, t_ns = copied
        assert (at, t_ns) == (index, 1000 + index)
        np.testing.assert_array_equal(image, frame(index))
    assert (writer.written, writer.dropped, writer.shape, writer.slots) == (10, 0, SHAPE, 4)


def test_borrowed_view_is_read_only_and_shares_memory(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    writer.write(frame(1), 1, 1)
    first, second = reader.borrow(), reader.borrow()
    assert first is not None
    assert second is not None
    assert np.shares_memory(first.image, second.image)
    with pytest.raises(ValueError, match="read-only"):
        first.image[0, 0, 0] = 1


def test_a_view_keeps_its_frame_pinned_and_the_memory_mapped(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    writer.write(frame(7), 7, 7)
    borrowed = reader.borrow()
    assert borrowed is not None
    view = borrowed.image
    del borrowed
    reader.close()
    for index in range(20):
        writer.write(frame(100), index, index)
    np.testing.assert_array_equal(view, frame(7))


def test_release_ends_the_borrowing(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    writer.write(frame(1), 1, 1)
    with reader.borrow() as borrowed:  # type: ignore[union-attr]
        assert borrowed.image[0, 0, 0] == 1
    assert borrowed.released
    borrowed.release()
    with pytest.raises(RuntimeError, match="released"):
        _ = borrowed.image


def test_a_borrowed_time_gives_the_newest_frame_not_younger(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    assert reader.borrow(10**18) is None
    for index in range(10):
        writer.write(frame(index), index, 100 * index)
    for not_after_ns, expected in [(10**18, 9), (900, 9), (899, 8), (700, 7), (699, 6), (600, 6)]:
        with reader.borrow(not_after_ns) as borrowed:  # type: ignore[union-attr]
            assert (borrowed.index, borrowed.t_ns) == (expected, 100 * expected)
            assert (borrowed.image == expected).all()
    assert reader.borrow(599) is None, "no longer in the ring"


def test_the_oldest_unpinned_frame_is_overwritten_first(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    for index in range(4):
        writer.write(frame(index), index, index)
    oldest = reader.borrow(0)
    assert oldest is not None
    writer.write(frame(4), 4, 4)  # over frame 1: 0 is pinned
    oldest.release()
    writer.write(frame(5), 5, 5)  # over frame 0: 2 is younger
    assert [in_ring(reader, index) for index in range(6)] == [False, False, True, True, True, True]


def in_ring(reader: FrameRing, index: int) -> bool:
    borrowed = reader.borrow(index)
    return borrowed is not None and borrowed.index == index


class Ring(RuleBasedStateMachine):
    """One writer, two readers, any order of writing, borrowing by time and releasing; the model is a list of frames."""

    def __init__(self) -> None:
        super().__init__()
        name = fresh_name()
        self.writer = FrameRing.create(name, 4, *SHAPE)
        self.readers = [FrameRing.open(name), FrameRing.open(name)]
        self.held: list[tuple[BorrowedFrame, int]] = []
        self.kept: list[int] = []  # frames in the ring, oldest first
        self.attempts = 0

    @rule()
    def write(self) -> None:
        self.attempts += 1
        held = {index for _, index in self.held}
        if len(self.kept) == 4:
            free = [index for index in self.kept[:-1] if index not in held]
            self.kept = [index for index in self.kept if index not in free[:1]]
        fits = len(self.kept) < 4
        assert self.writer.write(frame(self.attempts), self.attempts, 2 * self.attempts) == fits
        if fits:
            self.kept.append(self.attempts)

    @rule(reader=st.integers(0, 1), back=st.one_of(st.none(), st.integers(-2, 20)))
    def borrow(self, reader: int, back: int | None) -> None:
        not_after_ns = None if back is None else 2 * self.attempts - back
        matching = [index for index in self.kept if not_after_ns is None or 2 * index <= not_after_ns]
        borrowed = self.readers[reader].borrow(not_after_ns)
        if not matching:
            assert borrowed is None
            return
        assert borrowed is not None
        assert (borrowed.index, borrowed.t_ns) == (matching[-1], 2 * matching[-1])
        self.held.append((borrowed, matching[-1]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        borrowed, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        borrowed.release()

    @invariant()
    def borrowed_frames_do_not_change(self) -> None:
        for borrowed, index in self.held:
            assert (borrowed.image == index % 251).all()

    @invariant()
    def frames_are_counted(self) -> None:
        assert self.writer.written + self.writer.dropped == self.attempts

    def teardown(self) -> None:
        self.held.clear()
        for ring in (*self.readers, self.writer):
            ring.close()


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)


WRITE_UNTIL_CLOSED = """
import select, sys
import numpy as np
from memrt.runtime._core import FrameRing
ring = FrameRing.create(sys.argv[1], int(sys.argv[2]), 48, 64)
frames = [np.full((48, 64, 3), value, np.uint8) for value in range(251)]
index = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(100):
        index += 1
        ring.write(frames[index % 251], index, 3 * index)
    if index == 1000:  # more than a ring holds
        print("writing", flush=True)
ring.close()
"""


def test_never_torn_beside_a_writer_in_another_process(name: str) -> None:
    seen, newest = set(), 0
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_CLOSED, name, "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        reader = FrameRing.open(name)
        for turn in range(4000):
            if turn % 2:
                borrowed = reader.borrow()
                assert borrowed is not None
                image, index, t_ns = borrowed.image, borrowed.index, borrowed.t_ns
            else:
                copied = reader.latest_copy()
                assert copied is not None
                image, index, t_ns = copied
            assert (image == index % 251).all()
            assert t_ns == 3 * index
            assert index >= newest, "time ran backwards"
            newest = index
            seen.add(index)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0
    assert len(seen) > 2, "the writer stood still: nothing was tested"


def test_the_frame_of_a_time_beside_a_writer_in_another_process(name: str) -> None:
    """Times are 3 apart, so what a borrowed time must give is known; or it is gone, and the writer far ahead."""
    slots, found = 256, 0
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_CLOSED, name, str(slots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        reader = FrameRing.open(name)
        for turn in range(3000):
            newest = reader.borrow()
            assert newest is not None
            wanted = newest.index - (turn * 7) % slots
            newest.release()
            borrowed = reader.borrow(3 * wanted + turn % 3)
            if borrowed is not None and borrowed.index == wanted:
                found += 1
                assert borrowed.t_ns == 3 * wanted
                assert (borrowed.image == wanted % 251).all()
            else:  # gone: a pin of this turn and one of the last may have held slots; one may be being written
                assert borrowed is None or borrowed.index < wanted
                newest = reader.borrow()
                assert newest is not None
                assert newest.index >= wanted + slots - 3
                newest.release()
            if borrowed is not None:
                borrowed.release()
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0
    assert found > 300, "the writer was too fast for the reader: little was tested"


HOLD_AND_WAIT = """
import sys
from memrt.runtime._core import FrameRing
reader = FrameRing.open(sys.argv[1])
held = [reader.borrow()]
print("held", flush=True)
for line in sys.stdin:
    held.append(reader.borrow())
    print("held", flush=True)
"""


def test_pins_of_a_killed_reader_are_taken_back(writer: FrameRing, name: str) -> None:
    writer.write(frame(0), 0, 0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_WAIT, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        for index in range(1, 4):
            assert writer.write(frame(index), index, index)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "held\n"
        assert not writer.write(frame(4), 4, 4), "every slot is pinned by a living reader"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert writer.write(frame(5), 5, 5)
    assert (writer.written, writer.dropped) == (5, 1)


def test_a_leftover_of_a_killed_writer_is_replaced(name: str) -> None:
    make = "import sys, os; from memrt.runtime._core import FrameRing; "
    make += "ring = FrameRing.create(sys.argv[1], 3, 4, 4); os._exit(0)"
    subprocess.run([sys.executable, "-c", make, name], check=True)
    left = FrameRing.open(name)
    assert left.shape == (4, 4, 3)
    with FrameRing.create(name, 4, *SHAPE):
        assert FrameRing.open(name).shape == SHAPE


def test_names_have_one_writer_and_disappear_with_it(name: str) -> None:
    writer = FrameRing.create(name, 3, *SHAPE)
    with pytest.raises(RuntimeError, match="has a writer already"):
        FrameRing.create(name, 3, *SHAPE)
    reader = FrameRing.open(name)
    writer.write(frame(3), 3, 3)
    writer.close()
    with pytest.raises(RuntimeError, match="No such file"):
        FrameRing.open(name)
    assert reader.latest_copy() is not None, "whoever has the ring open keeps it"
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(frame(4), 4, 4)


def test_readers_are_bounded_and_their_places_are_given_back(writer: FrameRing, name: str) -> None:
    readers = [FrameRing.open(name) for _ in range(16)]
    with pytest.raises(RuntimeError, match="16 readers"):
        FrameRing.open(name)
    readers.pop().close()
    assert FrameRing.open(name).borrow() is None
    assert writer.written == 0


def test_roles_and_shapes_are_checked(writer: FrameRing, name: str) -> None:
    reader = FrameRing.open(name)
    with pytest.raises(RuntimeError, match="opened for reading"):
        reader.write(frame(0), 0, 0)
    with pytest.raises(RuntimeError, match="opened for writing"):
        writer.borrow()
    with pytest.raises(ValueError, match="shape"):
        writer.write(np.zeros((48, 64, 1), np.uint8), 0, 0)
    with pytest.raises(TypeError):
        writer.write(np.zeros(SHAPE, np.float32), 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slots", "shape"),
    [(2, SHAPE), (257, SHAPE), (3, (0, 4, 3)), (3, (4, 16385, 3)), (3, (4, 4, 5)), (64, (16384, 16384, 3))],
)
def test_sizes_are_bounded(name: str, slots: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FrameRing.create(name, slots, *shape)


@pytest.mark.parametrize("bad", ["", "a/b", "x" * 201])
def test_bad_names_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="name"):
        FrameRing.create(bad, 3, 4, 4)


@pytest.mark.parametrize("content", [b"", b"x" * 100_000])
def test_something_else_of_that_name_is_not_opened(name: str, content: bytes) -> None:
    path = f"/dev/shm/{name}"
    with open(path, "wb") as file:
        file.write(content)
    try:
        with pytest.raises(RuntimeError, match="not a frame ring"):
            FrameRing.open(name)
    finally:
        os.unlink(path)
