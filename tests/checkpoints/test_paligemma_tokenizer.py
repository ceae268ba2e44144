"""A SentencePiece model and its tokenizer.json must give the same ids for every text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

sentencepiece = pytest.importorskip("sentencepiece")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from memrt.export.checkpoints.paligemma_tokenizer import convert_sentencepiece, pi05_tokenizer  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.policy.prompt_tokens import PromptTokens  # noqa: E402
from memrt.train.task_language import corpus  # noqa: E402

# PaliGemma's own settings, but for the size.
PALIGEMMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "pad_piece": "<pad>",
    "eos_piece": "<eos>",
    "bos_piece": "<bos>",
}
VARIANTS = {
    "paligemma": {"user_defined_symbols": ["<loc0001>", "\n", "\n\n", "▁▁", "▁▁▁", "<b>", "aa"]},
    "no symbols": {},
    "dummy prefix": {"add_dummy_prefix": True},
    "no bytes": {"byte_fallback": False},
}
PARTS = ("pick", " the", "red", "  ", "\n", "cube", "127", " 0", "<bos>", "<0x41>", "é", "抓", "a")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab aeot\n<>loc01,:;▁ ", max_size=60),
    st.lists(st.sampled_from(PARTS)).map("".join),
)


def train(**overrides: object) -> bytes:
    model = io.BytesIO()
    lines = [*corpus(), "aaaa abab baab", "Task: pick up the red cube, State: 12 255 0;\nAction: "] * 2
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **(PALIGEMMA | overrides),
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=list(VARIANTS))
def pair(request: pytest.FixtureRequest) -> tuple[object, Tokenizer]:
    model = train(**VARIANTS[request.param])
    content, bos = convert_sentencepiece(model, "test")
    assert bos == "<bos>"
    return sentencepiece.SentencePieceProcessor(model_proto=model), Tokenizer.from_str(content.decode())


def test_gives_the_same_ids_for_every_text(pair: tuple) -> None:
    reference, converted = pair

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(TEXTS)
    def same(text: str) -> None:
        assert converted.encode(text, add_special_tokens=False).ids == reference.encode(text)

    same()


def test_gives_the_same_ids_for_the_corpus(pair: tuple) -> None:
    reference, converted = pair
    for line in corpus():
        ids = reference.encode(line)
        assert converted.encode(line, add_special_tokens=False).ids == ids
        if reference.unk_id() not in ids:
            assert converted.decode(ids) == reference.decode(ids) == line


def test_the_robot_drives_it_as_sentencepiece(tmp_path: Path) -> None:
    model = train(**VARIANTS["paligemma"])
    (tmp_path / "paligemma_tokenizer.model").write_bytes(model)
    content, bos = pi05_tokenizer(tmp_path, None, None, vocabulary=257152)
    (tmp_path / "tokenizer.json").write_bytes(content)
    prompt = "Task: pick up the red cube, State: 12 255 0;\nAction: "
    found = PromptTokens.open(tmp_path / "tokenizer.json", bos, 200).encode(prompt)
    assert found.tolist() == sentencepiece.SentencePieceProcessor(model_proto=model).encode(prompt, add_bos=True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_type": "unigram"}, "BPE"),
        ({"normalization_rule_name": "nfkc"}, "character map"),
        ({"remove_extra_whitespaces": True}, "spaces"),
        ({"add_dummy_prefix": True, "user_defined_symbols": ["<b>"]}, "dummy prefix"),
    ],
)
def test_refuses_what_it_cannot_convert_exactly(settings: dict, told: str) -> None:
    with pytest.raises(MemrtError, match=told):
        convert_sentencepiece(train(**settings), "test")


def test_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="neither"):
        pi05_tokenizer(tmp_path, None, None, 300)
    (tmp_path / "tokenizer.model").write_bytes(b"no model at all")
    with pytest.raises(MemrtError, match="SentencePiece model"):
        pi05_tokenizer(tmp_path, None, None, 300)
    (tmp_path / "tokenizer.model").write_bytes(train())
    with pytest.raises(MemrtError, match="ids below 300"):
        pi05_tokenizer(tmp_path, tmp_path / "tokenizer.model", None, 300)
    with pytest.raises(MemrtError, match="a token <start>"):
        pi05_tokenizer(tmp_path, tmp_path, "<start>", 3000)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MemrtError, match="readable"):
        pi05_tokenizer(tmp_path, None, None, 3000)
