"""Prompts with many images, as keyframe policies ask them: what a session keeps never changes what it says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_qwen as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memrt.export.bench.vlm import LastLogits
from memrt.export.target import load_target
from memrt.export.vlm_graphs import export_vlm
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.policy.chat import IMAGE_PAD, render_chat
from memrt.runtime.policy.frame_features import FrameEncoder, FrameFeatures, ShownImage, content_id
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_config import read_vlm_config
from memrt.runtime.policy.vlm_session import GPU_PREFILL_CHUNK, VlmSession

SQUARE, FLAT = (64, 64), (32, 128)  # four visual tokens each, as 2 x 2 and as 1 x 4
SYSTEM, BUDGET = "You are a helpful assistant.", 8
TOLERANCE = 1e-4  # largest difference of logits, which reach ten and more

Image = NDArray[np.uint8]


def frame(seed: int, shape: tuple[int, int] = SQUARE) -> Image:
    return tiny.image(seed)[: shape[0], : shape[1]]


def ask(keyframes: int, recent: int, goal: str = "pick up the red cube") -> str:
    return f"The task goal is: {goal}\nbefore: {'<image>' * keyframes}\nnow: {'<image>' * recent}\nWhat next?"


def image_starts(user: str, images: int) -> list[int]:
    """Where the visual tokens of each image begin in the prompt."""
    ids = tiny.tokenizer().encode(render_chat(SYSTEM, user, [4] * images), add_special_tokens=False).ids
    return [index for index, token in enumerate(ids) if token == tiny.tokenizer().token_to_id(IMAGE_PAD)][::4]


class CountingVision:
    """A vision engine that remembers the images it was given."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.seen = engine, list[Image]()

    def run(self, feeds: Mapping[str, Image]) -> dict[str, NDArray[Any]]:
        self.seen.append(feeds["image"])
        return dict(self._engine.run(feeds))


