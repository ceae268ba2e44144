"""One recorded sample as the chat turn that a memory policy is trained on, asked by the runtime's own memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from memrt.runtime.config import MemoryConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import HighLevelRequest, build_memory
from memrt.runtime.memory.parser import Reply, format_reply
from memrt.train.labels import label_pair

Vary = Callable[[str, str], tuple[str, str]]  # (memory before, after) as labelled → as shown and asked for


def training_turn(
    config: MemoryConfig, sample: Mapping[str, Any], vary: Vary | None = None
) -> tuple[HighLevelRequest, str]:
    """The request and the reply for one line of a data set's `high_level/samples.jsonl`.

    The request comes from `build_memory(config)`, so training and rollout cannot drift apart. The memory shown is the
    one that the call before left behind (report, section 4.3); a policy without action memory answers with the subgoal
    alone. Raises MemrtError for subgoals that the labels cannot word, and for a memory of pictures.
    """
    if config.kind == "keyframes":
        raise MemrtError(
            "training turns",
            expected="a memory of words: memoryless, history or language",
            found="`kind: keyframes`",
            fix="train a keyframe policy with its authors' code, and host its weights here",
        )
    memory = build_memory(config)
    state = memory.initial()
    goal, current = str(sample["goal"]), str(sample[f"subgoal_{config.subgoal_style}"])
    if config.kind == "memoryless":
        return memory.request(state, goal), current
    previous = [str(subgoal) for subgoal in sample[f"history_{config.subgoal_style}"]]
    # The call before had answered `previous_segment`, so that subgoal is part of the history the VLM sees now.
    answered = [*previous, current][: int(sample["previous_segment"]) + 1]
    state = replace(state, history=tuple(filter(None, answered)), subgoal=answered[-1] if answered else "")
    if config.kind == "history":
        return memory.request(state, goal), current
    before, after = label_pair(goal, previous, current, int(sample["previous_segment"]), config.subgoal_style)
    if vary is not None:
        before, after = vary(before, after)
    request = memory.request(replace(state, action_memory=before), goal)
    return request, format_reply(Reply(current, after))
