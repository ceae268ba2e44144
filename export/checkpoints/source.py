"""What every checkpoint is once it is open: names, shapes, and one tensor at a time.

A 4B model in bf16 takes 8 GB and an fp32 copy 16 GB. Nothing here holds more than the tensor that was asked for:
whoever builds a graph or quantises a layer reads what that layer needs and lets it go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from memrt.runtime.errors import MemrtError

Shape = tuple[int, ...]


class WeightSource(Protocol):
    """A checkpoint's tensors under canonical names (for VLMs transformers' own, for π0.5 openpi's PyTorch names)."""

    label: str
    """For reports, e.g. `random:qwen3-vl-4b` or the folder's name; never an absolute path."""

    def names(self) -> tuple[str, ...]:
        """Every name that can be read, sorted. A tied tensor is listed under each of its names."""
        ...

    def shape(self, name: str) -> Shape:
        """The shape of one tensor, without reading it."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU, bf16, fp16 or fp32 as stored (fp32 where it is computed); nothing is cached."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """What was read: file → SHA-256, or `{"random": name, "seed": seed}`."""
        ...


def check_tensors(source: WeightSource, expected: Mapping[str, Shape], model: str) -> None:
    """Raise MemrtError unless `source` holds exactly the `expected` names, each of its shape. Reads no weights."""
    found = set(source.names())
    missing, unknown = sorted(expected.keys() - found), sorted(found - expected.keys())
    if missing or unknown:
        raise MemrtError(
            f"checkpoint {source.label}",
            expected=f"the {len(expected)} tensors of {model}",
            found=f"{len(missing)} missing {missing[:2]}, {len(unknown)} unknown {unknown[:2]}",
            fix="use the config.json that belongs to these weights, and copy all of the checkpoint's files",
        )
    for name in source.names():
        _check_shape(source, name, expected[name])


def materialise(module: nn.Module, source: WeightSource, prefix: str) -> None:
    """Give a module that was built without weights its weights: fp32, on the CPU, not trainable.

    Every parameter and persistent buffer `name` (meta, fake or real) is replaced by the value of `prefix + name`;
    one that is shared inside the module is read once and stays shared. Non-persistent buffers are in no checkpoint:
    they are computed by the constructor of the submodule that holds them. Where such a buffer lies on the meta
    device or is fake, that submodule is built again from its own `config`, as transformers' rotary embeddings can
    be. Raises MemrtError, before anything is replaced, for missing names, wrong shapes, and buffers that cannot be
    rebuilt.
    """
    places = _places(module)
    known = set(source.names())
    missing = [name for name in places if prefix + name not in known]
    if missing:
        raise MemrtError(
            f"checkpoint {source.label}",
            expected=f"{len(places)} tensors under {prefix or 'the top level'}",
            found=f"no {prefix}{missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            fix="use the config.json that belongs to these weights",
        )
    for name, (_, _, old) in places.items():
        _check_shape(source, prefix + name, tuple(old.shape))
    rebuilt = _rebuilt_buffers(module)
    values: dict[int, Tensor] = {}
    for name, (owner, attribute, old) in places.items():
        value = values.get(id(old))
        if value is None:
            value = source.read(prefix + name).float()
            values[id(old)] = value = nn.Parameter(value, False) if isinstance(old, nn.Parameter) else value
        setattr(owner, attribute, value)
    for owner, attribute, value in rebuilt:
        setattr(owner, attribute, value)


def _places(module: nn.Module) -> dict[str, tuple[nn.Module, str, Tensor]]:
    """Where each tensor of a state dict lives: dotted name → (submodule, attribute, present value)."""
    places: dict[str, tuple[nn.Module, str, Tensor]] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        held = {**owner._parameters, **{k: v for k, v in owner._buffers.items() if _persistent(owner, k)}}
        for attribute, value in held.items():
            if value is not None:
                places[f"{path}.{attribute}" if path else attribute] = (owner, attribute, value)
    return places


def _persistent(owner: nn.Module, buffer: str) -> bool:
    return buffer not in owner._non_persistent_buffers_set


def _rebuilt_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    rebuilt: list[tuple[nn.Module, str, Tensor]] = []
    for path, owner in module.named_modules():
        empty = [
            name
            for name, value in owner._buffers.items()
            if value is not None and not _persistent(owner, name) and (value.is_meta or isinstance(value, FakeTensor))
        ]
        if not empty:
            continue
        config = getattr(owner, "config", None)
        if config is None or next(owner.parameters(), None) is not None:
            raise MemrtError(
                f"module {path or type(module).__name__}",
                expected="real values in its non-persistent buffers, or a constructor that takes its config alone",
                found=f"{empty[0]} without values",
                fix="build the module with real buffers and only its parameters on the meta device",
            )
        with torch.device("cpu"):
            fresh = type(owner)(config)
        rebuilt += [(owner, name, fresh.get_buffer(name)) for name in empty]
    return rebuilt


def _check_shape(source: WeightSource, name: str, expected: Shape) -> None:
    if source.shape(name) != expected:
        raise MemrtError(
            f"checkpoint {source.label}",
            expected=f"{name} of shape {list(expected)}",
            found=list(source.shape(name)),
            fix="use the config.json that belongs to these weights",
        )
