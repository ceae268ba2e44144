from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from checkpoint_folders import FAMILIES, TensorSource, tiny_vlm, write_adapter  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from memrt.export.checkpoints.adapted import AdaptedSource  # noqa: E402
from memrt.export.checkpoints.adapter import CONFIG_FILE, WEIGHTS_FILE, AdapterFolder  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

SETTINGS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True, "r": 9},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3}, "alpha_pattern": {"down_proj": 5}},
    "some layers": {"layers_to_transform": [1, 2], "layers_pattern": "layers"},
    "a pattern": {"target_modules": r".*language_model.*\.(q_proj|down_proj)"},
    "an exception": {"exclude_modules": r".*visual.*"},
}


def base_source(model: nn.Module) -> TensorSource:
    return TensorSource({name: tensor.clone() for name, tensor in model.state_dict().items()}, "base")


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_merges_as_peft_does(family: str, setting: str, tmp_path: Path) -> None:
    model = tiny_vlm(family)
    source = base_source(model)
    merged = write_adapter(tmp_path / "adapter", model, **SETTINGS[setting]).state_dict()
    adapted = AdaptedSource(source, AdapterFolder(tmp_path / "adapter"))
    assert adapted.names() == tuple(sorted(merged))
    for name, wanted in merged.items():
        torch.testing.assert_close(adapted.read(name), wanted, rtol=0, atol=1e-6)
    changed = {name for name, wanted in merged.items() if not torch.equal(wanted, source.tensors[name])}
    assert set(adapted.adapted_names()) == changed
    assert adapted.label == "base + adapter"
    assert sorted(adapted.fingerprint()) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "test"]


class Layer(nn.Module):
    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(inputs, outputs, bias=False)})])


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 9),
    rank=st.integers(1, 12),
    alpha=st.floats(0.25, 64, width=32),
    stabilised=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_rank_and_scale_merges_as_peft_does(
    tmp_path: Path, outputs: int, inputs: int, rank: int, alpha: float, stabilised: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = Layer(outputs, inputs)
    source = base_source(model)
    merged = write_adapter(
        tmp_path, model, seed, r=rank, lora_alpha=alpha, use_rslora=stabilised, target_modules=["q_proj"]
    ).state_dict()
    adapted = AdaptedSource(source, AdapterFolder(tmp_path))
    name = "layers.0.q_proj.weight"
    scale = 1 + float(merged[name].abs().max())
    torch.testing.assert_close(adapted.read(name), merged[name], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("wrapper", ["", "model.", "model.model.", "policy.backbone."])
def test_finds_its_modules_under_renamed_wrappers(tmp_path: Path, wrapper: str) -> None:
    model = tiny_vlm("qwen3_vl")
    source = base_source(model)
    merged = write_adapter(tmp_path, model).state_dict()
    tensors = {
        key.replace("model.language_model.", wrapper): value
        for key, value in load_file(tmp_path / WEIGHTS_FILE).items()
    }
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    adapted = AdaptedSource(source, AdapterFolder(tmp_path))
    for name, wanted in merged.items():
        torch.testing.assert_close(adapted.read(name), wanted, rtol=0, atol=1e-6)


def test_reading_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    model = tiny_vlm("qwen3_vl")
    source = base_source(model)
    before = {name: tensor.clone() for name, tensor in source.tensors.items()}
    write_adapter(tmp_path, model)
    adapted = AdaptedSource(source, AdapterFolder(tmp_path))
    for name in adapted.names():
        adapted.read(name)
    assert all(torch.equal(before[name], tensor) for name, tensor in source.tensors.items())


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    write_adapter(tmp_path, tiny_vlm("qwen3_vl"))
    return tmp_path


def edit(folder: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "a LoRA adapter, found peft_type IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias none"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "unchanged base weights, found init_lora_weights pissa"),
        ({"r": 5}, "rank 5"),
        ({"rank_pattern": {"q_proj": 3}}, "rank 3"),
    ],
)
def test_refuses_what_is_not_plain_lora(adapter: Path, change: dict, told: str) -> None:
    edit(adapter, change)
    with pytest.raises(MemrtError, match=told):
        AdapterFolder(adapter)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers.1.self_attn.q_proj.lora_A.weight": None}, "lora_A and lora_B"),
        ({"layers.1.self_attn.q_proj.lora_B.weight": torch.full((128, 4), torch.inf)}, "NaN or infinity"),
        ({"layers.1.self_attn.q_proj.lora_magnitude_vector": torch.ones(128)}, "lora_magnitude_vector"),
        ({"embed_tokens.lora_embedding_A": torch.ones(4, 9)}, "lora_embedding_A"),
    ],
)
def test_refuses_broken_pairs(adapter: Path, change: dict, told: str) -> None:
    tensors = load_file(adapter / WEIGHTS_FILE)
    for end, value in change.items():
        key = f"base_model.model.model.language_model.{end}"
        tensors.pop(key, None)
        if value is not None:
            tensors[key] = value
    save_file(tensors, adapter / WEIGHTS_FILE)
    with pytest.raises(MemrtError, match=told):
        AdapterFolder(adapter)


def test_refuses_an_untrained_adapter(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS_FILE)
    save_file({k: v * 0 if "lora_B" in k else v for k, v in tensors.items()}, adapter / WEIGHTS_FILE)
    with pytest.raises(MemrtError, match="merging changes nothing"):
        AdapterFolder(adapter)


def test_refuses_files_that_cannot_be_read(adapter: Path) -> None:
    content = (adapter / WEIGHTS_FILE).read_bytes()
    (adapter / WEIGHTS_FILE).write_bytes(content[:-4])
    with pytest.raises(MemrtError, match="as its header says"):
        AdapterFolder(adapter)
    (adapter / WEIGHTS_FILE).unlink()
    with pytest.raises(MemrtError, match="safetensors"):
        AdapterFolder(adapter)
    (adapter / CONFIG_FILE).write_text("[]")
    with pytest.raises(MemrtError, match="an object"):
        AdapterFolder(adapter)


def test_refuses_another_base(adapter: Path) -> None:
    whole = AdapterFolder(adapter)
    tensors = tiny_vlm("qwen3_vl").state_dict()
    q_proj = "model.language_model.layers.3.self_attn.q_proj.weight"
    with pytest.raises(MemrtError, match=r"no model\.language_model\.layers\.3\.self_attn\.q_proj in it"):
        AdaptedSource(TensorSource({k: v for k, v in tensors.items() if k != q_proj}), whole)
    with pytest.raises(MemrtError, match=r"q_proj of shape \[128, 64\], found \[\[96, 64\]\]"):
        AdaptedSource(TensorSource(tensors | {q_proj: torch.zeros(96, 64)}), whole)
    twins = {
        name.replace("model.language_model.", copy): tensor for copy in ("m.", "n.") for name, tensor in tensors.items()
    }
    with pytest.raises(MemrtError, match="one place for"):
        AdaptedSource(TensorSource(twins), whole)


def test_refuses_an_adapter_that_leaves_targets_empty(adapter: Path) -> None:
    """As an adapter of a shallower base would: every pair finds its place, but layer 3 stays as it was."""
    tensors = load_file(adapter / WEIGHTS_FILE)
    save_file({k: v for k, v in tensors.items() if ".layers.3." not in k}, adapter / WEIGHTS_FILE)
    with pytest.raises(MemrtError, match=r"each of the 28 modules.*found 7 without"):
        AdaptedSource(TensorSource(tiny_vlm("qwen3_vl").state_dict()), AdapterFolder(adapter))
