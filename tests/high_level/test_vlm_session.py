"""The session on exported graphs says what transformers says; caches change the time of a call, never its answer."""

from pathlib import Path

import numpy as np
import pytest
import tiny_qwen as tiny
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import render_chat
from memrt.runtime.policy.frame_features import MAX_FRAMES
from memrt.runtime.policy.vlm_session import VlmSession

SYSTEM = "You are a helpful assistant."
QUESTIONS = ["<image>Describe the scene.", "The task goal is: pick up the red cube\n<image>What next?", "Now <image>"]
BUDGET = 24


@pytest.fixture
def session(exported: Path) -> VlmSession:
    return VlmSession.from_folder(exported)


def count_vision_runs(session: VlmSession) -> list[NDArray[np.uint8]]:
    """The images that the session's vision engine is given from here on."""
    encoder, seen = session._encoder, []
    engine = encoder._engines["vision"]

    class Counting:
        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(feeds["image"])
            return engine.run(feeds)

    encoder._engines = {"vision": Counting()}  # type: ignore[dict-item]
    return seen


def _transformers_answer(user: str, *seeds: int) -> str:
    return tiny.transformers_answer(SYSTEM, user, seeds, BUDGET)


def test_greedy_text_matches_transformers(session: VlmSession) -> None:
    answers = []
    for seed, user in enumerate(QUESTIONS):
        answer = session.generate(SYSTEM, user, [tiny.image(seed)], BUDGET)
        assert answer.text == _transformers_answer(user, seed)
        answers.append(answer.text)
    assert len(set(answers)) == len(answers)  # the tiny model's answers depend on what it is asked


def test_reuse_gives_the_answer_of_a_cold_call(exported: Path, session: VlmSession) -> None:
    calls = [(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (1, 1)]  # (image, question): repeats and changes
    reused = []
    for seed, question in calls:
        warm = session.generate(SYSTEM, QUESTIONS[question], [tiny.image(seed)], BUDGET)
        cold = VlmSession.from_folder(exported).generate(SYSTEM, QUESTIONS[question], [tiny.image(seed)], BUDGET)
        assert cold.reused_tokens == 0
        assert warm.text == cold.text
        assert warm.prompt_tokens == cold.prompt_tokens
        reused.append(warm.reused_tokens)
    prompt = render_chat(SYSTEM, QUESTIONS[0], [64])
    before_image = len(tiny.tokenizer().encode(prompt[: prompt.index("<|image_pad|>")], add_special_tokens=False).ids)
    assert reused[1] == len(tiny.tokenizer().encode(prompt, add_special_tokens=False).ids) - 1  # all but the last
    assert reused[2] == before_image  # same ids, another frame: nothing from the image on may be reused
    assert 0 < reused[3] < before_image


def test_a_failed_call_leaves_a_usable_session(session: VlmSession) -> None:
    good = session.generate(SYSTEM, QUESTIONS[0], [tiny.image(0)], BUDGET)
    decoder = session._decoder

    class Failing:
        def run(self, feeds: object) -> dict[str, np.ndarray]:
            raise RuntimeError("engine failed")

    session._decoder = Failing()  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        session.generate(SYSTEM, QUESTIONS[1], [tiny.image(1)], BUDGET)
    session._decoder = decoder
    assert session.generate(SYSTEM, QUESTIONS[0], [tiny.image(0)], BUDGET).text == good.text


def test_frames_are_seen_once_and_kept_within_bounds(session: VlmSession) -> None:
    seen = count_vision_runs(session)
    for _ in range(3):
        session.generate(SYSTEM, QUESTIONS[0], [tiny.image(5)], 1)
    assert len(seen) == 1
    for seed in range(MAX_FRAMES + 3):
        session.features(tiny.image(100 + seed))
    assert session._encoder.frames == MAX_FRAMES


def test_the_token_budget_ends_a_reply(session: VlmSession) -> None:
    answer = session.generate(SYSTEM, QUESTIONS[1], [tiny.image(1)], 3)
    assert answer.new_tokens <= 3
    long = session.generate(SYSTEM, QUESTIONS[1], [tiny.image(1)], BUDGET)
    assert long.text.startswith(answer.text)


def test_two_images_in_one_prompt(session: VlmSession) -> None:
    user = "Before <image> and after <image> the call."
    answer = session.generate(SYSTEM, user, [tiny.image(3), tiny.image(4)], BUDGET)
    assert answer.text == _transformers_answer(user, 3, 4)
    swapped = session.generate(SYSTEM, user, [tiny.image(4), tiny.image(3)], BUDGET)
    assert swapped.text == _transformers_answer(user, 4, 3)
    assert swapped.reused_tokens < 64


@pytest.mark.parametrize("shape", [(128, 128, 3), (256, 256, 4)])
def test_images_of_another_shape_are_refused(session: VlmSession, shape: tuple[int, ...]) -> None:
    with pytest.raises(MemrtError, match="camera image"):
        session.generate(SYSTEM, QUESTIONS[0], [np.zeros(shape, np.uint8)], BUDGET)


def test_a_prompt_beyond_the_cache_is_refused(session: VlmSession) -> None:
    with pytest.raises(MemrtError, match="prompt too long"):
        session.generate(SYSTEM, "<image>" + "cube " * 400, [tiny.image(0)], BUDGET)
