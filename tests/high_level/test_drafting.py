"""Answers drafted from the one before: the same words in fewer runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_qwen as tiny
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.drafting import FIRST, LONGEST, Draft
from memrt.runtime.policy.vlm_config import read_vlm_config
from memrt.runtime.policy.vlm_session import VlmSession

SYSTEM = "You are a helpful assistant."
ANSWERS = st.lists(st.integers(0, 5), max_size=120)


def write(before: list[int], answer: list[int]) -> list[int]:
    """Write `answer` as a session does, with a decoder that means exactly that; returns the drafts' lengths."""
    draft, written, lengths = Draft(before), list[int](), list[int]()
    while len(written) < len(answer):
        written.append(answer[len(written)])
        left = answer[len(written) :]
        drafted = draft.after(written[-1], len(left))
        assert len(drafted) <= min(len(left), LONGEST)
        written += drafted[: draft.judged(drafted, left)]
        lengths.append(len(drafted))
    assert written == answer
    return lengths


@given(ANSWERS, ANSWERS)
def test_any_answer_can_be_written_after_any_other(before: list[int], answer: list[int]) -> None:
    assert len(write(before, answer)) <= len(answer)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120))
def test_an_answer_that_comes_again_takes_few_runs(answer: list[int]) -> None:
    """Each draft is twice as long as the one before."""
    lengths = write(answer, answer)
    assert lengths[:-1] == [FIRST, 2 * FIRST, LONGEST, LONGEST, LONGEST][: len(lengths) - 1]


def words(text: str) -> list[int]:
    return [zlib.crc32(word.encode()) for word in text.split()]


@pytest.mark.parametrize(
    ("before", "answer", "runs"),
    [
        ("pick up the cube at 1 3 1 now . placed it once .", "pick up the cube at 1 3 2 now . placed it once .", 2),
        ("pick up the cube . placed it once .", "pick up the big red cube . placed it once .", 6),
        ("pick up the big red cube . placed it once .", "pick up the cube . placed it once .", 4),
    ],
    ids=["a word in place of another", "words more", "words less"],
)
def test_what_differs_by_a_few_words_takes_a_few_runs(before: str, answer: str, runs: int) -> None:
    assert len(write(words(before), words(answer))) <= runs


class Counted:
    """A decoder that counts its runs."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.runs = engine, 0
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.runs += 1
        return dict(self._engine.run(feeds))

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def sessions(exported: Path) -> dict[bool, tuple[VlmSession, Counted]]:
    """With drafts and without."""
    config, table = read_vlm_config(exported / "config.json"), np.load(exported / "embed.npy")
    vision = {name: open_engine(exported / f"{name}.onnx") for name in map(config.vision_graph, config.image_sizes)}
    decoder = open_engine(exported / "decoder.onnx")
    return {
        drafts: (VlmSession(config, tiny.tokenizer(), table, vision, counted, drafts=drafts), counted)
        for drafts, counted in ((True, Counted(decoder)), (False, Counted(decoder)))
    }


def answer(session: VlmSession, goal: str, seed: int, budget: int = 40) -> tuple[str, int, bool]:
    found = session.generate(SYSTEM, f"The task goal is: {goal}\n<image>What next?", [tiny.image(seed)], budget)
    return found.text, found.new_tokens, found.stopped


def test_drafts_change_no_answer_and_save_runs(sessions: dict[bool, tuple[VlmSession, Counted]]) -> None:
    calls = [("pick up the red cube", 1), ("pick up the red cube", 1), ("pick up the red cube", 2), ("press", 3)]
    said: dict[bool, list[Any]] = {}
    runs: dict[bool, list[int]] = {True: [], False: []}
    for drafts, (session, counted) in sessions.items():
        said[drafts] = []
        for goal, seed in calls:
            counted.runs = 0
            said[drafts].append(answer(session, goal, seed))
            runs[drafts].append(counted.runs)
    assert said[True] == said[False]
    assert runs[True][0] == runs[False][0]  # nothing was said before
    assert runs[True][1] <= runs[False][1] - 30  # the same question again


def test_a_draft_never_writes_more_than_was_asked_for(sessions: dict[bool, tuple[VlmSession, Counted]]) -> None:
    session, _ = sessions[True]
    session.forget()
    whole, tokens, _ = answer(session, "press", 4)
    for budget in (1, 2, 3, tokens - 1):
        text, count, stopped = answer(session, "press", 4, budget)
        assert whole.startswith(text)
        assert (count, stopped) == (budget, False)


def test_what_is_forgotten_is_no_draft(sessions: dict[bool, tuple[VlmSession, Counted]]) -> None:
    session, counted = sessions[True]
    counts = []
    for _ in range(2):
        session.forget_prefix()
        counted.runs = 0
        answer(session, "press", 5)
        counts.append(counted.runs)
    assert counts[0] == counts[1]


def test_a_prompt_without_room_for_its_answer_is_refused_draft_or_not(
    sessions: dict[bool, tuple[VlmSession, Counted]],
) -> None:
    for session, _ in sessions.values():
        with pytest.raises(MemrtError, match="prompt too long"):
            answer(session, "press", 5, session.config.capacity)
