from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from memrt.export.merge import CONFIG_FILE, WEIGHTS_FILE, inspect_adapter, merge_adapter  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

WIDTH, RANK = 8, 4


class Base(nn.Module):
    """Two layers with a projection each."""

    def __init__(self, width: int = WIDTH, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(width, width)}) for _ in range(layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer["q_proj"](x)
        return x


def base(**kwargs: int) -> Base:
    torch.manual_seed(0)
    return Base(**kwargs)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A trained adapter of `base()`."""
    model = peft.get_peft_model(base(), peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=["q_proj"]))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replace (or with None remove) tensors whose key contains the given text."""
    tensors = load_file(folder / WEIGHTS_FILE)
    for text, value in change.items():
        for key in [k for k in tensors if text in k]:
            if value is None:
                del tensors[key]
            else:
                tensors[key] = value.clone()
    save_file(tensors, folder / WEIGHTS_FILE)


def test_merged_model_computes_what_the_adapted_one_does(adapter: Path) -> None:
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(base(), str(adapter))(x)
        merged = merge_adapter(base(), adapter)
        torch.testing.assert_close(merged(x), adapted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(merged(x), base()(x), atol=1e-2)
    assert type(merged) is Base


def test_tells_what_an_adapter_holds(adapter: Path) -> None:
    info = inspect_adapter(adapter)
    assert (info.rank, info.alpha) == (RANK, 8.0)
    assert info.modules == ("layers.0.q_proj", "layers.1.q_proj")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers.1.q_proj.lora_B": None}, "only lora_A"),
        ({"layers.1.q_proj.lora_A": torch.ones(RANK + 1, WIDTH)}, f"rank {RANK}"),
        ({"layers.0.q_proj.lora_B": torch.full((WIDTH, RANK), torch.nan)}, "NaN"),
        ({"lora_B": torch.zeros(WIDTH, RANK)}, "changes nothing"),
    ],
)
def test_refuses_a_broken_adapter(adapter: Path, change: dict, told: str) -> None:
    rewrite(adapter, change)
    with pytest.raises(MemrtError, match=told):
        merge_adapter(base(), adapter)


def test_refuses_the_adapter_of_another_size(adapter: Path) -> None:
    with pytest.raises(MemrtError, match=r"shape \[8, 8\], found \[\[16, 16\]\]"):
        merge_adapter(base(width=16), adapter)


def test_refuses_the_adapter_of_a_deeper_model(adapter: Path) -> None:
    with pytest.raises(MemrtError, match=r"no layers\.1\.q_proj"):
        merge_adapter(base(layers=1), adapter)


def test_refuses_an_adapter_that_leaves_targets_empty(adapter: Path) -> None:
    """The config targets every layer; an adapter without layer 1 would leave it randomly initialised."""
    rewrite(adapter, {"layers.1": None})
    with pytest.raises(MemrtError, match="2 adapter tensors in the model, found 4"):
        merge_adapter(base(), adapter)


def test_refuses_other_kinds_and_pickles(adapter: Path) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(MemrtError, match="LoRA"):
        inspect_adapter(adapter)
    (adapter / CONFIG_FILE).write_text(json.dumps(config))
    (adapter / WEIGHTS_FILE).rename(adapter / "adapter_model.bin")
    with pytest.raises(MemrtError, match="safetensors"):
        inspect_adapter(adapter)
    (adapter / CONFIG_FILE).unlink()
    with pytest.raises(MemrtError, match=CONFIG_FILE):
        inspect_adapter(adapter)
