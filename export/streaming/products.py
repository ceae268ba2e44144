"""One matrix product of a unit: it listens to its inputs, then becomes what the engine will compute.

After `quantise` the layer multiplies the smoothed, rounded input by the dequantised weight, so that running the unit
again shows what quantisation does to everything behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memrt.export.plan import EnginePlan, Scheme
from memrt.export.quantisers.activations import Activation, ActivationRange, Kind
from memrt.export.quantisers.awq import channel_scales, smooth_scales
from memrt.export.quantisers.fake import round_activation
from memrt.export.quantisers.packed import SCHEMES as QUANTISED
from memrt.export.quantisers.packed import TORCH_TYPES, PackedWeight, pack

# How the input of a product is rounded, by the scheme of its weight; the others leave it alone. `u8` where ONNX Runtime
# is the target, whose kernels take unsigned activations.
ACTIVATION_KINDS: dict[str, Kind] = {"int8": "s8", "fp8": "fp8", "nvfp4": "nvfp4"}
ROWS = 128  # input rows on which a product's own damage is measured
# The share of a product's error that SmoothQuant must spare it to be worth a pass over the activations. Small gains add
# up: the reference action expert's chain of ten steps misses its gate (relative L2 0.063 to 0.065, limit 0.06) when
# products that gain less than a quarter, or a tenth, go without, and passes (0.049) with all of them.
SMOOTHING_GAIN = 0.03


@dataclass(frozen=True, slots=True)
class ProductSettings:
    """How products are quantised. `smoothing` is SmoothQuant's alpha for schemes with static activation ranges."""

    plan: EnginePlan
    smoothing: float = 0.5
    reduce_range: bool = False
    symmetric: bool = True  # activations: TensorRT's int8 is symmetric, ONNX Runtime's kernels take U8


@dataclass(frozen=True, slots=True)
class _Rounded:
    """A weight in codes, and how the input of its product is smoothed and rounded."""

    packed: PackedWeight
    inverse_smoothing: Tensor
    activation: Activation | None
    dtype: torch.dtype

    def enter(self, x: Tensor) -> Tensor:
        """The product's input in the engine's type and steps, as float32."""
        typed = (x * self.inverse_smoothing).to(self.dtype).float()
        return typed if self.activation is None else round_activation(typed, self.activation)


class Product:
    """A layer with `weight` [in, out], in the unit under way."""

    def __init__(self, name: str, layer: nn.Module, settings: ProductSettings) -> None:
        """`name` is the layer's path in the graph."""
        self.name = name
        self.weight_name = f"{name}.weight"
        self.scheme: Scheme = settings.plan.scheme_of(self.weight_name)
        self.packed: PackedWeight | None = None
        self.activation: Activation | None = None  # how the input is rounded; None for weight-only schemes
        self.inverse_smoothing = torch.ones(int(layer.weight.shape[0]))  # type: ignore[union-attr,index]
        self.relative_l2 = 0.0  # of the product's output, on the rows it kept
        self.elements = int(layer.weight.numel())  # type: ignore[union-attr,operator]
        self._layer: Any = layer
        self._settings = settings
        self._rows: list[Tensor] = []
        self._hook: Any = None

    def listen(self) -> None:
        """Keep a few rows of the inputs from now on."""
        self._hook = self._layer.register_forward_pre_hook(self._hear)

    def stop_listening(self) -> None:
        """The inputs of the calibration samples have all passed."""
        self._hook.remove()

    def quantise(self) -> None:
        """Choose smoothing, ranges and codes; the layer computes with them from here on."""
        weight: Tensor = self._layer.weight
        if self.scheme not in QUANTISED:
            if self.scheme != "fp32":
                dtype = TORCH_TYPES[self.scheme]
                self._become(weight, weight.to(dtype).float(), lambda x: x.to(dtype).float())
            return
        rounded = self._round(weight, self._scales(weight))
        if self.scheme != "int4" and bool((rounded.inverse_smoothing != 1.0).any()):
            plain = self._round(weight, torch.ones(len(weight)))
            if self._error(weight, rounded) > (1.0 - SMOOTHING_GAIN) * self._error(weight, plain):
                rounded = plain
        self.packed, self.activation = rounded.packed, rounded.activation
        self.inverse_smoothing = rounded.inverse_smoothing
        self._become(weight, rounded.packed.dequantise(), rounded.enter)

    @property
    def smoothed(self) -> bool:
        """Whether the engine has to multiply the input by `inverse_smoothing`."""
        return bool((self.inverse_smoothing != 1.0).any())

    def release(self) -> None:
        """Drop weights and codes; what reports and graphs need stays."""
        self._layer, self._rows, self.packed = None, [], None

    def _scales(self, weight: Tensor) -> Tensor:
        rows, plan = self._rows, self._settings.plan
        if not rows or self.scheme == "nvfp4":
            return torch.ones(weight.shape[0])
        if self.scheme == "int4":
            return channel_scales([weight], torch.cat(rows), "int4", plan.block, scale_type=plan.compute, weighted=True)
        return smooth_scales([weight], torch.stack([r.abs().amax(0) for r in rows]).amax(0), self._settings.smoothing)

    def _round(self, weight: Tensor, scales: Tensor) -> _Rounded:
        plan, inverse = self._settings.plan, 1.0 / scales
        heard = [rows * inverse for rows in self._rows]
        packed = pack(
            weight * scales[:, None],
            self.scheme,
            block=plan.block,
            reduce_range=self._settings.reduce_range,
            scale_type=plan.compute,
            importance=torch.cat(heard).square().mean(0) if heard and self.scheme == "int4" else None,
        )
        return _Rounded(packed, inverse, self._range(heard), TORCH_TYPES[plan.compute])

    def _range(self, heard: list[Tensor]) -> Activation | None:
        kind = ACTIVATION_KINDS.get(self.scheme)
        if kind is None:
            return None
        found = ActivationRange()
        for rows in heard:
            found.update(rows)
        chosen: Kind = "u8" if kind == "s8" and not self._settings.symmetric else kind
        return found.parameters(chosen, compute=self._settings.plan.compute)

    def _error(self, weight: Tensor, rounded: _Rounded) -> float:
        return self._difference(weight, rounded.packed.dequantise(), rounded.enter)

    def _difference(self, exact: Tensor, stored: Tensor, enter: Callable[[Tensor], Tensor]) -> float:
        """Relative L2 of the product's output on some of the rows that were heard."""
        every = torch.cat(self._rows)
        rows = every[:: max(1, len(every) // ROWS)][:ROWS]
        wanted = rows @ exact
        difference = torch.linalg.vector_norm(enter(rows) @ stored - wanted)
        return float(difference / torch.linalg.vector_norm(wanted).clamp_min(1e-12))

    def _become(self, exact: Tensor, stored: Tensor, enter: Callable[[Tensor], Tensor]) -> None:
        if self._rows:
            self.relative_l2 = self._difference(exact, stored, enter)
        self._layer.weight = nn.Buffer(stored)
        self._layer.register_forward_pre_hook(lambda _module, inputs: (enter(inputs[0]),))

    def _hear(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
        self._rows.append(rows.clone())
