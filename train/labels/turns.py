"""One recorded sample as the chat turn that a memory policy is trained on, asked by the runtime's own memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from memrt.runtime.config import MemoryConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import HighLevelRequest, build_memory
from memrt.runtime.memory.parser import Reply, format_reply
from memrt.train.labels import INITIAL_SPATIAL_MEMORY, Style, label_pair, spatial_memories
from memrt.train.labels.chains import CALL_EVERY
from memrt.train.labels.spatial import can_describe

_STYLES: tuple[Style, ...] = ("simple", "grounded")

Vary = Callable[[str, str], tuple[str, str]]  # (memory before, after) as labelled → as shown and asked for


def with_spatial_memories(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The samples of whole episodes, each with `spatial_simple` and `spatial_grounded`: [s_{t-1}, s_t].

    `samples` are the lines of a data set's `high_level/samples.jsonl`. The memory before is that of the call before,
    `CALL_EVERY` control steps earlier. Episodes recorded elsewhere, without descriptions or for goals that no rule
    knows, stay as they are.
    """
    labelled: list[dict[str, Any]] = []
    for _, group in groupby(samples, key=lambda sample: (sample.get("task"), sample["episode"])):
        episode = [dict(sample) for sample in group]
        if not (can_describe(str(episode[0]["goal"])) and all(sample["scene"] for sample in episode)):
            labelled += episode
            continue
        number = {sample["step"]: index for index, sample in enumerate(episode)}
        scenes = [str(sample["scene"]) for sample in episode]
        after = {style: spatial_memories(str(episode[0]["goal"]), scenes, style) for style in _STYLES}
        for index, sample in enumerate(episode):
            earlier = number.get(sample["step"] - CALL_EVERY)
            pairs = {
                f"spatial_{style}": [INITIAL_SPATIAL_MEMORY if earlier is None else texts[earlier], texts[index]]
                for style, texts in after.items()
            }
            labelled.append({**sample, **pairs})
    return labelled


def training_turn(
    config: MemoryConfig, sample: Mapping[str, Any], vary: Vary | None = None
) -> tuple[HighLevelRequest, str]:
    """The request and the reply for one line of a data set's `high_level/samples.jsonl`.

    The request comes from `build_memory(config)`, so training and rollout cannot drift apart. The memory shown is the
    one that the call before left behind (report, section 4.3); a policy without action memory answers with the subgoal
    alone. A history is that of the episode's steps; the policy's own one also tells attempts that failed, and not what
    no call saw (`chains.turns` has it). One with spatial memory needs samples `with_spatial_memories`. `vary` changes
    both kinds of memory, one after the other. Raises MemrtError for subgoals that the labels cannot word, and for a
    memory of pictures.
    """
    if config.kind == "keyframes":
        raise MemrtError(
            "training turns",
            expected="a memory of words: memoryless, history or language",
            found="`kind: keyframes`",
            fix="take the turns of whole episodes: memrt.train.labels.chains",
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
    spatial_before, spatial_after = _spatial(sample, config.subgoal_style) if config.spatial else ("", None)
    if vary is not None:
        before, after = vary(before, after)
        if spatial_after is not None:
            spatial_before, spatial_after = vary(spatial_before, spatial_after)
    request = memory.request(replace(state, action_memory=before, spatial_memory=spatial_before), goal)
    return request, format_reply(Reply(current, after, spatial_after))


def _spatial(sample: Mapping[str, Any], style: Style) -> tuple[str, str]:
    pair = sample.get(f"spatial_{style}")
    if pair is None:
        raise MemrtError(
            "training turns with spatial memory",
            expected=f"samples with `spatial_{style}`, from with_spatial_memories",
            found="a sample without",
            fix="leave out episodes recorded elsewhere, or have them worded: memrt train sft --generator endpoint",
        )
    before, after = pair
    return str(before), str(after)
