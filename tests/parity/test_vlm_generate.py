"""Exported VLMs of both families answer as transformers' own `generate` does, from camera pixels to text.

transformers' side uses its image processor, its chat template and its model; nothing of it passes through our code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import tiny_vlms as tiny
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from memrt.calib.chats import Chat
from memrt.export.high_level_export import engine_answers, torch_answers
from memrt.export.vlm_graphs import export_vlm
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_config import read_vlm_config
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import Engine, TensorSpec

SQUARE, STACKED = (256, 256), (320, 360)  # one view; two views above each other
CAPACITY = 2048
BUDGET = 12
TOLERANCE = 1e-4  # largest difference of logits, which reach three and more
SYSTEM = "You are a helpful assistant."

Array = NDArray[Any]


class Listening:
    """An engine whose logits are kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.logits = engine, list[Array]()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._engine.run(feeds)
        self.logits.append(outputs["logits"][0].copy())
        return outputs

    def close(self) -> None:
        self._engine.close()


@dataclass(frozen=True)
class Exported:
    """One family: its checkpoint, the exported folder, and its engines, opened once."""

    family: str
    checkpoint: Path
    folder: Path
    engines: dict[str, Any] = field(default_factory=dict)

    def session(self, embedding_type: type = np.float32) -> tuple[VlmSession, Listening]:
        """A new session with empty caches."""
        config = read_vlm_config(self.folder / "config.json")
        graphs = [config.vision_graph(size) for size in config.image_sizes]
        for name in (*graphs, "decoder"):
            self.engines.setdefault(name, open_engine(self.folder / f"{name}.onnx"))
        decoder = Listening(self.engines["decoder"])
        vision = {name: self.engines[name] for name in graphs}
        words = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        embedding = np.load(self.folder / "embed.npy").astype(embedding_type)
        # A run per token: logits are compared one by one.
        return VlmSession(config, words, embedding, vision, decoder, drafts=False), decoder


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp(request.param)
    checkpoint = tiny.write_checkpoint(request.param, root / "checkpoint")
    export_vlm(checkpoint, None, root / "hl", capacity=CAPACITY, image_sizes=[SQUARE, STACKED])
    return Exported(request.param, checkpoint, root / "hl")


def question(pictures: int) -> str:
    """A user turn with `pictures` images between words."""
    return "The task goal is: pick up the red cube\n" + "".join(
        f"frame {number}: <image>\n" for number in range(pictures)
    )


def mixed(count: int, first: int = 0) -> list[NDArray[np.uint8]]:
    """`count` frames, every third of them stacked views."""
    return [tiny.picture(first + n, *(STACKED if n % 3 == 1 else SQUARE)) for n in range(count)]


