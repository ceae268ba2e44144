"""LoRA adapters: what one holds, whether it is whole, and which weights of a base model it changes.

PEFT only warns when an adapter's tensors find no place in the model, and then merges what is left: a policy that
looks fine-tuned and is not. So an adapter is refused unless all of it can be merged exactly.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from memrt.export.checkpoints.safetensors_folder import Stored, read_header, read_tensor
from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# base_model.model.<module>.lora_A.weight; PEFT inserts the adapter's name before `weight` in memory, not in the file.
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Settings whose effect is not W + scale · B·A on unchanged base weights, and what they must be.
_PLAIN = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that also rewrite the base weights


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a checked adapter holds: its rank, scaling numerator and the modules it changes."""

    rank: int
    alpha: float
    modules: tuple[str, ...]


class Adapter(Protocol):
    """Pairs of low-rank matrices for modules that carry the names they were trained under."""

    label: str

    def modules(self) -> tuple[str, ...]:
        """The modules it changes, sorted."""
        ...

    def size(self, module: str) -> Shape:
        """(outputs, inputs) of the linear layer that a module must be."""
        ...

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """A [rank, inputs] and B [outputs, rank] on the CPU, as stored."""
        ...

    def scale(self, module: str) -> float:
        """The factor of B·A."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """As `WeightSource.fingerprint`."""
        ...


class AdapterFolder:
    """An adapter that peft saved, checked by itself when it is opened: LoRA, complete pairs, ranks as configured,
    finite and trained.
    """

    def __init__(self, folder: Path) -> None:
        """Raises MemrtError naming the first thing that is wrong."""
        self.label = folder.absolute().name
        self.folder = folder
        self.config = _read_config(folder)
        self._pairs = _read_pairs(folder)
        self._check()

    @property
    def info(self) -> AdapterInfo:
        """A summary."""
        rank = int(self.config.get("r", 0))
        return AdapterInfo(rank, float(self.config.get("lora_alpha", rank)), self.modules())

    def modules(self) -> tuple[str, ...]:
        """Under the names they were trained under."""
        return tuple(sorted(self._pairs))

    def size(self, module: str) -> Shape:
        """(outputs, inputs), from the header."""
        pair = self._pairs[module]
        return pair["B"].shape[0], pair["A"].shape[1]

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """A and B, read from the file."""
        pair = self._pairs[module]
        return read_tensor(pair["A"], module), read_tensor(pair["B"], module)

    def rank(self, module: str) -> int:
        """The configured rank of a module."""
        return int(_by_pattern(self.config, "rank_pattern", module, self.config.get("r", 0)))

    def scale(self, module: str) -> float:
        """alpha / rank, or alpha / √rank for rank-stabilised LoRA."""
        rank = self.rank(module)
        alpha = float(_by_pattern(self.config, "alpha_pattern", module, self.config.get("lora_alpha", rank)))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of both files."""
        return {name: sha256_of(self.folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}

    def targets(self, module: str) -> bool:
        """Whether the configuration says that a module of the base model was adapted."""
        layers = self.config.get("layers_to_transform")
        if layers is not None and layers != []:
            patterns = self.config.get("layers_pattern") or r"[^.]*"
            numbers = [
                match[1]
                for pattern in ([patterns] if isinstance(patterns, str) else patterns)
                if (match := re.match(rf".*\.{pattern}\.(\d+)\.", module))
            ]
            if not numbers or int(numbers[0]) not in (layers if isinstance(layers, list) else [layers]):
                return False
        return _named(self.config.get("target_modules"), module) and not _named(
            self.config.get("exclude_modules"), module
        )

    def _check(self) -> None:
        self._check_config()
        untrained = True
        for module in self.modules():
            pair = self._pairs[module]
            if set(pair) != {"A", "B"}:
                only = f"only lora_{next(iter(pair))}"
                raise refusal(self.folder, f"lora_A and lora_B of {module}", only, "copy it again")
            wanted, shapes = self.rank(module), (pair["A"].shape, pair["B"].shape)
            if any(len(shape) != 2 for shape in shapes) or shapes[0][0] != wanted or shapes[1][1] != wanted:
                found = f"{module}: {list(shapes[0])} and {list(shapes[1])}"
                raise refusal(
                    self.folder, f"rank {wanted}, as {CONFIG_FILE} says", found, "restore the config of this adapter"
                )
            down, up = self.pair(module)
            if not bool(down.isfinite().all() and up.isfinite().all()):
                raise refusal(
                    self.folder, "finite weights", f"NaN or infinity in {module}", "use an earlier checkpoint"
                )
            untrained = untrained and not bool(up.any())
        if untrained:
            raise refusal(
                self.folder, "a trained adapter", "lora_B all zero: merging changes nothing", "train it first"
            )

    def _check_config(self) -> None:
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise refusal(self.folder, "a LoRA adapter", f"peft_type {kind}", "train it with peft's LoraConfig")
        for key, plain in _PLAIN.items():
            if self.config.get(key) not in plain:
                raise refusal(
                    self.folder,
                    f"plain LoRA ({key} {plain[-1]})",
                    f"{key} {self.config[key]}",
                    "merge it with peft and export the merged model",
                )
        start = self.config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise refusal(
                self.folder,
                "an adapter of unchanged base weights",
                f"init_lora_weights {start}",
                "merge it with peft and export the merged model",
            )


def match_targets(adapter: Adapter, shapes: Mapping[str, Shape], where: object) -> dict[str, str]:
    """Base weight name → adapter module, for every module of the adapter.

    A module is found by its full name, or by its name from `layers.N` or `blocks.N` on, which stays the same where
    the wrappers around it are renamed. `shapes` are the base model's. Raises MemrtError when a module has no place,
    more than one, or another size.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for name in sorted(shapes):
        if name.endswith(".weight") and len(shapes[name]) == 2:
            module = name.removesuffix(".weight")
            for key in {module, module_tail(module)}:
                places[key].append(name)
    matched: dict[str, str] = {}
    for module in adapter.modules():
        found = places.get(module) or places.get(module_tail(module))
        if not found:
            raise refusal(where, "modules of the base model", f"no {module} in it", "name the base it was trained on")
        wanted = adapter.size(module)
        if wanted not in [shapes[name] for name in found]:
            raise refusal(
                where,
                f"{module} of shape {list(wanted)}",
                f"{[list(shape) for shape in sorted({shapes[name] for name in found})]} in the base model",
                "name the base it was trained on",
            )
        if len(found) > 1 or found[0] in matched:
            raise refusal(where, f"one place for {module}", f"{found}", "train it under the base's own module names")
        matched[found[0]] = module
    return matched


def module_tail(module: str) -> str:
    """`…layers.3.self_attn.q_proj` → `layers.3.self_attn.q_proj`: stable where the wrappers around it are renamed."""
    match = re.search(r"(layers|blocks)\.\d+\..+$", module)
    return match[0] if match else module


def refusal(where: object, expected: object, found: object, fix: str) -> MemrtError:
    """What every refused adapter is answered with."""
    return MemrtError(f"adapter {where}", expected=expected, found=found, fix=fix)


def _by_pattern(config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """The first entry whose pattern matches the end of a module's name, as PEFT reads `rank_pattern`."""
    patterns: dict[str, Any] = config.get(key) or {}
    return next((value for pattern, value in patterns.items() if re.search(rf"(^|\.){pattern}$", module)), default)


def _named(rule: Any, module: str) -> bool:
    """PEFT's rule: a string is a pattern for the whole name, a list holds names or their ends."""
    if not rule:
        return False
    if isinstance(rule, str):
        return re.fullmatch(rule, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in rule)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refusal(folder, f"a readable {CONFIG_FILE}", error, "give the folder that peft saved") from error
    if not isinstance(config, dict):
        raise refusal(folder, f"an object in {CONFIG_FILE}", type(config).__name__, "give the folder that peft saved")
    return config


def _read_pairs(folder: Path) -> dict[str, dict[str, Stored]]:
    if not (folder / WEIGHTS_FILE).is_file():
        # An older `adapter_model.bin` is a pickle: loading it would run whatever it contains.
        raise refusal(folder, f"a readable {WEIGHTS_FILE}", "no such file", "save the adapter as safetensors")
    pairs: dict[str, dict[str, Stored]] = defaultdict(dict)
    for key, stored in read_header(folder / WEIGHTS_FILE).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise refusal(folder, "LoRA matrices of linear layers only", key, "train without modules_to_save and bias")
        pairs[match["module"]][match["side"]] = stored
    if not pairs:
        raise refusal(folder, "LoRA matrices", "none", "copy the adapter again")
    return dict(pairs)
