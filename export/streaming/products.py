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


@dataclass(frozen=True, slots=True)
class ProductSettings:
    """How products are quantised. `smoothing` is SmoothQuant's alpha for schemes with static activation ranges."""

    plan: EnginePlan
    smoothing: float = 0.5
    reduce_range: bool = False
    symmetric: bool = True  # activations: TensorRT's int8 is symmetric, ONNX Runtime's kernels take U8


class Product:
    """A layer with `weight` [in, out], in the unit under way."""

    def __init__(self, name: str, layer: nn.Module, settings: ProductSettings) -> None:
        """`name` is the layer's path in the graph."""
        self.name = name
        self.weight_name = f"{name}.weight"
        self.scheme: Scheme = settings.plan.scheme_of(self.weight_name)
        self.packed: PackedWeight | None = None
        self.range = ActivationRange()
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
        plan = self._settings.plan
        if self.scheme not in QUANTISED:
            if self.scheme != "fp32":
                dtype = TORCH_TYPES[self.scheme]
                self._become(weight, weight.to(dtype).float(), lambda x: x.to(dtype).float())
            return
        scales = self._scales(weight)
        self.inverse_smoothing = 1.0 / scales
        heard = [rows * self.inverse_smoothing for rows in self._rows]
        self.packed = pack(
            weight * scales[:, None],
            self.scheme,
            block=plan.block,
            reduce_range=self._settings.reduce_range,
            scale_type=plan.compute,
            importance=torch.cat(heard).square().mean(0) if heard and self.scheme == "int4" else None,
        )
        for rows in heard:
            self.range.update(rows)
        dtype, rounding = TORCH_TYPES[plan.compute], self.activation
        self._become(weight, self.packed.dequantise(), lambda x: _enter(x * self.inverse_smoothing, dtype, rounding))

    @property
    def activation(self) -> Activation | None:
        """How the input is rounded, None for weight-only schemes."""
        kind = ACTIVATION_KINDS.get(self.scheme)
        if kind is None:
            return None
        chosen: Kind = "u8" if kind == "s8" and not self._settings.symmetric else kind
        return self.range.parameters(chosen, compute=self._settings.plan.compute)

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

    def _become(self, exact: Tensor, stored: Tensor, enter: Callable[[Tensor], Tensor]) -> None:
        if self._rows:
            every = torch.cat(self._rows)
            rows = every[:: max(1, len(every) // ROWS)][:ROWS]
            wanted = rows @ exact
            difference = torch.linalg.vector_norm(enter(rows) @ stored - wanted)
            self.relative_l2 = float(difference / torch.linalg.vector_norm(wanted).clamp_min(1e-12))
        self._layer.weight = nn.Buffer(stored)
        self._layer.register_forward_pre_hook(lambda _module, inputs: (enter(inputs[0]),))

    def _hear(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
        self._rows.append(rows.clone())


def _enter(x: Tensor, dtype: torch.dtype, rounding: Activation | None) -> Tensor:
    """The product's input in the engine's type and steps, as float32."""
    typed = x.to(dtype).float()
    return typed if rounding is None else round_activation(typed, rounding)
