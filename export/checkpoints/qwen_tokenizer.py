"""A Qwen checkpoint's tokenizer.json: as it is, or put together from vocab.json and merges.txt."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from memrt.runtime.errors import MemrtError
from memrt.train.text_tokenizer import CONTROL_TOKENS, PRETOKENIZE

TOKENIZER, VOCABULARY, MERGES, SETTINGS = "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"


def qwen_tokenizer(folder: Path) -> bytes:
    """The content of tokenizer.json. Raises MemrtError when the folder has neither form, or an unreadable one."""
    if (folder / TOKENIZER).is_file():
        content = (folder / TOKENIZER).read_bytes()
        try:
            Tokenizer.from_str(content.decode())
        except Exception as error:  # tokenizers raises bare Exception for every kind of unreadable file
            raise _refusal(folder, f"a readable {TOKENIZER}", error) from error
        return content
    if not ((folder / VOCABULARY).is_file() and (folder / MERGES).is_file()):
        raise _refusal(folder, f"{TOKENIZER}, or {VOCABULARY} and {MERGES}", "neither")
    return _build(folder).to_str().encode()


def _build(folder: Path) -> Tokenizer:
    """Qwen's byte-level BPE; the added tokens' ids are those of tokenizer_config.json, else they follow the words."""
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(folder / VOCABULARY), str(folder / MERGES)))
    except Exception as error:
        raise _refusal(folder, f"a readable {VOCABULARY} and {MERGES}", error) from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for number, token in sorted(_added(folder, tokenizer.get_vocab_size()).items()):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != number:
            raise _refusal(
                folder,
                f"{token.content} at id {number}, as {SETTINGS} says",
                f"id {tokenizer.token_to_id(token.content)}",
            )
    return tokenizer


def _added(folder: Path, first: int) -> dict[int, AddedToken]:
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) if (folder / SETTINGS).is_file() else {}
        tokens = settings.get("added_tokens_decoder") or {}
        if tokens:
            return {
                int(number): AddedToken(entry["content"], special=bool(entry.get("special", False)), normalized=False)
                for number, entry in tokens.items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refusal(folder, f"a readable {SETTINGS}", error) from error
    return {first + i: AddedToken(text, special=True, normalized=False) for i, text in enumerate(CONTROL_TOKENS)}


def _refusal(folder: Path, expected: object, found: object) -> MemrtError:
    return MemrtError(
        f"tokenizer in {folder}", expected=expected, found=found, fix="copy the checkpoint's tokenizer files again"
    )
