"""π0.5's tokenizer.json: as a checkpoint brings it, or converted from PaliGemma's SentencePiece model.

The robot runs `tokenizers` only. SentencePiece's BPE joins, again and again, the neighbouring pair whose piece has the
best score; the same order written as ranked merges gives the same ids. Pieces marked "user defined" are cut out of
the text before any merging, as `tokenizers` does with added tokens. Control pieces such as `<bos>` are never found in
a text: they get an id in the vocabulary and nothing that could produce them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from memrt.runtime.errors import MemrtError

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = ("paligemma_tokenizer.model", "tokenizer.model")
BOS = "<bos>"
SPACE = "▁"  # SentencePiece's visible space


def pi05_tokenizer(folder: Path, given: Path | None, bos: str | None, vocabulary: int) -> tuple[bytes, str]:
    """tokenizer.json and BOS token for a network with `vocabulary` embeddings.

    Read from `given` (a file or a folder), else from the checkpoint `folder`. `bos` is the token that the
    checkpoint's configuration names, by default SentencePiece's own, or `<bos>`. Raises MemrtError when there is no
    tokenizer, no such token, or an id without an embedding.
    """
    path = _find(folder, given)
    if path.suffix == ".model":
        content, own_bos = convert_sentencepiece(path.read_bytes(), path)
    else:
        content, own_bos = path.read_bytes(), BOS
    bos = bos or own_bos
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises bare Exception for every kind of unreadable file
        raise _refusal(path, "a readable tokenizer.json", error) from error
    if tokenizer.token_to_id(bos) is None:
        raise _refusal(path, f"a token {bos}", "none")
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary:
        raise _refusal(path, f"ids below {vocabulary}, the rows of the embedding", f"id {largest}")
    return content, bos


def convert_sentencepiece(model: bytes, what: object) -> tuple[bytes, str]:
    """A SentencePiece BPE model to tokenizer.json and its BOS token.

    Raises MemrtError for what is not converted exactly: other algorithms, character maps, dropped spaces, unused
    pieces, user-defined pieces together with a dummy prefix.
    """
    proto = _parse(model, what)
    pieces, kind = proto.pieces, type(proto.pieces[0])
    normalizer, trainer = proto.normalizer_spec, proto.trainer_spec
    defined = [piece.piece for piece in pieces if piece.type == kind.USER_DEFINED]
    for exact, expected, found in (
        (trainer.model_type == trainer.BPE, "a BPE model, as PaliGemma's", "another algorithm"),
        (not normalizer.precompiled_charsmap, "the identity character map, as PaliGemma's", normalizer.name),
        (not trainer.treat_whitespace_as_suffix and normalizer.escape_whitespaces, "spaces before words", "after"),
        (not normalizer.remove_extra_whitespaces, "spaces kept as they are, as PaliGemma's", "extra ones removed"),
        (all(piece.type != kind.UNUSED for piece in pieces), "no unused pieces", "some"),
        (not (defined and normalizer.add_dummy_prefix), "no dummy prefix beside user-defined pieces", "both"),
    ):
        if not exact:
            raise _refusal(what, expected, found)
    vocabulary = {piece.piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges({piece.piece: piece.score for piece in pieces if piece.type == kind.NORMAL}),
            unk_token=next(piece.piece for piece in pieces if piece.type == kind.UNKNOWN),
            fuse_unk=True,
            byte_fallback=bool(trainer.byte_fallback),
        )
    )
    tokenizer.normalizer = _normalizer(normalizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if normalizer.add_dummy_prefix else [])
    )
    tokenizer.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in defined])
    bos = pieces[trainer.bos_id].piece if 0 <= trainer.bos_id < len(pieces) else BOS
    return (tokenizer.to_str() + "\n").encode(), bos


def _normalizer(settings: Any) -> normalizers.Normalizer:
    steps = [normalizers.Prepend(SPACE)] if settings.add_dummy_prefix else []
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, best piece first."""
    joins: list[tuple[float, int, str, str]] = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                joins.append((-score, len(joins), left, right))
    return [(left, right) for _, _, left, right in sorted(joins)]


def _parse(model: bytes, what: object) -> Any:
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise _refusal(what, "the package sentencepiece", error, "pip install memrt[export]") from error
    messages: Any = sentencepiece_model_pb2  # generated when it is imported
    try:
        proto = messages.ModelProto.FromString(model)
    except DecodeError as error:
        raise _refusal(what, "a SentencePiece model", error) from error
    if not proto.pieces:
        raise _refusal(what, "a SentencePiece model", "no pieces")
    return proto


def _find(folder: Path, given: Path | None) -> Path:
    if given is not None and given.is_file():
        return given
    for place in (given,) if given is not None else (folder, folder / "assets"):
        for name in (TOKENIZER, *SENTENCEPIECE):
            if (place / name).is_file():
                return place / name
    raise _refusal(
        given or folder,
        f"{TOKENIZER} or {SENTENCEPIECE[0]}",
        "neither",
        "name PaliGemma's tokenizer: openpi downloads paligemma_tokenizer.model, the hub has tokenizer.json",
    )


def _refusal(what: object, expected: object, found: object, fix: str | None = None) -> MemrtError:
    return MemrtError(
        f"tokenizer {what}",
        expected=expected,
        found=found,
        fix=fix or "use the tokenizer that the policy was trained with",
    )
