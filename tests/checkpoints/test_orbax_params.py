"""openpi's JAX checkpoints as Orbax itself writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
ocp = pytest.importorskip("orbax.checkpoint")

import torch  # noqa: E402
from pi05_folders import jax_tree, nested, norm_stats, openpi_config, write_tokenizer  # noqa: E402

from memrt.export.checkpoints import orbax_params  # noqa: E402
from memrt.export.checkpoints.openpi_jax import origins  # noqa: E402
from memrt.export.checkpoints.orbax_params import OrbaxSource  # noqa: E402
from memrt.export.checkpoints.pi05 import open_pi05  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

CONFIG = openpi_config()


def write(folder: Path, flat: dict, *, leaf: bool = True, ocdbt: bool = True) -> Path:
    """`folder/params` with assets, as openpi's training leaves them, and the config.json a user adds."""
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save((folder / "params").absolute(), {"params": nested(flat, leaf)})
    (folder / "assets" / "robot").mkdir(parents=True)
    (folder / "assets" / "robot" / "norm_stats.json").write_text(json.dumps(norm_stats()))
    (folder / "config.json").write_text(json.dumps({"action_horizon": CONFIG.horizon}))
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reads_what_orbax_wrote(tmp_path: Path, leaf: bool, ocdbt: bool, dtype: str) -> None:
    import ml_dtypes

    numpy_dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    flat = {name: array.astype(numpy_dtype) for name, array in jax_tree(CONFIG).items()}
    opened = open_pi05(write(tmp_path, flat, leaf=leaf, ocdbt=ocdbt))
    assert opened.config == CONFIG
    assert opened.norm_stats == norm_stats()
    wanted = origins({name: array.shape for name, array in flat.items()}, "test")
    assert opened.source.names() == tuple(sorted(wanted))
    for name, origin in wanted.items():
        array = torch.from_numpy(flat[origin.array].astype(np.float32))
        found = opened.source.read(name)
        assert str(found.dtype) == f"torch.{dtype}"
        assert found.is_contiguous()
        assert torch.equal(found.float(), origin.turn(array if origin.layer is None else array[origin.layer])), name
    assert "_METADATA" in opened.source.fingerprint()


def test_opens_the_params_folder_itself(tmp_path: Path) -> None:
    write(tmp_path, jax_tree(CONFIG))
    assert open_pi05(tmp_path / "params").source.label == tmp_path.name


def test_asks_for_the_horizon(tmp_path: Path) -> None:
    write(tmp_path, jax_tree(CONFIG))
    (tmp_path / "config.json").unlink()
    with pytest.raises(MemrtError, match=r"action_horizon in config\.json"):
        open_pi05(tmp_path)


def test_refuses_damaged_folders(tmp_path: Path) -> None:
    write(tmp_path, jax_tree(CONFIG), ocdbt=False)
    name = "params.action_in_proj.kernel.value"
    chunk = next(file for file in (tmp_path / "params" / name).iterdir() if not file.name.startswith("."))
    chunk.write_bytes(chunk.read_bytes()[:5])
    source = open_pi05(tmp_path).source
    with pytest.raises(MemrtError, match="the data of action_in_proj/kernel"):
        source.read("action_in_proj.weight")
    chunk.unlink()
    with pytest.raises(MemrtError, match="the data of action_in_proj/kernel"):
        source.read("action_in_proj.weight")
    (tmp_path / "params" / name / ".zarray").unlink()
    with pytest.raises(MemrtError, match=f"the array {name}"):
        open_pi05(tmp_path)
    (tmp_path / "params" / "_METADATA").write_text("{}")
    with pytest.raises(MemrtError, match="list of arrays"):
        OrbaxSource(tmp_path / "params", "test")


def test_says_when_the_temporary_disk_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_pi05(write(tmp_path, jax_tree(CONFIG))).source

    def full(folder: str, needed: int) -> None:
        raise MemrtError("too little disk", expected=needed, found=0, fix="")

    monkeypatch.setattr(orbax_params, "check_disk", full)
    with pytest.raises(MemrtError, match="too little disk"):
        source.read("paligemma_with_expert.gemma_expert.model.layers.1.mlp.down_proj.weight")
