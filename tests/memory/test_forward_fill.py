"""What is carried from call to call, byte for byte: SPECS 1.1's rules on one transcript, in golden files to be read."""

from pathlib import Path

import pytest

from memrt.runtime.config import load_policy
from memrt.runtime.memory import build_memory

GOLDEN = Path(__file__).parent / "golden"
GOAL = "pick up the red cube and place it on the target, then press the button to stop"
REPLIES = (
    "<mem>Nothing is named yet.</mem>",  # before any subgoal the goal stands in
    "pick up the red cube <120, 88>\n<mem>I have begun.</mem>\n<spatial_mem>The red cube is left.</spatial_mem>",
    "pick up the red cube <121, 88>",  # no memories: both stay
    "",  # held
    # Neither tag is closed.
    "place the red cube onto the target <140, 75>\n<mem>I picked up the red cube.\n<spatial_mem>It is held.",
    "  place the red cube onto the target <140, 75>  \n<spatial_mem>It is down.</spatial_mem>",  # the same again
    "<mem>I placed the red cube.</mem>",  # a memory without a subgoal: taken, the last subgoal is held
    "press the button <155, 109>\n<mem></mem>",  # an empty memory is a memory
    "press the button <155, 109>\n<mem>first</mem><mem>second</mem>",  # the first counts
)


@pytest.mark.parametrize("name", ["am_grounded", "am_sm_grounded", "language_memory", "memoryless", "subgoal_grounded"])
def test_forward_fill(name):
    memory = build_memory(load_policy(name).memory)
    state, lines = memory.initial(), []
    for reply in REPLIES:
        update = memory.update(state, reply, GOAL)
        state = update.state
        lines += [
            f"reply    {reply!r}",
            f"subgoal  {update.subgoal!r}" + (" held" if update.held else ""),
            f"memory   {state.action_memory!r}"
            + ("" if state.pending_memory is None else f" {state.pending_memory!r}"),
            f"spatial  {state.spatial_memory!r}",
            f"history  {list(state.history)!r}",
            "",
        ]
    assert "\n".join(lines) == (GOLDEN / f"forward_fill_{name}.txt").read_text(encoding="utf-8")
