"""Channel scales that make a weight, or its input, easier to quantise: x @ W = (x / s) @ (s · W) for any positive s.

`channel_scales` searches them for few-bit weights (AWQ, Lin et al. 2023, arXiv:2306.00978, §3.2): channels that carry
large activations get finer steps, s = mean|x|^α, and α is the one whose product is nearest to the exact one on the
calibration activations. `smooth_scales` are those of SmoothQuant (Xiao et al. 2023, arXiv:2211.10438, equation 4) for
8-bit activations. Whoever folds s divides what produces x (a norm's weight, the columns of the weight in front) and
multiplies the rows of every weight that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memrt.export.quantisers.packed import Compute, Scheme, pack
from memrt.runtime.errors import MemrtError

EXPONENTS = tuple(i / 10 for i in range(11))  # 0: no scaling
ROWS = 128
# Elements of all weights that are quantised per exponent, and once more to confirm the winner on other columns. A 4B
# decoder has a hundred groups of weights: with these the search takes one to two minutes on one core.
SEARCH_ELEMENTS = 1 << 20
CONFIRM_ELEMENTS = 1 << 22
# Silent channels must not turn their weights into outliers.
SMALLEST_RATIO = 1e-4


def channel_scales(
    weights: Sequence[Tensor],
    activations: Tensor,
    scheme: Scheme,
    block: int = 128,
    *,
    scale_type: Compute = "fp32",
    weighted: bool = False,
) -> Tensor:
    """Scales float32 [in] for `weights`, each [in, out_i], that all read `activations` [n, in]; ones where none help.

    Errors are measured with `pack` itself, on at most `ROWS` evenly spaced activations and on evenly spaced columns:
    all of them for weights up to `CONFIRM_ELEMENTS`. On those, the result is never worse than no scaling. `weighted`
    says that `pack` will be given `importance=(x / s).square().mean(0)`. Raises `MemrtError` for shapes that do not
    fit.
    """
    rows = activations.shape[-1]
    _check(weights, rows, "activations [n, in]", activations.dim() == 2 and len(activations) > 0)
    x = _spread(activations.detach(), ROWS).float()
    magnitude = x.abs().mean(0)
    best = torch.ones(rows)
    if not float(magnitude.max()) > 0.0:
        return best
    magnitude.clamp_min_(SMALLEST_RATIO * float(magnitude.max()))
    judge = _Judge(x, scheme, block, scale_type, weighted)
    sample = _columns(weights, SEARCH_ELEMENTS)
    least = judge.error(sample, best)
    for exponent in EXPONENTS[1:]:
        scale = _centred(magnitude**exponent)
        error = judge.error(sample, scale)
        if error < least:
            best, least = scale, error
    sample = _columns(weights, CONFIRM_ELEMENTS)
    none = torch.ones(rows)
    return best if judge.error(sample, best) <= judge.error(sample, none) else none


def smooth_scales(weights: Sequence[Tensor], maxima: Tensor, alpha: float) -> Tensor:
    """Scales float32 [in] from the largest magnitude `maxima` [in] of each input channel and those of its weights.

    `alpha` in 0..1 is the share of the difficulty that moves from the activations to the weights. All ones when the
    activations or the weights are zero throughout. Raises `MemrtError` for shapes that do not fit.
    """
    _check(weights, maxima.numel(), "maxima [in]", maxima.dim() == 1)
    x = maxima.detach().double()
    w = torch.stack([weight.detach().abs().amax(1).double() for weight in weights]).amax(0)
    if not (float(x.max()) > 0.0 and float(w.max()) > 0.0):
        return torch.ones(maxima.numel())
    x = x.clamp_min(1e-3 * float(x.max()))
    w = w.clamp_min(1e-3 * float(w.max()))
    scale = x**alpha / w ** (1.0 - alpha)
    return (scale / scale.log().mean().exp()).float()


class _Judge:
    """Squared error of products whose weights were scaled, quantised and scaled back."""

    def __init__(self, x: Tensor, scheme: Scheme, block: int, scale_type: Compute, weighted: bool) -> None:
        self._x, self._scheme, self._block, self._scale_type = x, scheme, block, scale_type
        self._power = x.square().mean(0) if weighted and scheme == "int4" else None

    def error(self, weights: Sequence[Tensor], scale: Tensor) -> float:
        importance = None if self._power is None else self._power / scale.square()
        total = 0.0
        for weight in weights:
            packed = pack(
                weight * scale[:, None],
                self._scheme,
                block=self._block,
                scale_type=self._scale_type,
                importance=importance,
            )
            residual = packed.dequantise().div_(scale[:, None]).sub_(weight)
            total += float((self._x @ residual).double().square().sum())
        return total


def _check(weights: Sequence[Tensor], rows: int, what: str, fits: bool) -> None:
    shapes = [list(weight.shape) for weight in weights]
    if not (fits and weights and all(len(s) == 2 and s[0] == rows for s in shapes)):
        raise MemrtError(
            "scales of a group of weights",
            expected=f"{what} and weights [in, out] with the same in",
            found=f"{rows} channels and weights {shapes}",
            fix="pass weights that read the same input, and that input",
        )


def _spread(x: Tensor, count: int) -> Tensor:
    """At most `count` evenly spaced rows."""
    return x if len(x) <= count else x[torch.linspace(0, len(x) - 1, count).round().long()]


def _columns(weights: Sequence[Tensor], elements: int) -> list[Tensor]:
    """Evenly spaced columns of each weight, about `elements` in all."""
    stride = max(1, -(-sum(weight.numel() for weight in weights) // elements))
    return [weight.detach()[:, stride // 2 % weight.shape[1] :: stride].float().contiguous() for weight in weights]


def _centred(scale: Tensor) -> Tensor:
    """Around 1, so that nothing under- or overflows when s is folded in 16 bits."""
    return scale / (scale.max() * scale.min()).sqrt()
