"""Checkpoint folders: openpi's PyTorch ones, LeRobot's, and our own reference weights, all read the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from memrt.runtime.errors import MemrtError
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Pi05

LEROBOT_PREFIX = "model."
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
TIED = "paligemma_with_expert.paligemma.lm_head.weight"
# Heads that exist because the stacks were built as language models; a flow-matching policy never calls them.
UNUSED = (TIED, "paligemma_with_expert.gemma_expert.lm_head.weight")

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under openpi's names, whoever wrote them, without those that π0.5 never uses.

    A tied embedding may be stored under either of its two names.
    """
    named = {name.removeprefix(LEROBOT_PREFIX): tensor for name, tensor in tensors.items()}
    if EMBEDDING not in named and TIED in named:
        named[EMBEDDING] = named[TIED]
    return {name: tensor for name, tensor in named.items() if name not in UNUSED}


def load_weights(model: Pi05, path: Path) -> None:
    """Load a safetensors file into `model`, casting to its dtype. Raises MemrtError unless every tensor fits."""
    if not path.is_file():
        raise MemrtError(
            f"checkpoint {path.parent}", expected=path.name, found="no such file", fix="train or download the weights"
        )
    load_tensors(model, rename(load_file(path)), path)


def load_tensors(model: Pi05, found: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors of `path` into `model`. Raises MemrtError unless every tensor fits."""
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape]
    if missing or unknown or shapes:
        raise MemrtError(
            f"checkpoint {path}",
            expected=f"the {len(wanted)} tensors of π0.5 at the sizes of {model.config.name}",
            found=f"missing {missing[:3]}, unknown {unknown[:3]}, of another shape {sorted(shapes)[:3]}",
            fix="use the config.json that belongs to these weights",
        )
    model.load_state_dict(found)


def load_model(folder: Path) -> Pi05:
    """The network of a reference checkpoint folder, in float32, for evaluation."""
    model = Pi05(Pi05Config.load(folder / CONFIG))
    load_weights(model, folder / WEIGHTS)
    return model.eval()


def bos_token(folder: Path) -> str:
    """The token with which every prompt of a reference checkpoint begins."""
    return str(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["bos_token"])


def norm_stats_path(folder: Path) -> Path:
    """The one `assets/<id>/norm_stats.json` of a checkpoint folder."""
    found = sorted((folder / "assets").glob("*/norm_stats.json"))
    if len(found) != 1:
        raise MemrtError(
            f"checkpoint {folder}",
            expected="exactly one assets/<id>/norm_stats.json",
            found=[str(path.relative_to(folder)) for path in found],
            fix="keep the assets folder of the robot that this policy drives",
        )
    return found[0]


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors so that a reader never sees half a file."""
    temporary = path.with_suffix(".partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.chmod(0o644)
    temporary.rename(path)


def write_checkpoint(
    folder: Path, config: Pi05Config, tensors: Mapping[str, Tensor], *, bos: str, stats: Mapping[str, Any]
) -> None:
    """Write weights, config.json and `assets/reference/norm_stats.json`; the tokenizer is written when it is made."""
    assets = folder / "assets" / "reference"
    assets.mkdir(parents=True, exist_ok=True)
    (assets / "norm_stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    document = {"bos_token": bos, "model": config.to_dict()}
    (folder / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_weights(tensors, folder / WEIGHTS)
