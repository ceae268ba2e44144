"""A base model with a LoRA adapter, merged tensor by tensor as it is read."""

from __future__ import annotations

import torch
from torch import Tensor

from memrt.export.checkpoints.adapter import Adapter, AdapterFolder, match_targets, refusal
from memrt.export.checkpoints.source import Shape, WeightSource


class AdaptedSource:
    """W + scale · B·A in fp32 for the weights that the adapter changes, the base's own tensors for all others."""

    def __init__(self, base: WeightSource, adapter: Adapter) -> None:
        """Raises MemrtError unless every module of the adapter has its place in `base`, and, for an adapter from a
        file, every module that its configuration targets has its pair.
        """
        self.label = f"{base.label} + {adapter.label}"
        self._base, self._adapter = base, adapter
        self._modules = match_targets(adapter, {name: base.shape(name) for name in base.names()}, adapter.label)
        if isinstance(adapter, AdapterFolder):
            self._check_complete(adapter)

    def names(self) -> tuple[str, ...]:
        """The base's."""
        return self._base.names()

    def shape(self, name: str) -> Shape:
        """The base's."""
        return self._base.shape(name)

    def read(self, name: str) -> Tensor:
        """The merged weight, fp32; unchanged tensors as the base stores them."""
        weight = self._base.read(name)
        module = self._modules.get(name)
        if module is None:
            return weight
        down, up = self._adapter.pair(module)
        return torch.addmm(weight.float(), up.float(), down.float(), alpha=self._adapter.scale(module))

    def fingerprint(self) -> dict[str, str]:
        """The base's files, and the adapter's under `adapter/`."""
        adapter = {f"adapter/{file}": digest for file, digest in self._adapter.fingerprint().items()}
        return self._base.fingerprint() | adapter

    def adapted_names(self) -> tuple[str, ...]:
        """The tensors that differ from the base's."""
        return tuple(sorted(self._modules))

    def _check_complete(self, adapter: AdapterFolder) -> None:
        linear = [name for name in self._base.names() if name.endswith(".weight") and len(self.shape(name)) == 2]
        wanted = [name for name in linear if adapter.targets(name.removesuffix(".weight"))]
        without = [name for name in wanted if name not in self._modules]
        if without:
            raise refusal(
                adapter.label,
                f"a pair for each of the {len(wanted)} modules that target_modules names in the base model",
                f"{len(without)} without, first {without[0].removesuffix('.weight')}",
                "name the base it was trained on, or restore the config of this adapter",
            )
