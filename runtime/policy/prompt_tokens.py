"""Prompt text to token ids of a low-level policy; the only place that knows how its tokenizer is driven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.preprocess import format_prompt


class PromptTokens:
    """A tokenizer.json, the token every prompt begins with, and the longest prompt the policy was built for."""

    def __init__(self, tokenizer: Tokenizer, bos_token: str, max_token_len: int) -> None:
        """Raises MemrtError when the tokenizer has no `bos_token`."""
        bos = tokenizer.token_to_id(bos_token)
        if bos is None:
            raise MemrtError(
                "low-level tokenizer",
                expected=f"a token {bos_token}",
                found="none in tokenizer.json",
                fix="use the tokenizer.json that belongs to the weights",
            )
        self._tokenizer = tokenizer
        self._bos = int(bos)
        self._limit = max_token_len

    @classmethod
    def open(cls, path: str | Path, bos_token: str, max_token_len: int) -> PromptTokens:
        """Read a tokenizer.json."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception for every kind of unreadable file
            raise MemrtError(
                f"low-level tokenizer {path}",
                expected="a tokenizer.json",
                found=error,
                fix="use the tokenizer.json that belongs to the weights",
            ) from error
        return cls(tokenizer, bos_token, max_token_len)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Ids int64 [tokens] of a formatted prompt, BOS first, nothing padded and nothing cut."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.array([self._bos, *ids], dtype=np.int64)

    def prompt(
        self, template: str, *, goal: str, subgoal: str, state: NDArray[np.int64], lower_case: bool
    ) -> NDArray[np.int64]:
        """Ids of a policy's template, at most `max_token_len`.

        A subgoal too long for the policy loses its last words. Cutting the prompt's end instead, as padding to a
        fixed length would, takes away the proprioception, and the arm would move from a place it is not in. Raises
        MemrtError when the template, the goal and the state alone are too long.
        """
        words = subgoal.split()
        while True:
            text = format_prompt(template, goal=goal, subgoal=" ".join(words), state=state, lower_case=lower_case)
            ids = self.encode(text)
            if len(ids) <= self._limit:
                return ids
            if not words:
                raise MemrtError(
                    "low-level prompt",
                    expected=f"at most {self._limit} tokens",
                    found=f"{len(ids)} without any subgoal",
                    fix="shorten the goal, or raise low_level.max_token_len to what the policy was trained with",
                )
            words.pop()
