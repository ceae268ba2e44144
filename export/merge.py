"""Merges a LoRA adapter into its base model in fp32, with the model as a whole in memory.

For models that fit; `memrt.export.checkpoints` merges tensor by tensor and shares the checks. PEFT only warns when an
adapter's tensors find no place in the model. So everything is checked: the adapter by itself and against the model's
shapes before loading, and afterwards that every tensor of the file has arrived in the model, bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrt.export.checkpoints.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterFolder,
    AdapterInfo,
    match_targets,
    module_tail,
    refusal,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "AdapterInfo", "inspect_adapter", "merge_adapter"]


def inspect_adapter(folder: Path) -> AdapterInfo:
    """Check an adapter folder by itself: LoRA, complete pairs, ranks as configured, finite and trained.

    Raises `MemrtError` naming the first thing that is wrong.
    """
    return AdapterFolder(folder).info


def merge_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Return `model` (fp32, on the CPU) with the adapter in `folder` merged into its weights.

    Raises `MemrtError` when the adapter names modules or shapes the model does not have, or not all of it was loaded.
    """
    from peft import PeftModel

    adapter = AdapterFolder(folder)
    match_targets(adapter, {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}, folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        raise refusal(folder, "an adapter of this base model", error, "name the base it was trained on") from error
    _check_arrived(adapted, adapter)
    merged: nn.Module = adapted.merge_and_unload(safe_merge=True)
    leftover = [name for name, _ in merged.named_parameters() if "lora_" in name]
    if leftover:
        raise refusal(folder, f"{len(adapter.modules())} merged modules", f"{leftover[0]} unmerged", "update peft")
    return merged


def _check_arrived(adapted: Any, adapter: AdapterFolder) -> None:
    from peft import get_peft_model_state_dict

    loaded: dict[str, Tensor] = get_peft_model_state_dict(adapted)
    folder = adapter.folder
    file: dict[str, Tensor] = {}
    for module in adapter.modules():
        for side, tensor in zip("AB", adapter.pair(module), strict=True):
            file[f"base_model.model.{module}.lora_{side}.weight"] = tensor
    arrived = {module_tail(key): tensor.detach() for key, tensor in loaded.items()}
    for key, tensor in file.items():
        other = arrived.get(module_tail(key))
        if other is None or other.shape != tensor.shape or not bool((other.float() == tensor.float()).all()):
            raise refusal(folder, "every tensor of the adapter in the model", f"{key} did not arrive", "name its base")
    if len(loaded) != len(file):
        raise refusal(
            folder, f"{len(file)} adapter tensors in the model", f"{len(loaded)}", "restore the config of this adapter"
        )
