"""What a π0.5 policy sees: images, normalised states, prompt text, delta actions. Training and the robot share it.

Conventions are openpi's (https://github.com/Physical-Intelligence/openpi). A model is only as good as the equality
of this file with what it was trained on, so everything here is pure, numpy only, and tested against naive code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime._core import resize_bilinear
from memrt.runtime.errors import MemrtError

# openpi adds it to the quantile range so that a dimension which never moves does not divide by zero.
QUANTILE_EPSILON = 1e-6

# The state is written into the prompt as integers: bins of equal width over [-1, 1] (openpi's tokenizer for π0.5).
STATE_BINS = 256

_PLACEHOLDER = re.compile(r"\{(goal|subgoal|state)\}")

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


def resize_with_pad(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale uint8 [height, width, 3] into a black square uint8 [size, size, 3], keeping the aspect ratio.

    Bilinear with antialiasing, bit for bit Pillow's, as the training data was made; a bilinear filter without
    antialiasing (OpenCV's) differs by up to 75 levels. The picture is centred; odd padding goes right and below.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MemrtError(
            "image",
            expected="uint8 [height, width, 3]",
            found=f"{image.dtype} {list(image.shape)}",
            fix="convert the camera's frames to 8-bit RGB",
        )
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    ratio = max(width / size, height / size)
    inner_height, inner_width = max(1, int(height / ratio)), max(1, int(width / ratio))
    square = np.zeros((size, size, 3), dtype=np.uint8)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    resize_bilinear(np.ascontiguousarray(image), square[top : top + inner_height, left : left + inner_width])
    return square


def normalise_image(image: NDArray[np.uint8]) -> Float32Array:
    """Map uint8 [..., 3] in 0..255 to float32 in [-1, 1]."""
    scaled = image.astype(np.float32)
    scaled /= 127.5
    scaled -= 1.0
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Quantiles:
    """Per-dimension 1 % and 99 % quantiles, float64 [dimensions]; they become -1 and 1."""

    q01: Float64Array
    q99: Float64Array

    def __post_init__(self) -> None:
        if self.q01.ndim != 1 or self.q01.shape != self.q99.shape:
            raise MemrtError(
                "norm stats",
                expected="q01 and q99 as lists of the same length",
                found=f"shapes {list(self.q01.shape)} and {list(self.q99.shape)}",
                fix="use the norm_stats.json that belongs to the checkpoint",
            )
        if not (np.isfinite(self.q01).all() and np.isfinite(self.q99).all() and (self.q99 >= self.q01).all()):
            raise MemrtError(
                "norm stats",
                expected="finite quantiles with q01 <= q99",
                found=f"q01 {self.q01.tolist()}, q99 {self.q99.tolist()}",
                fix="compute the norm stats again from the training set",
            )

    @property
    def dimensions(self) -> int:
        """How many dimensions are described; a padded model has more, and those are never touched."""
        return len(self.q01)

    @property
    def span(self) -> Float64Array:
        """The range that is mapped onto two units, float64 [dimensions]."""
        return self.q99 - self.q01 + QUANTILE_EPSILON

    def normalise(self, values: NDArray[Any]) -> Float64Array:
        """[..., dimensions] in physical units → float64, mostly inside [-1, 1] (outliers stay outside)."""
        return (np.asarray(values, dtype=np.float64) - self.q01) / self.span * 2.0 - 1.0

    def unnormalise(self, values: NDArray[Any]) -> Float64Array:
        """[..., dimensions] in model units → float64 in physical units; the inverse of `normalise`."""
        return (np.asarray(values, dtype=np.float64) + 1.0) * 0.5 * self.span + self.q01

    def without_padding(self, dimensions: int) -> Quantiles:
        """The first `dimensions`, where all further ones are the zeros that stats are padded with; else all there are.

        Statistics of more dimensions that move are of another robot, and must not be cut to fit.
        """
        padding = slice(dimensions, None)
        if self.q01[padding].any() or self.q99[padding].any():
            return self
        return Quantiles(self.q01[:dimensions], self.q99[:dimensions])

    @classmethod
    def of(cls, samples: NDArray[Any]) -> Quantiles:
        """The quantiles of samples [N, dimensions]."""
        low, high = np.quantile(np.asarray(samples, dtype=np.float64), (0.01, 0.99), axis=0)
        return cls(q01=low, q99=high)


@dataclass(frozen=True, slots=True, eq=False)
class NormStats:
    """The two normalisations of a policy: of the proprioception, and of the (delta) actions."""

    state: Quantiles
    actions: Quantiles

    @classmethod
    def load(cls, path: str | Path) -> NormStats:
        """Read openpi's `norm_stats.json`: `{"norm_stats": {"state": {mean, std, q01, q99}, "actions": ...}}`."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _no_norm_stats(path, error) from error
        return cls.parse(document, path)

    @classmethod
    def parse(cls, document: Any, source: object) -> NormStats:
        """The same from the decoded document, which `source` names in errors."""
        try:
            stats = document["norm_stats"]
            state, actions = (
                Quantiles(*(np.asarray(stats[name][key], dtype=np.float64) for key in ("q01", "q99")))
                for name in ("state", "actions")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _no_norm_stats(source, error) from error
        return cls(state=state, actions=actions)


def _no_norm_stats(source: object, error: Exception) -> MemrtError:
    return MemrtError(
        f"norm stats {source}",
        expected='{"norm_stats": {"state": {"q01", "q99"}, "actions": {"q01", "q99"}}}',
        found=f"{type(error).__name__}: {error}",
        fix="copy assets/<id>/norm_stats.json from the checkpoint; π0.5 needs statistics with quantiles",
    )


def norm_stats_document(state: NDArray[Any], actions: NDArray[Any]) -> dict[str, Any]:
    """The content of openpi's norm_stats.json for states [N, d] and actions [N, horizon, d] (after `to_delta`).

    One statistic per dimension over all steps of the horizon.
    """
    document: dict[str, Any] = {}
    for name, samples in (("state", state), ("actions", actions)):
        flat = np.asarray(samples, dtype=np.float64).reshape(-1, samples.shape[-1])
        quantiles = Quantiles.of(flat)
        document[name] = {
            "mean": flat.mean(0).tolist(),
            "std": flat.std(0).tolist(),
            "q01": quantiles.q01.tolist(),
            "q99": quantiles.q99.tolist(),
        }
    return {"norm_stats": document}


def discretise_state(normalised: NDArray[Any]) -> NDArray[np.int64]:
    """Normalised state [...] → integers 0..255; values outside [-1, 1] fall into the first or last bin."""
    edges = np.linspace(-1.0, 1.0, STATE_BINS + 1)[:-1]
    bins = np.digitize(np.asarray(normalised, dtype=np.float64), edges) - 1
    return np.clip(bins, 0, STATE_BINS - 1).astype(np.int64)


def clean_text(text: str, *, lower_case: bool = False) -> str:
    """The text as π0.5 was trained to read it: stripped, `_` and newlines as spaces, lower-cased if asked."""
    cleaned = text.strip().replace("_", " ").replace("\n", " ")
    return cleaned.lower() if lower_case else cleaned


def format_prompt(
    template: str,
    *,
    goal: str,
    subgoal: str,
    state: Sequence[int] | NDArray[np.int64] = (),
    lower_case: bool = False,
) -> str:
    """Fill `{goal}`, `{subgoal}` and `{state}` of a policy's low-level template, all in one pass.

    The texts are cleaned (and lower-cased if asked), the template is taken as it is written; the state is the
    integers of `discretise_state`, separated by spaces. Braces inside a text are plain characters.
    """
    fields = {
        "goal": clean_text(goal, lower_case=lower_case),
        "subgoal": clean_text(subgoal, lower_case=lower_case),
        "state": " ".join(str(int(value)) for value in state),
    }
    return _PLACEHOLDER.sub(lambda match: fields[match.group(1)], template)


def prompt_uses_state(template: str) -> bool:
    """Whether a low-level template carries proprioception at all (RoboMME's and libero's do not)."""
    return "{state}" in template


def to_delta(actions: NDArray[Any], state: NDArray[Any], mask: Sequence[bool]) -> Float64Array:
    """Absolute actions [..., horizon, d] → relative to state [..., d] where `mask` is true, absolute elsewhere."""
    return np.asarray(actions, dtype=np.float64) - _reference(state, mask)


def to_absolute(actions: NDArray[Any], state: NDArray[Any], mask: Sequence[bool]) -> Float64Array:
    """The inverse of `to_delta`: the state is the one of the observation the chunk was computed from."""
    return np.asarray(actions, dtype=np.float64) + _reference(state, mask)


def _reference(state: NDArray[Any], mask: Sequence[bool]) -> Float64Array:
    values = np.asarray(state, dtype=np.float64)
    if values.shape[-1] != len(mask):
        raise MemrtError(
            "delta mask",
            expected=f"{values.shape[-1]} entries, one per dimension of the state",
            found=f"{len(mask)}",
            fix="set low_level.delta_mask in the policy's YAML",
        )
    return np.where(np.asarray(mask, dtype=bool), values, 0.0)[..., None, :]
