"""The mixed-precision plan of an export: which weights are stored how, as a file that can be edited and used again.

```yaml
engines:
  hl/decoder:
    scheme: int4          # every weight that no pattern below names
    compute: bf16         # what the products are computed in
    block: 128            # input channels that share a scale, for the block-wise schemes
    keep:                 # weight-name pattern: scheme; the first that matches wins
      layers.0.*: bf16
      head*: bf16
```

Names are those of the exported graphs (`layers.3.qkv.weight`, `blocks.5.up.weight`); `*` matches anything. A failed
gate writes such a file with the weights that hurt most raised (`memrt.export.sensitivity`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import yaml

from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import FieldError, convert, nearest, read_yaml

Scheme = Literal["fp32", "fp16", "bf16", "int8", "int4", "fp8", "nvfp4"]
Compute = Literal["fp32", "fp16", "bf16"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
COMPUTES: tuple[Compute, ...] = get_args(Compute)
ENGINES = ("hl/vision", "hl/decoder", "ll/vision", "ll/prefix", "ll/step")
BLOCKS = (16, 32, 64, 128, 256)  # what TensorRT's and ONNX Runtime's block-wise kernels take between them
_HEADER = (
    "# A mixed-precision plan. Edit it and export with --plan FILE. `keep` maps weight-name patterns to schemes;\n"
    "# the first pattern that matches a weight wins, all others get the engine's `scheme`.\n"
)


class EnginePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. `scheme` is how weights are stored, `compute` what products are computed in, `block` the input
    channels per scale of block-wise schemes (nvfp4 always has 16). `keep`: weight-name pattern to scheme, in order.
    """

    scheme: Scheme
    compute: Compute
    block: int = 128
    keep: dict[str, Scheme] = {}

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise FieldError("block", expected=f"one of {BLOCKS}", found=self.block, fix="use 128, or 32 for accuracy")

    def scheme_of(self, weight_name: str) -> Scheme:
        """How the weight is stored: by the first pattern of `keep` that matches it, else by `scheme`."""
        for pattern, scheme in self.keep.items():
            if fnmatch.fnmatchcase(weight_name, pattern):
                return scheme
        return self.scheme


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plan of every engine that an export makes, by the engine's name."""

    engines: dict[str, EnginePlan]

    def engine(self, name: str) -> EnginePlan:
        """The plan of one engine or variant of it; raises `MemrtError` when the plan does not speak of it."""
        key = plan_key(name)
        if key not in self.engines:
            raise MemrtError(
                f"the plan says nothing about {key}",
                expected=f"an entry engines.{key}",
                found=sorted(self.engines),
                fix="add it, or export without --plan",
            )
        return self.engines[key]

    def check_names(self, engine: str, weight_names: Iterable[str]) -> None:
        """Raise `MemrtError` for a pattern that matches no weight of the engine: misspelt, or of another model."""
        names = list(weight_names)
        for pattern in self.engine(engine).keep:
            if not fnmatch.filter(names, pattern):
                close = nearest(pattern, names)
                raise MemrtError(
                    f"a pattern of the plan matches nothing: `engines.{engine}.keep.{pattern}`",
                    expected=f"a pattern for some of the {len(names)} weights of {engine}",
                    found=f"`{pattern}`",
                    fix=f"did you mean `{close}`?" if close else "remove it",
                )


def plan_key(engine_name: str) -> str:
    """Under which name a plan speaks of an engine: variants such as `hl/vision_320x360` share their weights."""
    return engine_name.partition("_")[0]


def uniform_plan(engines: Mapping[str, Scheme], *, compute: Compute, block: int = 128) -> Plan:
    """One scheme per engine, nothing kept apart. Raises `MemrtError` for an engine that does not exist."""
    for name in engines:
        _check_engine(name, "the plan")
    return Plan(engines={n: EnginePlan(scheme=s, compute=compute, block=block) for n, s in sorted(engines.items())})


def load_plan(path: str | Path) -> Plan:
    """Read a plan from YAML or JSON. Raises `MemrtError` with the full path of the first wrong key."""
    path = Path(path)
    data = read_yaml(path)
    entries = data.get("engines")
    if set(data) != {"engines"} or not isinstance(entries, dict) or not entries:
        raise MemrtError(
            f"plan {path}",
            expected="one key `engines` with an entry per engine",
            found=f"the keys {', '.join(map(str, data))}" if set(data) != {"engines"} else repr(entries),
            fix="begin with `engines:` and list engines such as `hl/decoder` below it",
        )
    return Plan(engines={str(name): _read_engine(str(name), entry, path) for name, entry in entries.items()})


def plan_bytes(plan: Plan) -> bytes:
    """The plan as YAML; equal plans give equal bytes. Engines are sorted, patterns keep their order: it decides."""
    engines = {
        name: {"scheme": e.scheme, "compute": e.compute, "block": e.block, "keep": dict(e.keep)}
        for name, e in sorted(plan.engines.items())
    }
    return (_HEADER + yaml.safe_dump({"engines": engines}, sort_keys=False, width=120)).encode("ascii")


def _read_engine(name: str, entry: Any, path: Path) -> EnginePlan:
    """Checked here, entry by entry, where msgspec would not name the key of a dictionary."""
    _check_engine(name, str(path))
    if not isinstance(entry, dict):
        raise MemrtError(
            f"key `engines.{name}` in {path}",
            expected="scheme, compute, and perhaps block and keep",
            found=repr(entry),
            fix=f"write `{name}: {{scheme: int4, compute: bf16}}`",
        )
    where = f"engines.{name}"
    for key, allowed in (("scheme", SCHEMES), ("compute", COMPUTES)):
        if key in entry:
            _check_choice(f"{where}.{key}", entry[key], allowed, path)
    kept = entry.get("keep")
    for pattern, scheme in kept.items() if isinstance(kept, dict) else ():
        _check_choice(f"{where}.keep.{pattern}", scheme, SCHEMES, path)
    engine: EnginePlan = convert(entry, EnginePlan, f"`{where}` of {path}")
    return engine


def _check_choice(key: str, value: object, allowed: Iterable[str], path: Path) -> None:
    if value not in tuple(allowed):
        close = nearest(str(value), allowed)
        raise MemrtError(
            f"key `{key}` in {path}",
            expected=f"one of {', '.join(allowed)}",
            found=repr(value),
            fix=f"did you mean `{close}`?" if close else "choose one of them",
        )


def _check_engine(name: str, source: str) -> None:
    if name not in ENGINES:
        close = nearest(name, ENGINES)
        raise MemrtError(
            f"unknown engine `engines.{name}` in {source}",
            expected=f"one of {', '.join(ENGINES)}",
            found=f"`{name}`",
            fix=f"did you mean `{close}`?" if close else f"remove `{name}`",
        )
