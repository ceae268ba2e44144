"""What a bundle is exported for: `configs/targets/<name>.yaml`.

Two kinds: `onnxruntime` targets hold the settings of int8 graphs (`quantisation`), TensorRT targets a plan per engine,
the GPUs (`sm`), their memory and how engines are built. `tensorrt_rtx` engines are built at export; `tensorrt` targets
get graphs and build recipes, and build on the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.calib.ranges import RangeMethod
from memrt.export.plan import EnginePlan, Plan, Scheme
from memrt.runtime.engine.tensorrt_builder import AHEAD_OF_TIME_SMS
from memrt.runtime.errors import MemrtError
from memrt.runtime.packaged import packaged_file
from memrt.runtime.strict_config import FieldError, convert, read_yaml

Backend = Literal["onnxruntime", "tensorrt_rtx", "tensorrt"]
# The least compute capability whose tensor cores multiply in the scheme's own type (NVIDIA's support matrix: fp8 from
# Ada 8.9, nvfp4 from Blackwell 10.0). int4 is weight-only: weights are widened to the compute type first.
LEAST_SM: dict[str, int] = {"fp8": 89, "nvfp4": 100}


class Quantisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How int8 graphs are made for the target.

    `blockwise` names the engines whose activations are rounded block by block at run time; the others get static
    ranges. `keep_fp32` holds node name patterns by engine.
    """

    blockwise: tuple[str, ...]
    smoothing: Annotated[float, msgspec.Meta(ge=0, le=1)]
    ranges: Literal["minmax", "percentile", "mse"]
    percentile: Annotated[float, msgspec.Meta(gt=50, le=100)]
    reduce_range: bool
    keep_fp32: dict[str, tuple[str, ...]]

    @property
    def method(self) -> RangeMethod:
        """The settings of the activation ranges."""
        return RangeMethod(self.ranges, self.percentile)


class DeviceMemory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory that engines live in, GiB. `shared`: CPU and GPU use one memory, so host tables count too."""

    gib: Annotated[float, msgspec.Meta(gt=0)]
    reserve_gib: Annotated[float, msgspec.Meta(ge=0)]
    shared: bool
    variants: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.reserve_gib >= self.gib:
            raise FieldError("reserve_gib", expected=f"less than {self.gib}", found=self.reserve_gib, fix="lower it")
        if self.variants and self.gib not in self.variants:
            raise FieldError(
                "gib", expected=f"one of {list(self.variants)}", found=self.gib, fix="list it, or choose one"
            )

    def with_size(self, gib: float) -> DeviceMemory:
        """The same device with another memory; any size that leaves the reserve. Raises `MemrtError` otherwise."""
        if gib <= self.reserve_gib:
            raise MemrtError(
                "device memory", expected=f"more than the reserve of {self.reserve_gib} GiB", found=gib, fix="raise it"
            )
        return msgspec.structs.replace(self, gib=gib, variants=())


class TensorRtBuild(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How engines are built.

    `decoder_lengths`: the largest number of new tokens of each decoder profile, 1 first (decode); the export adds the
    K/V capacity. `prefix_lengths`: tokens of the low level's prefix, the same way. `timing_cache`: engines with one key
    share a timing cache on the device.
    """

    workspace_mib: Annotated[int, msgspec.Meta(gt=0)]
    decoder_lengths: tuple[Annotated[int, msgspec.Meta(gt=0)], ...]
    prefix_lengths: tuple[Annotated[int, msgspec.Meta(gt=0)], ...]
    timing_cache: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

    def __post_init__(self) -> None:
        for name, lengths in (("decoder_lengths", self.decoder_lengths), ("prefix_lengths", self.prefix_lengths)):
            if not lengths or list(lengths) != sorted(set(lengths)):
                raise FieldError(name, expected="ascending lengths, at least one", found=list(lengths), fix="sort them")


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of computer, and the backend that runs engines there. `precisions`: the schemes it can run.

    `plan` is how checkpoints are stored unless the user brings a plan; `fp32` names what stays fp32 whatever the plan
    says, as patterns over weights and nodes, by engine.
    """

    name: str
    backend: Backend
    precisions: tuple[Scheme, ...]
    quantisation: Quantisation | None = None
    sm: tuple[int, ...] = ()
    memory: DeviceMemory | None = None
    build: TensorRtBuild | None = None
    plan: dict[str, EnginePlan]
    fp32: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        needed = ("quantisation",) if self.backend == "onnxruntime" else ("sm", "memory", "build")
        for name in ("quantisation", "sm", "memory", "build"):
            if bool(getattr(self, name)) != (name in needed):
                verb = "add" if name in needed else "remove"
                raise FieldError(
                    name,
                    expected=f"the keys {', '.join(needed)} for backend {self.backend}",
                    found="none" if name in needed else "one",
                    fix=f"{verb} `{name}`",
                )
        if self.backend == "tensorrt_rtx" and (wrong := sorted(set(self.sm) - set(AHEAD_OF_TIME_SMS))):
            raise FieldError(
                "sm", expected=f"some of {AHEAD_OF_TIME_SMS}", found=wrong, fix="use backend: tensorrt for those GPUs"
            )
        for name, engine in self.plan.items():
            for scheme in (engine.scheme, *engine.keep.values()):
                if scheme not in self.precisions and scheme != "fp32":
                    raise FieldError(f"plan.{name}", expected=self.precisions, found=scheme, fix="add it to precisions")

    def check(self, precision: str) -> None:
        """Raises `MemrtError` when the target cannot run `precision`."""
        if precision not in self.precisions:
            raise MemrtError(
                f"target {self.name} does not run this precision",
                expected=" or ".join(self.precisions),
                found=precision,
                fix="choose one of them, with --precision or in the plan",
            )

    def sms_for(self, schemes: Iterable[str]) -> tuple[int, ...]:
        """The target's GPUs that have hardware for all `schemes`. Raises `MemrtError` when none has."""
        schemes = set(schemes)
        fit = tuple(sm for sm in self.sm if all(sm >= LEAST_SM.get(scheme, 0) for scheme in schemes))
        if not fit:
            raise MemrtError(
                f"no GPU of target {self.name} has hardware for this plan",
                expected=", ".join(f"{s}: SM {LEAST_SM[s]} or newer" for s in sorted(schemes & LEAST_SM.keys())),
                found=f"SM {', '.join(map(str, self.sm))}",
                fix="use int8 or int4 there, or choose another target",
            )
        return fit

    def default_plan(self, engines: Iterable[str]) -> Plan:
        """The target's own plan for `engines`. Raises `MemrtError` for one that it does not speak of."""
        plan = Plan(engines=dict(self.plan))
        return Plan(engines={name: plan.engine(name) for name in engines})

    def int8_settings(self) -> Quantisation:
        """The settings of int8 graphs for ONNX Runtime. Raises `MemrtError` for a TensorRT target."""
        if self.quantisation is None:
            raise MemrtError(
                f"target {self.name} has no graphs for ONNX Runtime",
                expected="a target with backend onnxruntime",
                found=self.backend,
                fix="export with --target cpu",
            )
        return self.quantisation


def load_target(path_or_name: str | Path = "cpu") -> Target:
    """The target of a YAML file, or the packaged one of that name. Raises `MemrtError` naming what is wrong."""
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        path = packaged_file("targets", str(path_or_name), what="target", file="a target YAML")
    target: Target = convert(read_yaml(path), Target, str(path))
    return target
