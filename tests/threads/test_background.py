"""Threads that stand back, their children, and the shares of the cores."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from memrt.runtime.background import BACKGROUND_NICE, in_background, stand_back
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.thread_budget import ThreadBudget

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems know no nice value per thread")


def priority() -> tuple[int, int]:
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def tasks() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


@linux
def test_a_thread_and_its_children_stand_back_and_nobody_else():
    before, child = priority(), []

    def work() -> tuple[int, int]:
        thread = threading.Thread(target=lambda: child.append(priority()))
        thread.start()
        thread.join()
        return priority()

    behind = (os.SCHED_BATCH, BACKGROUND_NICE)
    assert in_background(work) == behind
    assert child == [behind]
    assert priority() == before


def test_what_fails_in_the_background_fails_here():
    with pytest.raises(KeyError, match="lost"):
        in_background(lambda: {}["lost"])


@linux
def test_an_engine_opened_in_the_background_computes_there_and_another_does_not(tmp_path: Path):
    path = tmp_path / "product.onnx"
    weights = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    shape = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", shape[:1], shape[1:], [weights]
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    open_engine(path).close()  # the library's own threads
    known = tasks()
    normal = open_engine(path, threads=3)
    of_normal = tasks() - known
    behind = in_background(lambda: open_engine(path, threads=3))
    of_behind = tasks() - known - of_normal
    deadline = time.monotonic() + 5.0
    while len(of_behind) > 2 and time.monotonic() < deadline:  # the thread that opened it is still being taken down
        time.sleep(0.01)
        of_behind &= tasks()
    assert len(of_normal) == len(of_behind) == 2  # the caller is the third
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in of_behind} == {BACKGROUND_NICE}
    assert {os.sched_getscheduler(thread) for thread in of_behind} == {os.SCHED_BATCH}
    assert BACKGROUND_NICE not in {os.getpriority(os.PRIO_PROCESS, thread) for thread in of_normal}
    for engine in (normal, behind):
        np.testing.assert_array_equal(engine.run({"x": np.ones((4, 8), np.float32)})["y"], np.full((4, 8), 8.0))
        engine.close()


@linux
def test_standing_back_twice_is_standing_back():
    def twice() -> tuple[int, int]:
        stand_back()
        stand_back()
        return priority()

    assert in_background(twice) == (os.SCHED_BATCH, BACKGROUND_NICE)


@pytest.mark.parametrize(("cores", "budget"), [(1, (1, 1)), (2, (2, 1)), (4, (4, 2)), (12, (8, 6)), (16, (8, 8))])
def test_the_low_level_may_use_every_core_and_the_high_level_half(cores: int, budget: tuple[int, int]):
    assert ThreadBudget.of_cores(cores) == ThreadBudget(*budget)


def test_a_budget_is_one_number_or_two():
    assert ThreadBudget.parse("3") == ThreadBudget(3, 3)
    assert ThreadBudget.parse("2,1") == ThreadBudget.parse(str(ThreadBudget(2, 1))) == ThreadBudget(2, 1)
    for wrong in ("", "two", "0", "1,0", "1,2,3", "-1"):
        with pytest.raises(MemrtError, match=r"expected the low level's threads and the high level's, e.g. 2,1"):
            ThreadBudget.parse(wrong)
