"""Merges a LoRA adapter into its base model in fp32, and refuses adapters that belong to another base.

PEFT only warns when an adapter's tensors find no place in the model, and then merges what is left: a policy that
looks fine-tuned and is not. So everything is checked: the adapter's own consistency (pairs, rank, shapes) before
loading, and afterwards that every tensor of the file has arrived in the model, bit for bit.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# base_model.model.<module>.lora_A.weight; PEFT inserts the adapter's name before `weight` in memory, not in the file.
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a checked adapter holds: its rank, scaling numerator and the modules it changes."""

    rank: int
    alpha: float
    modules: tuple[str, ...]


def inspect_adapter(folder: Path) -> AdapterInfo:
    """Check an adapter folder by itself: LoRA, complete pairs, ranks as configured, finite and trained.

    Raises `MemrtError` naming the first thing that is wrong.
    """
    config = _read_config(folder)
    if config.get("peft_type") != "LORA":
        raise _refusal(
            folder, "a LoRA adapter", f"peft_type {config.get('peft_type')}", "train it with peft's LoraConfig"
        )
    pairs = _read_pairs(folder)
    rank = int(config.get("r", 0))
    patterns: dict[str, int] = config.get("rank_pattern") or {}
    untrained = True
    for module, pair in sorted(pairs.items()):
        if set(pair) != {"A", "B"}:
            raise _refusal(folder, f"lora_A and lora_B of {module}", f"only lora_{next(iter(pair))}", "copy it again")
        down, up = pair["A"], pair["B"]
        wanted = next((r for pattern, r in patterns.items() if re.search(rf"(^|\.){pattern}$", module)), rank)
        if down.shape[0] != wanted or up.shape[1] != wanted:
            found = f"{module}: {list(down.shape)} and {list(up.shape)}"
            raise _refusal(folder, f"rank {wanted}, as {CONFIG_FILE} says", found, "restore the config of this adapter")
        if not bool(down.isfinite().all() and up.isfinite().all()):
            raise _refusal(folder, "finite weights", f"NaN or infinity in {module}", "use an earlier checkpoint")
        untrained = untrained and not bool(up.any())
    if untrained:
        raise _refusal(folder, "a trained adapter", "lora_B all zero: merging changes nothing", "train it first")
    return AdapterInfo(rank, float(config.get("lora_alpha", rank)), tuple(sorted(pairs)))


def merge_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Return `model` (fp32, on the CPU) with the adapter in `folder` merged into its weights.

    Raises `MemrtError` when the adapter names modules or shapes the model does not have, or not all of it was loaded.
    """
    from peft import PeftModel

    info = inspect_adapter(folder)
    _check_targets(model, folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        raise _refusal(folder, "an adapter of this base model", error, "name the base it was trained on") from error
    _check_arrived(adapted, folder)
    merged: nn.Module = adapted.merge_and_unload(safe_merge=True)
    leftover = [name for name, _ in merged.named_parameters() if "lora_" in name]
    if leftover:
        raise _refusal(folder, f"{len(info.modules)} merged modules", f"{leftover[0]} unmerged", "update peft")
    return merged


def _check_targets(model: nn.Module, folder: Path) -> None:
    """Every target has a layer of the right size; a name may differ in its prefix (PEFT maps renamed base classes)."""
    sizes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if name.endswith(".weight") and parameter.ndim == 2:
            module = name.removesuffix(".weight")
            sizes[module].append(tuple(parameter.shape))
            sizes[_tail(module)].append(tuple(parameter.shape))
    for module, pair in _read_pairs(folder).items():
        found = sizes.get(module) or sizes.get(_tail(module))
        wanted = (int(pair["B"].shape[0]), int(pair["A"].shape[1]))
        if not found:
            raise _refusal(folder, "modules of the base model", f"no {module} in it", "name the base it was trained on")
        if wanted not in found:
            raise _refusal(
                folder,
                f"{module} of shape {list(wanted)}",
                f"{[list(shape) for shape in sorted(set(found))]} in the base model",
                "name the base it was trained on",
            )


def _tail(module: str) -> str:
    """`…layers.3.self_attn.q_proj` → `layers.3.self_attn.q_proj`: stable where the wrappers around it are renamed."""
    match = re.search(r"(layers|blocks)\.\d+\..+$", module)
    return match[0] if match else module


def _check_arrived(adapted: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    loaded: dict[str, Tensor] = get_peft_model_state_dict(adapted)
    file = _read_tensors(folder)
    arrived = {_tail(key): tensor.detach() for key, tensor in loaded.items()}
    for key, tensor in file.items():
        other = arrived.get(_tail(key))
        if other is None or other.shape != tensor.shape or not bool((other.float() == tensor.float()).all()):
            raise _refusal(folder, "every tensor of the adapter in the model", f"{key} did not arrive", "name its base")
    if len(loaded) != len(file):
        raise _refusal(
            folder, f"{len(file)} adapter tensors in the model", f"{len(loaded)}", "restore the config of this adapter"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refusal(folder, f"a readable {CONFIG_FILE}", error, "give the folder that peft saved") from error
    if not isinstance(config, dict):
        raise _refusal(folder, f"an object in {CONFIG_FILE}", type(config).__name__, "give the folder that peft saved")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        # An older `adapter_model.bin` is a pickle: loading it would run whatever it contains.
        raise _refusal(folder, f"a readable {WEIGHTS_FILE}", error, "save the adapter as safetensors") from error


def _read_pairs(folder: Path) -> dict[str, dict[str, Tensor]]:
    pairs: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in _read_tensors(folder).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise _refusal(folder, "LoRA matrices of linear layers only", key, "train without modules_to_save and bias")
        pairs[match["module"]][match["side"]] = tensor
    if not pairs:
        raise _refusal(folder, "LoRA matrices", "none", "copy the adapter again")
    return pairs


def _refusal(folder: Path, expected: object, found: object, fix: str) -> MemrtError:
    return MemrtError(f"adapter {folder}", expected=expected, found=found, fix=fix)
