import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError


def test_one_line_with_a_way_out():
    error = MemrtError("task\nname", expected="a task", found=Path("x"), fix="choose one")
    assert str(error) == "task name: expected a task, found x. Fix: choose one"


def test_refusal_in_a_worker_process_arrives_whole():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(MemrtError, match="am_grounded") as caught:
        pool.submit(load_policy, "am_groundet").result()
    assert caught.value.fix == "did you mean `am_grounded`?"
