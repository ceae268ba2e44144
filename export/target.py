"""What a bundle is exported for: `configs/targets/<name>.yaml`."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.calib.ranges import RangeMethod
from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import convert, read_yaml

Precision = Literal["fp32", "int8"]


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


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of computer, and the backend that runs engines there."""

    name: str
    backend: Literal["onnxruntime"]
    precisions: tuple[Precision, ...]
    quantisation: Quantisation

    def check(self, precision: str) -> None:
        """Raises `MemrtError` when the target cannot run `precision`."""
        if precision not in self.precisions:
            raise MemrtError(
                f"target {self.name} does not run this precision",
                expected=" or ".join(self.precisions),
                found=precision,
                fix="choose one of them with --precision",
            )


def load_target(path_or_name: str | Path = "cpu") -> Target:
    """The target of a YAML file, or the packaged one of that name. Raises `MemrtError` naming what is wrong."""
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        folder = Path(str(importlib.resources.files("memrt.configs") / "targets"))
        path = folder / f"{path_or_name}.yaml"
        if not path.is_file():
            raise MemrtError(
                "unknown target",
                expected=f"one of {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}, or a path to a YAML file",
                found=path_or_name,
                fix="choose one of them",
            )
    target: Target = convert(read_yaml(path), Target, str(path))
    return target
