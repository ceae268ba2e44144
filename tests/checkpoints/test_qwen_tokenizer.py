from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

pytest.importorskip("transformers")

from memrt.export.checkpoints.qwen_tokenizer import qwen_tokenizer
from memrt.runtime.errors import MemrtError
from memrt.train.task_language import corpus
from memrt.train.text_tokenizer import CONTROL_TOKENS, reference_tokenizer

TEXTS = ["<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>pick 12 cubes<|im_end|>\n", "él抓\t  x\n\n"]


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    return reference_tokenizer()


@pytest.fixture
def old_layout(reference: Tokenizer, tmp_path: Path) -> Path:
    """vocab.json and merges.txt, as Qwen publishes them beside tokenizer.json."""
    model = json.loads(reference.to_str())["model"]
    words = {token: number for token, number in model["vocab"].items() if token not in CONTROL_TOKENS}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return tmp_path


def test_takes_tokenizer_json_as_it_is(reference: Tokenizer, tmp_path: Path) -> None:
    content = reference.to_str(pretty=True).encode()
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert qwen_tokenizer(tmp_path) == content


@pytest.mark.parametrize("config", ["none", "with added tokens"])
def test_builds_the_same_tokenizer_from_vocabulary_and_merges(
    reference: Tokenizer, old_layout: Path, config: str
) -> None:
    if config != "none":
        added = {
            str(reference.token_to_id(token)): {"content": token, "special": True} for token in reversed(CONTROL_TOKENS)
        }
        (old_layout / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    built = Tokenizer.from_str(qwen_tokenizer(old_layout).decode())
    assert built.get_vocab() == reference.get_vocab()
    for text in [*TEXTS, *list(corpus())[:50]]:
        assert built.encode(text).ids == reference.encode(text).ids
        assert built.decode(built.encode(text).ids, skip_special_tokens=False) == text


def test_refuses_tokens_that_get_another_id(old_layout: Path) -> None:
    added = {"5000": {"content": "<|im_end|>", "special": True}}
    (old_layout / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(MemrtError, match=r"<\|im_end\|> at id 5000"):
        qwen_tokenizer(old_layout)


def test_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="neither"):
        qwen_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("[]")
    (tmp_path / "merges.txt").write_text("a b c d\n")
    with pytest.raises(MemrtError, match="readable vocab"):
        qwen_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(MemrtError, match="readable tokenizer"):
        qwen_tokenizer(tmp_path)
