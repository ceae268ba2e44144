"""Norm stats of a π0.5 checkpoint, in openpi's layout whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memrt.export.checkpoints.safetensors_folder import read_header, read_tensor
from memrt.runtime.errors import MemrtError

FILE = "norm_stats.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
QUANTILES = ("q01", "q99")
_STATISTICS = ("mean", "std", *QUANTILES)
# LeRobot: the processors' registry names, its feature of each of openpi's two, and the class of that feature.
_NORMALISERS = ("normalizer_processor", "unnormalizer_processor")
_FEATURES = {"state": ("observation.state", "STATE"), "actions": ("action", "ACTION")}


def check_norm_stats(stats: Mapping[str, Any], state_dim: int, action_dim: int) -> None:
    """Raise MemrtError unless `stats` (openpi's layout) describe exactly so many dimensions of state and action."""
    for name, wanted in (("state", state_dim), ("actions", action_dim)):
        found = dimensions(stats, name)
        if found != wanted:
            raise MemrtError(
                f"norm stats of {name}",
                expected=f"{wanted} dimensions, as the policy has",
                found=f"{found}",
                fix="use the norm_stats.json of the robot and the checkpoint that this policy names",
            )


def dimensions(stats: Mapping[str, Any], name: str) -> int:
    """How many dimensions the quantiles of `state` or `actions` have. Raises MemrtError when they are unusable."""
    low, high = (np.asarray(stats["norm_stats"][name][key], dtype=np.float64) for key in QUANTILES)
    if low.ndim != 1 or low.shape != high.shape or not np.isfinite([low, high]).all() or (low > high).any():
        raise MemrtError(
            f"norm stats of {name}",
            expected="finite lists q01 <= q99 of one length",
            found=f"q01 {low.tolist()}, q99 {high.tolist()}",
            fix="compute the norm stats again from the training set",
        )
    return len(low)


def load_norm_stats(folder: Path, given: Path | None, action_dim: int) -> dict[str, Any]:
    """The stats of a checkpoint folder, or those at `given`, a norm_stats.json or a folder with one.

    They are looked for under `assets/` (openpi), then in LeRobot's processors. Raises MemrtError when there are none,
    or when they describe more dimensions than the network's `action_dim` (to which states and actions are padded).
    """
    stats = _find(folder, given)
    for name in _FEATURES:
        found = dimensions(stats, name)
        if not 1 <= found <= action_dim:
            raise MemrtError(
                f"norm stats of {name} in checkpoint {folder.name}",
                expected=f"1 to {action_dim} dimensions, the width of the network's actions",
                found=f"{found}",
                fix="use the norm_stats.json that belongs to these weights",
            )
    return stats


def _find(folder: Path, given: Path | None) -> dict[str, Any]:
    if given is not None:
        return _read(given / FILE if given.is_dir() else given)
    found = sorted((folder / "assets").rglob(FILE)) or sorted(folder.glob(FILE))
    if len(found) == 1:
        return _read(found[0])
    if not found and (folder / PREPROCESSOR).is_file():
        return _read_lerobot(folder)
    names = [str(path.relative_to(folder)) for path in found]
    raise MemrtError(
        f"checkpoint {folder}",
        expected=f"exactly one assets/<id>/{FILE}, or LeRobot's {PREPROCESSOR}",
        found=names or "none",
        fix="name the norm stats of the robot that this policy drives",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))["norm_stats"]
        stats: dict[str, dict[str, list[float]]] = {}
        for name in _FEATURES:
            entry = document[name]
            kept = [key for key in _STATISTICS if key in entry or key in QUANTILES]
            stats[name] = {key: [float(value) for value in entry[key]] for key in kept}
        return {"norm_stats": stats}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MemrtError(
            f"norm stats {path}",
            expected='{"norm_stats": {"state": {"q01", "q99"}, "actions": {"q01", "q99"}}}',
            found=f"{type(error).__name__}: {error}",
            fix="copy assets/<id>/norm_stats.json from the checkpoint; π0.5 needs statistics with quantiles",
        ) from error


def _read_lerobot(folder: Path) -> dict[str, Any]:
    """LeRobot saves one flat tensor per statistic (`observation.state.q01`) in the state file of a processor step."""
    tensors: dict[str, list[float]] = {}
    for processor in (PREPROCESSOR, POSTPROCESSOR):
        step = _normaliser(folder, processor)
        if step is None:
            continue
        path = folder / Path(str(step.get("state_file"))).name
        if not path.is_file():
            raise _lerobot_refusal(folder, f"{path.name}, as {processor} says", "no such file")
        for name, stored in read_header(path).items():
            if stored.is_float and len(stored.shape) == 1:
                tensors[name] = read_tensor(stored, name).double().tolist()
    stats: dict[str, dict[str, list[float]]] = {}
    for name, (feature, _) in _FEATURES.items():
        stats[name] = {key: tensors[f"{feature}.{key}"] for key in _STATISTICS if f"{feature}.{key}" in tensors}
        if any(key not in stats[name] for key in QUANTILES):
            raise _lerobot_refusal(folder, f"{feature}.q01 and {feature}.q99", f"{sorted(stats[name]) or 'neither'}")
    return {"norm_stats": stats}


def _normaliser(folder: Path, processor: str) -> dict[str, Any] | None:
    if not (folder / processor).is_file():
        return None
    try:
        steps = json.loads((folder / processor).read_text(encoding="utf-8"))["steps"]
        step: dict[str, Any] | None = next((s for s in steps if s.get("registry_name") in _NORMALISERS), None)
        modes = (step or {}).get("config", {}).get("norm_map", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _lerobot_refusal(folder, f"a readable {processor}", error) from error
    for _, kind in _FEATURES.values():
        if modes.get(kind, "QUANTILES") != "QUANTILES":
            raise _lerobot_refusal(folder, f"{kind} normalised by QUANTILES, as π0.5 is", modes[kind])
    return step


def _lerobot_refusal(folder: Path, expected: object, found: object) -> MemrtError:
    return MemrtError(
        f"norm stats in LeRobot checkpoint {folder}",
        expected=expected,
        found=found,
        fix="copy the policy's processor files again, or name a norm_stats.json in openpi's layout",
    )
