"""Opens a π0.5: openpi's PyTorch and JAX folders, LeRobot's, our own reference folders, and `random:<name>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.export.checkpoints.norm_stats import load_norm_stats
from memrt.export.checkpoints.orbax_params import OrbaxSource, is_orbax
from memrt.export.checkpoints.paligemma_tokenizer import pi05_tokenizer
from memrt.export.checkpoints.pi05_names import canonical_names, tensor_shapes
from memrt.export.checkpoints.pi05_sizes import pi05_config, read_document
from memrt.export.checkpoints.random_pi05 import PI05S, random_pi05
from memrt.export.checkpoints.random_weights import parse_random
from memrt.export.checkpoints.renamed import RenamedSource
from memrt.export.checkpoints.safetensors_folder import INDEX, SINGLE, SafetensorsFolder, has_weights
from memrt.export.checkpoints.source import WeightSource, check_tensors
from memrt.runtime.errors import MemrtError
from memrt.train.pi05.config import Pi05Config

PARAMS = "params"  # the folder of an openpi JAX checkpoint that holds the weights


@dataclass(frozen=True, slots=True)
class Pi05Checkpoint:
    """An open π0.5. `source` serves openpi's PyTorch names, exactly those of `Pi05(config).state_dict()`."""

    config: Pi05Config
    source: WeightSource
    tokenizer: bytes
    """The content of tokenizer.json."""
    bos_token: str
    """The token with which every prompt begins."""
    norm_stats: dict[str, Any]
    """openpi's layout: `{"norm_stats": {"state": {"q01", "q99", …}, "actions": …}}`."""


def open_pi05(
    checkpoint: str | Path,
    *,
    norm_stats: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> Pi05Checkpoint:
    """Open `checkpoint`, a folder or `random:pi05[:seed]`, without reading its weights.

    `norm_stats` (a norm_stats.json or its folder) and `tokenizer` (a tokenizer.json or SentencePiece model, or its
    folder) are needed where the checkpoint does not bring its own, and win where it does. Raises MemrtError for
    everything that cannot be exported: missing, truncated or foreign files, wrong shapes, norm stats that do not fit.
    """
    parsed = parse_random(checkpoint)
    given_stats = None if norm_stats is None else Path(norm_stats).expanduser()
    given_tokenizer = None if tokenizer is None else Path(tokenizer).expanduser()
    if parsed is not None:
        return _open_random(*parsed, given_stats, given_tokenizer)
    folder = Path(checkpoint).expanduser()
    if folder.name == PARAMS and is_orbax(folder):
        folder = folder.parent  # its assets lie beside the weights
    document = read_document(folder)
    source = _open_weights(folder)
    config = pi05_config(folder, document, source)
    check_tensors(source, tensor_shapes(config), f"π0.5 at the sizes of {config.name}")
    content, bos = pi05_tokenizer(folder, given_tokenizer, document.get("bos_token"), config.vocabulary)
    return Pi05Checkpoint(config, source, content, bos, load_norm_stats(folder, given_stats, config.action_dim))


def _open_weights(folder: Path) -> WeightSource:
    if has_weights(folder):
        stored = SafetensorsFolder(folder)
        return RenamedSource(stored, canonical_names(stored.names()))
    if is_orbax(folder / PARAMS):
        return OrbaxSource(folder / PARAMS, folder.absolute().name)
    raise MemrtError(
        f"checkpoint {folder}",
        expected=f"{SINGLE}, {INDEX}, or openpi's {PARAMS}/",
        found="a folder without them" if folder.is_dir() else "no such folder",
        fix="name the folder that holds the weights",
    )


def _open_random(name: str, seed: int, stats_path: Path | None, tokenizer_path: Path | None) -> Pi05Checkpoint:
    if name not in PI05S:
        raise MemrtError(
            f"checkpoint random:{name}", expected=f"one of {', '.join(PI05S)}", found=name, fix="choose one of these"
        )
    config, source, tokenizer, bos, stats = random_pi05(name, seed)
    if tokenizer_path is not None:
        tokenizer, bos = pi05_tokenizer(tokenizer_path, tokenizer_path, None, config.vocabulary)
    if stats_path is not None:
        stats = load_norm_stats(stats_path, stats_path, config.action_dim)
    return Pi05Checkpoint(config, source, tokenizer, bos, stats)