@dataclass
class Model:
    """The exported model; its engines are opened once."""

    folder: Path
    engines: dict[str, Any] = field(default_factory=dict)

    def session(self, **options: Any) -> tuple[VlmSession, LastLogits, dict[str, CountingVision]]:
        config = read_vlm_config(self.folder / "config.json")
        graphs = [config.vision_graph(size) for size in config.image_sizes]
        for name in (*graphs, "decoder"):
            self.engines.setdefault(name, open_engine(self.folder / f"{name}.onnx"))
        vision = {name: CountingVision(self.engines[name]) for name in graphs}
        decoder = LastLogits(self.engines["decoder"])
        table = np.load(self.folder / "embed.npy")
        options = {"drafts": False, **options}  # a run per token: logits are compared one by one
        return VlmSession(config, tiny.tokenizer(), table, vision, decoder, **options), decoder, vision

    @functools.cache  # noqa: B019  # one model for the module
    def fresh(self, user: str, seeds: tuple[int, ...]) -> tuple[Generation, NDArray[np.float32]]:
        """The answer of a session that has seen nothing, and its logits [steps, vocabulary]."""
        session, decoder, _ = self.session()
        answer = session.generate(SYSTEM, user, [frame(seed) for seed in seeds], BUDGET)
        return answer, np.stack(decoder.logits)

    def __hash__(self) -> int:
        return hash(self.folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Model:
    folder = tmp_path_factory.mktemp("many") / "hl"
    export_vlm(checkpoint, None, folder, capacity=320, image_sizes=[SQUARE, FLAT])
    return Model(folder)


@dataclass(frozen=True)
class Call:
    """A keyframe policy's call: which frames it shows."""

    keyframes: tuple[int, ...]
    recent: tuple[int, ...]

    @property
    def shown(self) -> tuple[int, ...]:
        return self.keyframes + self.recent

    @property
    def user(self) -> str:
        return ask(len(self.keyframes), len(self.recent))


def episode(calls: int) -> list[Call]:
    """Calls once per second on frames three to the second: three new recent frames each, now and then a keyframe."""
    keyframes, made = [], []
    for call in range(calls):
        recent = tuple(range(3 * call, 3 * call + 8))
        made.append(Call(tuple(keyframes[-8:]), recent))
        if call % 2:
            keyframes.append(recent[call % 3])  # leaves the recent frames by the next call
    return made


def same(found: LastLogits, expected: NDArray[np.float32]) -> None:
    logits = np.stack(found.logits)
    assert logits.argmax(-1).tolist() == expected.argmax(-1).tolist()
    assert np.abs(logits - expected).max() <= TOLERANCE


def test_every_frame_of_an_episode_passes_the_vision_engine_once(model: Model) -> None:
    session, decoder, vision = model.session()
    calls = episode(12)
    said = set()
    for number, call in enumerate(calls):
        decoder.logits.clear()
        answer = session.generate(SYSTEM, call.user, [frame(seed) for seed in call.shown], BUDGET)
        fresh, logits = model.fresh(call.user, call.shown)
        same(decoder, logits)
        assert (answer.text, answer.prompt_tokens) == (fresh.text, fresh.prompt_tokens)
        assert (answer.reused_tokens > 0) == (number > 0)
        said.add(answer.text)
    assert len(vision["vision_64x64"].seen) == len({seed for call in calls for seed in call.shown})
    assert len(calls[-1].shown) > 12
    assert len(said) > len(calls) // 2  # the answers depend on the frames


def test_without_reuse_nothing_is_kept(model: Model) -> None:
    session, decoder, vision = model.session(reuse=False)
    call = episode(3)[2]
    for count in (1, 2):
        decoder.logits.clear()
        answer = session.generate(SYSTEM, call.user, [frame(seed) for seed in call.shown], BUDGET)
        fresh, logits = model.fresh(call.user, call.shown)
        same(decoder, logits)
        assert (answer.text, answer.reused_tokens) == (fresh.text, 0)
        assert len(vision["vision_64x64"].seen) == count * len(call.shown)


def test_equal_lengths_and_other_images_share_no_row_from_the_image_on(model: Model) -> None:
    session, decoder, _ = model.session()
    first = session.generate(SYSTEM, ask(2, 2), [frame(seed) for seed in (1, 2, 3, 4)], BUDGET)
    decoder.logits.clear()
    other = session.generate(SYSTEM, ask(2, 2), [frame(seed) for seed in (1, 5, 3, 4)], BUDGET)
    fresh, logits = model.fresh(ask(2, 2), (1, 5, 3, 4))
    same(decoder, logits)
    assert first.prompt_tokens == other.prompt_tokens == fresh.prompt_tokens
    assert other.reused_tokens == image_starts(ask(2, 2), 4)[1]


def test_one_content_in_another_grid_shares_no_row(model: Model) -> None:
    """Even if the features were the same numbers: the first visual token has equal positions in both grids."""
    session, decoder, _ = model.session()
    square = session.features(frame(1))
    sizes = {size.grid: size for size in session.config.image_sizes}
    flat = FrameFeatures(square.content, sizes[1, 4], square.tokens, square.deepstack)
    session.generate(SYSTEM, ask(0, 2), [square, frame(2)], BUDGET)
    decoder.logits.clear()
    answer = session.generate(SYSTEM, ask(0, 2), [flat, frame(2)], BUDGET)
    alone, alone_decoder, _ = model.session()
    expected = alone.generate(SYSTEM, ask(0, 2), [flat, frame(2)], BUDGET)
    assert answer.text == expected.text
    same(decoder, np.stack(alone_decoder.logits))
    assert answer.reused_tokens == image_starts(ask(0, 2), 2)[0]


@pytest.mark.parametrize("chunk", [1, 3, 16, 64])
def test_chunks_bound_a_run_and_change_nothing(model: Model, chunk: int) -> None:
    session, decoder, _ = model.session(prefill_chunk=chunk)
    rows: list[int] = []
    run = decoder.run

    def noting(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows.append(len(feeds["embeddings"]))
        return run(feeds)

    decoder.run = noting  # type: ignore[method-assign]
    for call in episode(4)[1::2]:
        rows.clear()
        decoder.logits.clear()
        answer = session.generate(SYSTEM, call.user, [frame(seed) for seed in call.shown], BUDGET)
        fresh, logits = model.fresh(call.user, call.shown)
        runs = -(-(answer.prompt_tokens - answer.reused_tokens) // chunk)
        assert max(rows) <= chunk
        assert rows[runs:] == [1] * (len(rows) - runs)
        assert sum(rows[:runs]) == answer.prompt_tokens - answer.reused_tokens
        del decoder.logits[: runs - 1]  # the last run of the prompt gives the answer's first token
        same(decoder, logits)
        assert answer.text == fresh.text


def test_a_chunk_of_nothing_is_refused(model: Model) -> None:
    with pytest.raises(MemrtError, match="prefill chunk: expected at least 1 token"):
        model.session(prefill_chunk=0)


@pytest.mark.parametrize("target", ["rtx", "orin", "thor", "h200"])
def test_engines_of_every_gpu_target_have_kernels_for_a_chunk(target: str) -> None:
    build = load_target(target).build
    assert build is not None
    assert GPU_PREFILL_CHUNK in build.decoder_lengths


def after(asks: int) -> Callable[[], bool]:
    """Says so at its `asks`-th question and ever after."""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked >= asks

    return cancelled


def test_a_call_ends_before_the_next_run_of_an_engine(model: Model) -> None:
    session, decoder, vision = model.session(prefill_chunk=10)
    images = [frame(seed) for seed in range(4)]
    with pytest.raises(Cancelled):
        session.generate(SYSTEM, ask(0, 4), images, BUDGET, cancelled=after(3))
    assert (len(vision["vision_64x64"].seen), len(decoder.logits)) == (2, 0)
    with pytest.raises(Cancelled):
        session.generate(SYSTEM, ask(0, 4), images, BUDGET, cancelled=after(4 + 3))
    assert (len(vision["vision_64x64"].seen), len(decoder.logits)) == (4, 2)
    answer = session.generate(SYSTEM, ask(0, 4), images, BUDGET, cancelled=lambda: False)
    assert answer.reused_tokens == 20  # two chunks
    assert answer.text == model.fresh(ask(0, 4), (0, 1, 2, 3))[0].text


def test_a_prompt_read_ahead_is_not_read_again(model: Model) -> None:
    session, decoder, vision = model.session(prefill_chunk=16)
    for call in episode(6):
        images = [frame(seed) for seed in call.shown]
        known = len(images) - 1
        ready = session.read_ahead(SYSTEM, call.user, images[:known])
        assert ready == image_starts(call.user, len(images))[known] - 1  # up to the tag before the next image
        seen = len(vision["vision_64x64"].seen)
        decoder.logits.clear()
        answer = session.generate(SYSTEM, call.user, images, BUDGET)
        assert answer.reused_tokens == ready
        assert len(vision["vision_64x64"].seen) <= seen + 1
        fresh, logits = model.fresh(call.user, call.shown)
        del decoder.logits[: -len(logits)]
        same(decoder, logits)
        assert answer.text == fresh.text


REQUESTS = st.builds(
    lambda goal, seeds, keyframes: (
        ask(min(keyframes, len(seeds)), len(seeds) - min(keyframes, len(seeds)), goal),
        tuple(seeds),
    ),
    st.sampled_from(["pick up the red cube", "pick up the blue cube", "press the button"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(0, 2),
)


@settings(max_examples=25)
@given(
    calls=st.lists(st.tuples(REQUESTS, st.none() | st.integers(1, 24), st.booleans()), min_size=1, max_size=6),
    chunk=st.sampled_from([None, 1, 7, 32]),
)
def test_answers_are_those_of_a_fresh_session_whatever_was_cancelled_before(
    model: Model, calls: Sequence[tuple[tuple[str, tuple[int, ...]], int | None, bool]], chunk: int | None
) -> None:
    session, decoder, _ = model.session(prefill_chunk=chunk)
    for (user, seeds), cancel_at, ahead in calls:
        decoder.logits.clear()
        images = [frame(seed) for seed in seeds]
        expected, logits = model.fresh(user, seeds)
        cancelled = None if cancel_at is None else after(cancel_at)
        try:
            if ahead:
                session.read_ahead(SYSTEM, user, images[:-1], cancelled=cancelled)
            answer = session.generate(SYSTEM, user, images, BUDGET, cancelled=cancelled)
        except Cancelled:
            assert cancel_at is not None
            continue
        assert (answer.text, answer.stopped) == (expected.text, expected.stopped)
        del decoder.logits[: -len(logits)]
        same(decoder, logits)


def test_a_shown_frame_is_loaded_only_when_its_features_are_gone(model: Model) -> None:
    session, _, vision = model.session()
    loaded: list[int] = []

    def load() -> Image:
        loaded.append(1)
        return frame(7)

    shown = ShownImage(content_id(frame(7)), load)
    seen = session.features(frame(7))
    assert session.features(shown) is seen
    assert not loaded
    session.forget()
    found = session.features(shown)
    assert (len(loaded), len(vision["vision_64x64"].seen)) == (1, 2)
    assert np.array_equal(found.tokens, seen.tokens)
    session.forget()
    assert session.features(seen) is seen  # whoever kept the features needs no engine
    answer = session.generate(SYSTEM, ask(1, 1), [seen, frame(8)], BUDGET)
    assert answer.text == model.fresh(ask(1, 1), (7, 8))[0].text
    assert len(vision["vision_64x64"].seen) == 3


def test_the_features_used_longest_ago_go_first_and_bytes_are_bounded(model: Model) -> None:
    session, _, _ = model.session()
    config, engines = session.config, {n: CountingVision(e) for n, e in model.engines.items() if n != "decoder"}
    one = FrameEncoder(config, engines).features(frame(0)).nbytes  # type: ignore[arg-type]
    for bound in ({"max_frames": 3}, {"max_bytes": 3 * one + 1}):
        encoder = FrameEncoder(config, engines, **bound)  # type: ignore[arg-type]
        for seed in (0, 1, 2, 0, 3):  # 1 is now the one used longest ago
            encoder.features(frame(seed))
        assert (encoder.frames, encoder.nbytes) == (3, 3 * one)
        engines["vision_64x64"].seen.clear()
        for seed in (0, 2, 3):
            encoder.features(frame(seed))
        assert not engines["vision_64x64"].seen
        encoder.features(frame(1))
        assert len(engines["vision_64x64"].seen) == 1
    tight = FrameEncoder(config, engines, max_bytes=one - 1)  # type: ignore[arg-type]
    assert tight.features(frame(0)).nbytes == one
    assert (tight.frames, tight.nbytes) == (0, 0)


def test_the_shape_of_pixels_is_part_of_their_identity() -> None:
    picture = frame(3)
    assert content_id(picture) == content_id(picture.copy())
    assert content_id(picture) != content_id(picture.reshape((*FLAT, 3)))
    assert content_id(frame(4)) != content_id(picture)
