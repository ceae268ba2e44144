"""An operator's word that a subgoal has succeeded, on its way to a memory that only successes enter."""

from dataclasses import replace

from memrt.runtime.config import load_policy
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.shared import Shared
from memrt.runtime.memory import build_memory

REPLY = "pick up the cube\n<mem>I picked up the cube.</mem>"


def shared(policy: str) -> Shared:
    memory = build_memory(load_policy(policy).memory)
    return Shared(RunRecord("realtime", "goal", 0), memory.update(memory.initial(), REPLY, "goal").state, ())


def test_the_next_call_knows_what_was_confirmed():
    board = shared("language_memory")
    before = board.memory
    assert board.memory_for_a_call() == before
    board.confirm_subgoal()
    assert board.memory == before  # a call that is running keeps the memory it was asked with
    assert board.memory_for_a_call() == replace(before, action_memory="I picked up the cube.", pending_memory=None)


def test_a_confirmation_counts_once():
    board = shared("language_memory")
    board.confirm_subgoal()
    board.memory_for_a_call()
    memory = build_memory(load_policy("language_memory").memory)
    board.memory = memory.update(board.memory, "pick up the cube\n<mem>Wrong.</mem>", "goal").state
    assert board.memory_for_a_call().action_memory == "I picked up the cube."


def test_other_memories_do_not_mind():
    for policy in ("am_simple", "subgoal_simple", "memer", "memoryless"):
        board = shared(policy)
        before = board.memory
        board.confirm_subgoal()
        assert board.memory_for_a_call() == before
    board.memory = "another robot's own"
    board.confirm_subgoal()
    assert board.memory_for_a_call() == "another robot's own"
