"""The high-level policy: memory asks, the VLM answers, memory takes the answer in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_qwen as tiny

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import Frame, Observation

GOAL = "pick up the red cube and place it on the target, then press the button to stop"


@pytest.fixture
def policy(exported: Path) -> HighLevelPolicy:
    return HighLevelPolicy.from_folder(load_policy("am_grounded"), exported)


def _observation(camera: str = "front", seed: int = 0) -> Observation:
    return Observation(5, np.zeros(8), {camera: Frame(camera, 1, 5, tiny.image(seed))})


def test_a_call_asks_what_memory_asks_and_returns_what_memory_makes_of_it(
    policy: HighLevelPolicy, exported: Path
) -> None:
    state = replace(policy.initial(), goal=GOAL)
    result = policy.call(GOAL, _observation(), policy.initial())
    request = policy.memory.request(state, GOAL)
    alone = VlmSession.from_folder(exported).generate(request.system, request.user, [tiny.image(0)], 128)
    assert result.reply == alone.text
    assert result.new_tokens == alone.new_tokens > 0
    update = policy.memory.update(state, alone.text, GOAL)
    assert (result.state, result.subgoal, result.held) == (update.state, update.subgoal, update.held)


def test_calls_do_not_depend_on_the_calls_before(policy: HighLevelPolicy) -> None:
    first = policy.call(GOAL, _observation(seed=1), policy.initial())
    policy.call(GOAL, _observation(seed=2), first.state)
    again = policy.call(GOAL, _observation(seed=1), policy.initial())
    assert again.reply == first.reply
    assert again.state == first.state


def test_an_episodes_bits_do_not_depend_on_what_ran_before(policy: HighLevelPolicy, exported: Path) -> None:
    """K/V rows kept from another episode would be right up to rounding; the start of an episode drops them."""
    decoder = policy._session._decoder
    heard: list[bytes] = []

    class Hearing:
        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            outputs = decoder.run(feeds)
            heard.append(outputs["logits"].tobytes())
            return outputs

    policy._session._decoder = Hearing()  # type: ignore[assignment]

    def episode(seeds: Sequence[int]) -> list[bytes]:
        heard.clear()
        state, reused = policy.initial(), []
        for seed in seeds:
            result = policy.call(GOAL, _observation(seed=seed), state)
            state = result.state
            reused.append(result.reused_tokens)
        assert reused[0] == 0
        assert all(reused[1:])  # within an episode, what two calls share is computed once
        return list(heard)

    alone = episode([1, 2, 3])
    episode([1, 4])
    seen = policy._session._encoder.frames
    assert episode([1, 2, 3]) == alone
    assert policy._session._encoder.frames == seen  # vision features were kept: they come back bit for bit


def test_a_missing_camera_is_refused(policy: HighLevelPolicy) -> None:
    with pytest.raises(MemrtError, match="front"):
        policy.call(GOAL, _observation("wrist"), policy.initial())


def test_a_history_that_outgrew_the_context_loses_its_oldest_entries(exported: Path) -> None:
    policy = HighLevelPolicy.from_folder(load_policy("subgoal_simple"), exported)
    history = tuple(f"pick up the red cube, place {number}" for number in range(120))
    state = replace(policy.initial(), history=history, subgoal=history[-1], goal=GOAL)
    result = policy.call(GOAL, _observation(), state)
    left_out = result.counts["subgoals left out"]
    assert 0 < left_out < len(history)
    assert result.state.history_dropped == left_out
    assert f"are: {left_out + 1}. {history[left_out]};" in result.request.user  # the numbering goes on


def test_a_goal_that_leaves_no_room_is_refused(exported: Path) -> None:
    policy = HighLevelPolicy.from_folder(load_policy("subgoal_simple"), exported)
    state = replace(policy.initial(), history=("pick up the red cube",), subgoal="pick up the red cube")
    with pytest.raises(MemrtError, match="prompt too long"):
        policy.call("pick up the red cube and place it " * 200, _observation(), state)
