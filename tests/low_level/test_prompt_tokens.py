from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.train.low_level_tokenizer import BOS, FIRST_NUMBER, build_tokenizer, initialise_embedding
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05

TEXTS = ["pick up the red cube <120, 88> for the first time"]
TEMPLATE = "Task: {subgoal}, State: {state};\nAction: "


@pytest.fixture
def tokenizer() -> Tokenizer:
    return build_tokenizer(TEXTS)


def test_every_prompt_begins_with_bos(tokenizer: Tokenizer) -> None:
    ids = PromptTokens(tokenizer, BOS, 64).encode("pick up")
    assert ids.tolist() == [tokenizer.token_to_id(token) for token in (BOS, "pick", "up")]


def test_integers_are_single_tokens_in_order(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("0 1 128 255").ids
    assert ids == [FIRST_NUMBER, FIRST_NUMBER + 1, FIRST_NUMBER + 128, FIRST_NUMBER + 255]


def test_the_order_of_texts_does_not_matter() -> None:
    texts = ["press the button", "place the cube", "pick up"]
    assert build_tokenizer(texts).to_str() == build_tokenizer(reversed(texts)).to_str()


def test_nothing_of_a_policys_prompt_is_unknown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"task: {TEXTS[0]}, state: 3 4;\naction: ").ids
    assert tokenizer.token_to_id("<unk>") not in ids


@pytest.mark.parametrize("limit", [40, 24, 20, 16])
def test_a_long_subgoal_loses_its_last_words_and_the_state_stays(tokenizer: Tokenizer, limit: int) -> None:
    tokens = PromptTokens(tokenizer, BOS, limit)
    ids = tokens.prompt(TEMPLATE, goal="", subgoal=TEXTS[0], state=np.array([7, 8, 9]), lower_case=True)
    text = [tokenizer.id_to_token(int(i)) for i in ids]
    assert len(ids) <= limit
    assert [word.lower() for word in text[-7:]] == ["7", "8", "9", ";", "\n", "<unk>", ":"]
    assert text[3] == "pick"


def test_a_prompt_that_cannot_be_shortened_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(MemrtError, match="at most 5 tokens"):
        PromptTokens(tokenizer, BOS, 5).prompt(
            TEMPLATE, goal="", subgoal="pick", state=np.array([1, 2]), lower_case=True
        )


def test_a_tokenizer_without_bos_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(MemrtError, match="a token <start>"):
        PromptTokens(tokenizer, "<start>", 64)


def test_number_embeddings_begin_as_a_smooth_code(tokenizer: Tokenizer) -> None:
    model = Pi05(tiny(tokenizer.get_vocab_size()))
    initialise_embedding(model)
    with torch.no_grad():
        code = model.language_model.embed(torch.arange(FIRST_NUMBER, FIRST_NUMBER + 256))
    distance = torch.cdist(code, code)
    assert float(distance.diagonal(1).max()) < float(distance.diagonal(16).min())
    torch.testing.assert_close(code.square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0.0)
