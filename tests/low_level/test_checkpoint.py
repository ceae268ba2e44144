from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memrt.runtime.errors import MemrtError
from memrt.train.pi05.checkpoint import EMBEDDING, TIED, load_model, norm_stats_path, rename
from memrt.train.pi05.config import Pi05Config, pi05, reference


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize("config", [pi05(), reference(303)])
def test_configs_survive_json(config: Pi05Config) -> None:
    assert Pi05Config.from_dict(config.to_dict()) == config


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(MemrtError, match="wings"):
        Pi05Config.from_dict({**pi05().to_dict(), "wings": 2})


def test_a_checkpoint_loads_as_it_was_written(checkpoint: Path) -> None:
    written, loaded = load_file(checkpoint / "model.safetensors"), load_model(checkpoint).state_dict()
    assert written.keys() == loaded.keys()
    assert all(torch.equal(written[name], loaded[name]) for name in written)


def test_lerobots_prefix_and_the_tied_head_are_understood(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    expected = tensors[EMBEDDING].clone()
    renamed = {f"model.{TIED if name == EMBEDDING else name}": tensor for name, tensor in tensors.items()}
    renamed["model.paligemma_with_expert.gemma_expert.lm_head.weight"] = torch.zeros(2, 2)
    save_file(renamed, copied / "model.safetensors")
    torch.testing.assert_close(load_model(copied).language_model.embed_tokens.weight.detach(), expected)


def test_names_inside_the_network_keep_their_model_part() -> None:
    name = "paligemma_with_expert.gemma_expert.model.norm.dense.bias"
    assert list(rename({name: torch.zeros(1)})) == [name]


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_refused(copied: Path, change: str) -> None:
    tensors = load_file(copied / "model.safetensors")
    if change == "missing":
        del tensors["action_in_proj.bias"]
    elif change == "unknown":
        tensors["action_in_proj.extra"] = torch.zeros(1)
    else:
        tensors["action_in_proj.bias"] = torch.zeros(3)
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(MemrtError, match=r"action_in_proj\.(bias|extra)"):
        load_model(copied)


def test_a_checkpoint_has_one_robots_assets(copied: Path) -> None:
    assert norm_stats_path(copied).parent.name == "reference"
    shutil.copytree(copied / "assets" / "reference", copied / "assets" / "other")
    with pytest.raises(MemrtError, match="exactly one"):
        norm_stats_path(copied)