def transformers_answer(
    exported: Exported, user: str, pictures: Sequence[NDArray[np.uint8]]
) -> tuple[list[int], NDArray[np.float32]]:
    """New token ids, the stop token included, and the logits of every step fp32 [steps, vocabulary]."""
    words = AutoTokenizer.from_pretrained(str(exported.checkpoint))
    features = Qwen2VLImageProcessorPil.from_pretrained(str(exported.checkpoint))(images=pictures, return_tensors="pt")
    content: list[dict[str, str]] = []
    for number, text in enumerate(user.split("<image>")):
        content += [{"type": "image"}] if number else []
        content += [{"type": "text", "text": text}]
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    prompt = words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    pieces = prompt.split("<|image_pad|>")
    counts = [int(grid.prod()) // 4 for grid in features["image_grid_thw"]]
    prompt = pieces[0] + "".join(
        "<|image_pad|>" * count + piece for count, piece in zip(counts, pieces[1:], strict=True)
    )
    ids = words(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    model = tiny.model(exported.family)
    stops = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    with torch.no_grad():
        result = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            pixel_values=features["pixel_values"],
            image_grid_thw=features["image_grid_thw"],
            max_new_tokens=BUDGET,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[1],
            output_logits=True,
            return_dict_in_generate=True,
        )
    return result.sequences[0, ids.shape[1] :].tolist(), torch.cat(result.logits).float().numpy()


def check(
    exported: Exported, answer: Generation, heard: Listening, user: str, pictures: Sequence[Any]
) -> NDArray[np.float32]:
    """`answer`, with the logits `heard` since they were last cleared, is what transformers says; returns its logits."""
    ids, logits = transformers_answer(exported, user, pictures)
    ours = np.stack(heard.logits)
    assert ours.argmax(-1).tolist() == ids
    assert np.abs(ours - logits).max() <= TOLERANCE
    stopped = ids[-1] in {tiny.tokenizer().token_to_id(stop) for stop in ("<|im_end|>", "<|endoftext|>")}
    assert answer.stopped == stopped
    assert answer.text == tiny.tokenizer().decode(ids[: len(ids) - stopped], skip_special_tokens=False)
    heard.logits.clear()
    return logits


@pytest.mark.parametrize("count", [1, 8, 16])
def test_text_and_logits_are_those_of_transformers(exported: Exported, count: int) -> None:
    session, heard = exported.session()
    user, pictures = question(count), mixed(count)
    answer = session.generate(SYSTEM, user, pictures, BUDGET)
    assert answer.reused_tokens == 0
    check(exported, answer, heard, user, pictures)


def test_reused_rows_change_nothing(exported: Exported) -> None:
    """A longer prompt on the same start, then one of equal length with other images, then the first again."""
    session, heard = exported.session()
    pictures = mixed(8)
    session.generate(SYSTEM, question(7), pictures[:7], BUDGET)
    heard.logits.clear()
    longer = session.generate(SYSTEM, question(8), pictures, BUDGET)
    assert longer.reused_tokens > longer.prompt_tokens // 2
    first = check(exported, longer, heard, question(8), pictures)
    others = [tiny.picture(100 + n, *p.shape[:2]) if n >= 2 else p for n, p in enumerate(pictures)]
    changed = session.generate(SYSTEM, question(8), others, BUDGET)
    assert changed.prompt_tokens == longer.prompt_tokens
    assert 0 < changed.reused_tokens < longer.prompt_tokens // 2
    second = check(exported, changed, heard, question(8), others)
    assert np.abs(first[0] - second[0]).max() > 100 * TOLERANCE  # the images weigh in the answer
    swapped = [pictures[1], pictures[0], *pictures[2:]]  # the same ids in number, another grid at each place
    answer = session.generate(SYSTEM, question(8), swapped, BUDGET)
    assert answer.prompt_tokens == longer.prompt_tokens
    check(exported, answer, heard, question(8), swapped)


def test_recorded_answers_are_compared_with_transformers_in_both_families(exported: Exported) -> None:
    """What the gate of an export compares, on frames that the image processor resizes."""
    words = ("pick up", "the red cube", "place it", "press the button", "for the second time")
    recorded = [
        Chat((tiny.picture(n, *STACKED),), SYSTEM, question(1), " ".join(words[(n + k) % 5] for k in range(3)))
        for n in range(3)
    ]
    expected = torch_answers(tiny.model(exported.family), exported.folder, recorded)
    found = engine_answers(exported.folder, recorded)
    assert [answer.tolist() for answer in found] == [answer.tolist() for answer in expected]
    assert len({int(token) for answer in expected for token in answer}) > 3


def test_a_frame_without_an_engine_is_refused(exported: Exported) -> None:
    session, _ = exported.session()
    with pytest.raises(MemrtError, match=r"camera image: expected .* pixels or .* pixels, found 480x6"):
        session.generate(SYSTEM, question(1), [tiny.picture(0, 480, 640)], BUDGET)


def test_an_fp16_embedding_table_is_the_same_table_rounded(exported: Exported) -> None:
    pictures = mixed(2)
    session, heard = exported.session(np.float16)
    answer = session.generate(SYSTEM, question(2), pictures, BUDGET)
    half = np.stack(heard.logits)
    table = tiny.model(exported.family).model.language_model.embed_tokens
    exact = table.weight.detach().clone()
    with torch.no_grad():
        table.weight = torch.nn.Parameter(exact.half().float())  # the head keeps its own weights
    try:
        check(exported, answer, heard, question(2), pictures)
    finally:
        table.weight = torch.nn.Parameter(exact)
    full, also_heard = exported.session()
    full.generate(SYSTEM, question(2), pictures, BUDGET)
    assert not np.array_equal(half[0], also_heard.logits[0])
