"""One pass over a network, unit by unit: weights in, calibration, quantisation, damage, bytes out.

At any time one unit's weights are in memory (the decoder layer of a 7B model: 0.9 GB in fp32). Three groups of samples
move through the network together:

- calibration samples in fp32, whose activations set ranges and smoothing,
- gate samples in fp32: the reference of the gates,
- gate samples with what the engine will compute: quantised weights, rounded activations. Their distance from the
  reference, unit by unit, is the damage that the report ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from memrt.export.streaming.products import Product, ProductSettings
from memrt.export.streaming.stages import LockStep, Outputs, Staged, mounted

Progress = Callable[[str], None]
Sample = Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class Unit:
    """A submodule of the graph and the function that builds it from real weights, in fp32."""

    path: str
    build: Callable[[], nn.Module]


class Sink(Protocol):
    """Where the bytes go."""

    def constant(self, name: str, value: Tensor) -> None:
        """A weight that is not quantised; float32."""
        ...

    def product(self, product: Product) -> None:
        """A quantised weight, with its smoothing."""
        ...


@dataclass(frozen=True, slots=True)
class UnitDamage:
    """What quantisation has done by the end of a unit. Relative L2 of the gate samples, the worst one.

    `written` is the share of the stream that the unit itself wrote, ‖out − in‖ / ‖out‖ of the reference: what a
    product's error can do to the stream at most; 1 where a unit does not add to what enters it.
    """

    unit: str
    relative_l2: float
    written: float


@dataclass(slots=True)
class Streamed:
    """What a pass leaves behind, beside the bytes."""

    products: dict[str, Product] = field(default_factory=dict)
    damage: list[UnitDamage] = field(default_factory=list)
    calibration: list[Outputs] = field(default_factory=list)  # of the calibration samples, in fp32
    reference: list[Outputs] = field(default_factory=list)  # of the gate samples, in fp32
    predicted: list[Outputs] = field(default_factory=list)  # of the gate samples, as the engine will compute them


def stream(
    graph: nn.Module,
    units: Sequence[Unit],
    calibration: Sequence[Sample],
    gate: Sequence[Sample],
    settings: ProductSettings,
    sink: Sink,
    progress: Progress,
) -> Streamed:
    """Pass over `units`, which must be every unit of the staged `graph`, in its order.

    `calibration` and `gate` are inputs of the graph. Nothing of the graph's own weights is read: it may be fake.
    """
    staged: Staged = graph  # type: ignore[assignment]  # graphs are modules with stages()
    listening, exact, rounded = (LockStep(staged, samples) for samples in (calibration, gate, gate))
    result = Streamed()
    for index, unit in enumerate(units):
        assert exact.unit in (unit.path, None), f"the graph waits for {exact.unit}, not {unit.path}"
        module = unit.build().eval()
        products = {
            name: Product(".".join(filter(None, (unit.path, name))), layer, settings)
            for name, layer in product_layers(module)
        }
        entering = exact.activations
        with mounted(graph, unit.path, module):
            for product in products.values():
                product.listen()
            listening.advance()
            for product in products.values():
                product.stop_listening()
            exact.advance()
            for product in products.values():
                product.quantise()  # from here on the module computes what the engine will
            _write(unit.path, module, products, sink)
            rounded.advance()
        for product in products.values():
            product.release()
            result.products[product.name] = product
        result.damage.append(UnitDamage(unit.path, _distance(exact, rounded), _written(entering, exact.activations)))
        progress(f"{unit.path} ({index + 1}/{len(units)}): relative L2 {result.damage[-1].relative_l2:.2e}")
        del module
    result.calibration, result.reference, result.predicted = listening.outputs, exact.outputs, rounded.outputs
    return result


def product_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a unit that multiply by a weight, by their path in it; "" is the unit itself."""
    from memrt.export.graph_parts import Affine

    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, Affine)]


def _write(path: str, module: nn.Module, products: dict[str, Product], sink: Sink) -> None:
    """Every weight of the unit, in the module's order."""
    by_weight = {product.weight_name: product for product in products.values()}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        full = f"{path}.{name}" if path else name
        product = by_weight.get(full)
        if product is not None and product.packed is not None:
            sink.product(product)
        else:
            sink.constant(full, value.detach())


def _distance(exact: LockStep, rounded: LockStep) -> float:
    """The worst sample's relative L2 after the unit: of what enters the next one, or of all outputs at the end."""
    if exact.unit is not None:
        pairs = list(zip(exact.activations, rounded.activations, strict=True))
    else:
        pairs = [(a, b) for e, r in zip(exact.outputs, rounded.outputs, strict=True) for a, b in zip(e, r, strict=True)]
    return max((relative_l2(a, b) for a, b in pairs), default=0.0)


def _written(entering: Sequence[Tensor], leaving: Sequence[Tensor]) -> float:
    adds = [(a, b) for a, b in zip(entering, leaving, strict=False) if a.shape == b.shape and a.dtype == b.dtype]
    # A branch (a deepstack merger) leaves the stream as it was: its error is its own.
    return max((relative_l2(after, before) for before, after in adds), default=1.0) or 1.0


def relative_l2(reference: Tensor, found: Tensor) -> float:
    """|found − reference| / |reference| over all elements."""
    difference = torch.linalg.vector_norm(found.float() - reference.float())
    return float(difference / torch.linalg.vector_norm(reference.float()).clamp_min(1e-12))
