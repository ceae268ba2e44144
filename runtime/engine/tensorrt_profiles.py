"""Optimisation profiles: the ranges of input shapes that a TensorRT engine is compiled for, and which serves a call.

Pure functions of shapes: the builder writes profiles with them, the adapter chooses one per call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import FieldError

Shape = tuple[int, ...]


class ShapeRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Smallest, most common and largest shape of one input; TensorRT tunes its kernels for `optimum`."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        ranks = {len(self.minimum), len(self.optimum), len(self.maximum)}
        ordered = all(0 < a <= b <= c for a, b, c in zip(self.minimum, self.optimum, self.maximum, strict=False))
        if len(ranks) != 1 or not ordered:
            raise FieldError(
                "minimum",
                expected="0 < minimum <= optimum <= maximum in every dimension, all of one rank",
                found=f"{list(self.minimum)}, {list(self.optimum)}, {list(self.maximum)}",
                fix="order the three shapes",
            )

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether `shape` lies inside."""
        return len(shape) == len(self.minimum) and all(
            low <= found <= high for low, found, high in zip(self.minimum, shape, self.maximum, strict=True)
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One optimisation profile: a range for every input whose shape is not fixed (fixed ones may be listed too)."""

    shapes: dict[str, ShapeRange]

    def holds(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether every input that the profile names has a shape inside its range."""
        return all(name in shapes and span.holds(shapes[name]) for name, span in self.shapes.items())

    @property
    def volume(self) -> int:
        """Elements of all inputs at their largest: what the profile's kernels must provide for."""
        return sum(math.prod(span.maximum) for span in self.shapes.values())


def choose_profile(engine: str, profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]]) -> int:
    """The index of the profile for input `shapes`: of those that hold them, the one made for the least work.

    A one-token decode step also fits the prefill profiles, but their kernels are tuned for hundreds of rows. Equal
    profiles: the first. Raises `MemrtError` naming the input and the ranges when none holds the shapes.
    """
    fitting = [index for index, profile in enumerate(profiles) if profile.holds(shapes)]
    if fitting:
        return min(fitting, key=lambda index: (profiles[index].volume, index))
    names = [n for n in shapes if not any(p.shapes[n].holds(shapes[n]) for p in profiles if n in p.shapes)]
    culprit = next((n for n in names if any(n in p.shapes for p in profiles)), None)
    shown = {culprit: list(shapes[culprit])} if culprit else {n: list(s) for n, s in shapes.items()}
    ranges = [
        f"{list(p.shapes[n].minimum)} to {list(p.shapes[n].maximum)}" for p in profiles for n in shown if n in p.shapes
    ]
    raise MemrtError(
        f"engine {engine} has no optimisation profile for these inputs",
        expected=f"`{culprit}` within {' or '.join(ranges)}" if culprit else "one profile that holds all inputs",
        found=shown,
        fix="shorten the input, or export the policy again with a profile for this length",
    )


def length_profiles(
    dims: Mapping[str, Sequence[int | str]],
    lengths: Sequence[int],
    *,
    shortest: int = 1,
    few: tuple[str, int] | None = None,
) -> tuple[Profile, ...]:
    """One profile per bracket of the one symbolic dimension in `dims` (input name → its sizes, or the symbol's name).

    `few` names a second one that every profile takes from 1, which it is tuned for, to so many, or to its longest.

    `lengths`, ascending, are the largest length of each bracket, for which its kernels are tuned: (1, 128, 512) from
    `shortest` 1 gives a decode profile and two for prefill. The decode bracket is [1, 2] tuned for 1: beside others, a
    profile whose shapes are all fixed gets its own weight layout, and the engine holds fp16 and int8 weights twice.
    Each further profile also adds the int8 weights to the file once more, though not to the device's memory; int4 has
    neither cost (all measured with TensorRT for RTX 1.7). Raises `MemrtError` for lengths that do not ascend and for
    several symbols.
    """
    second, most = few or ("", 0)
    symbols = {size for shape in dims.values() for size in shape if isinstance(size, str)} - {second}
    if len(symbols) != 1 or not lengths or list(lengths) != sorted(set(lengths)) or not 0 < shortest <= lengths[0]:
        raise MemrtError(
            "optimisation profiles",
            expected="one symbolic dimension, and ascending lengths that begin at the shortest or above",
            found=f"symbols {sorted(symbols)}, lengths {list(lengths)}, shortest {shortest}",
            fix="name one dimension of the graph and list its lengths from short to long",
        )
    profiles, low = [], shortest
    for length in lengths:
        high = max(length, low + 1) if len(lengths) > 1 else length
        shapes = {
            name: ShapeRange(
                minimum=_sized(shape, low, second, 1),
                optimum=_sized(shape, length, second, 1),
                maximum=_sized(shape, high, second, min(most, high)),
            )
            for name, shape in dims.items()
            if any(isinstance(size, str) for size in shape)
        }
        profiles.append(Profile(shapes=shapes))
        low = length + 1
    return tuple(profiles)


def _sized(shape: Sequence[int | str], length: int, second: str, count: int) -> Shape:
    return tuple((count if size == second else length) if isinstance(size, str) else size for size in shape)
